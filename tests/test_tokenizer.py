# ruff: noqa: RUF001  Greek letters are intended
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import AsciiConfig, BPEConfig, ByteConfig, CharConfig, Chars, from_json
from lm.data.tokenizer.plain import byte_letters
from lm.data.tokenizer.subword import cut_long_words

TESTS = Path(__file__).parent
PROSE = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n\n\nThe slings\n" * 50
VAL = "Die Ärzte fühlen 😀 nothing.\n"
TEXT = Text(Split.of(PROSE), Split.of(VAL))
DOCUMENTS = Text(Split.of(PROSE, "To sleep: perchance to dream.\n"), Split.of(VAL))
NAMES = ["<|user|>", "[PAD]"]
SPECIAL = ["<unk>", "<|endoftext|>", *NAMES, "<|reserved_0|>"]
CHARACTERS = st.characters(codec="utf-8")  # no surrogates
ANYTHING = st.lists(st.text(CHARACTERS, max_size=30) | st.sampled_from(SPECIAL), max_size=8).map("".join)


def build(config, text=TEXT):
    return config.build(text, Downloads(Path("nowhere")))


def text_of(train, val="a"):
    return Text(Split.of(train), Split.of(val))


def hugging_face(tokenizer):
    return HFTokenizer.from_str(tokenizer.to_json())


KINDS = {
    "byte": build(ByteConfig()),
    "byte, special": build(ByteConfig(special_tokens=NAMES, reserved_tokens=1), DOCUMENTS),
    "bpe": build(BPEConfig(vocab_size=300)),
    "bpe, special": build(BPEConfig(vocab_size=300, special_tokens=NAMES, reserved_tokens=1), DOCUMENTS),
    "ascii": build(AsciiConfig(special_tokens=NAMES), DOCUMENTS),
    "char": build(CharConfig()),
    "char, special": build(CharConfig(special_tokens=["<unk>", *NAMES]), DOCUMENTS),
    "char, unknown": build(CharConfig(unknown=True, special_tokens=NAMES), DOCUMENTS),
    "char, lowercase": build(CharConfig(lowercase=True)),
    "char, both": build(CharConfig(unknown=True, lowercase=True, reserved_tokens=2)),
}
LOSSLESS = ["byte", "byte, special", "bpe", "bpe, special"]
BPE = KINDS["bpe"]


def encodable_texts(name):
    """Return a strategy of texts that a tokenizer can encode."""
    tokenizer = KINDS[name]
    closed = isinstance(tokenizer, Chars) and tokenizer.unknown is None
    return st.text(st.sampled_from(tokenizer.characters), max_size=60) if closed else ANYTHING


# Round trips


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("again", [False, True], ids=["built", "loaded"])
@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=60)
@given(texts=st.lists(ANYTHING, max_size=3))
def test_any_text_survives_encoding_and_decoding_and_never_gives_a_special_id(name, again, texts):
    tokenizer = from_json(KINDS[name].to_json()) if again else KINDS[name]
    batch = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    assert batch == [tokenizer.encode(text).tolist() for text in texts]
    assert tokenizer.decode_batch(batch) == [tokenizer.decode(ids) for ids in batch] == texts
    for ids, text in zip(batch, texts, strict=True):
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())
        assert not set(ids) & set(tokenizer.special_tokens.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "\r\n\r\n",
        " \u00a0\u2003 ",
        "é vs e\u0301",
        "👩‍👩‍👧",
        "\ufeffbom",
        "\n" * 50,
        "\U0010ffff",
        "a" * 100_000,
    ],
    ids=lambda text: ascii(text[:9]),
)
def test_unusual_strings_survive_encoding_and_decoding(text):
    for name in LOSSLESS:
        ids = KINDS[name].encode(text)
        assert ids.dtype == np.int64 and KINDS[name].decode(ids.tolist()) == text


@settings(max_examples=200)
@given(data=st.binary(max_size=60))
def test_invalid_bytes_are_decoded_as_python_and_hugging_face_do(data):
    byte, text = KINDS["byte, special"], data.decode(errors="replace")
    assert byte.decode(list(data)) == hugging_face(byte).decode(list(data)) == text
    assert byte.decode(byte.encode(text).tolist()) == text


@settings(max_examples=60)
@given(text=ANYTHING.filter(bool))
def test_char_encodes_every_text_of_the_characters_of_its_corpus(text):
    config = CharConfig(special_tokens=["<unk>", *NAMES], reserved_tokens=1)
    built = build(config, Text(Split.of(text, text[::-1]), Split.of(text)))
    for tokenizer in (built, from_json(built.to_json())):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids.tolist()) == text and len(ids) == len(text)
        assert ids.max() < len(set(text)) == tokenizer.vocab_size - len(SPECIAL)
        assert set(tokenizer.special_tokens) == set(SPECIAL)
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@settings(max_examples=100)
@given(text=ANYTHING)
def test_ascii_encodes_ascii_and_replaces_other_characters(text):
    printable = "\t\n\x0b\x0c\r" + "".join(map(chr, range(32, 127)))
    tokenizer = KINDS["ascii"]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == "".join(c if c in printable else "\ufffd" for c in text)
    assert ids.max(initial=0) <= 100 and tokenizer.token_bytes[ids].sum() == len(text)


# Ids


@pytest.mark.parametrize(
    ("config", "text", "base", "names"),
    [
        (ByteConfig(), TEXT, 256, []),
        (ByteConfig(special_tokens=["<|user|>"]), TEXT, 256, ["<|user|>"]),
        (ByteConfig(), DOCUMENTS, 256, ["<|endoftext|>"]),
        (ByteConfig(special_tokens=NAMES, reserved_tokens=1), DOCUMENTS, 256, SPECIAL[1:]),
        (AsciiConfig(), TEXT, 100, ["<unk>"]),
        (AsciiConfig(special_tokens=NAMES, reserved_tokens=1), DOCUMENTS, 100, SPECIAL),
        (CharConfig(), text_of("abc"), 3, []),
        (CharConfig(unknown=True), text_of("abc"), 3, ["<unk>"]),
        (CharConfig(unknown=True, special_tokens=["[B]", "<unk>"]), text_of("abc"), 3, ["<unk>", "[B]"]),
        (CharConfig(special_tokens=["[B]", "<unk>"]), text_of("abc"), 3, ["[B]", "<unk>"]),
        (CharConfig(min_frequency=2, special_tokens=["[B]", "[A]"]), text_of("aab"), 1, ["<unk>", "[B]", "[A]"]),
        (BPEConfig(vocab_size=300), TEXT, 300, []),
        (BPEConfig(vocab_size=300, special_tokens=NAMES), TEXT, 298, NAMES),
        (BPEConfig(vocab_size=300, special_tokens=["[A]", "<|endoftext|>"]), DOCUMENTS, 298, ["<|endoftext|>", "[A]"]),
        (BPEConfig(vocab_size=260, special_tokens=NAMES, reserved_tokens=1), DOCUMENTS, 256, SPECIAL[1:]),
    ],
)  # fmt: skip
def test_special_tokens_have_the_highest_ids_in_their_order(config, text, base, names):
    built = build(config, text)
    for tokenizer in (built, from_json(built.to_json())):
        assert tokenizer.special_tokens == {name: base + i for i, name in enumerate(names)}
        assert tokenizer.vocab_size == len(tokenizer.token_bytes) == base + len(names)
        assert tokenizer.end_of_text == tokenizer.special_tokens.get("<|endoftext|>")
        ids = [*tokenizer.encode("a").tolist(), *(base + i for i in range(len(names)) if names[i] != "<unk>")]
        assert tokenizer.decode(ids) == "a" + "".join(name for name in names if name != "<unk>")
        assert hugging_face(tokenizer).decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)


def test_ids_of_bytes_are_their_values_and_ids_of_characters_follow_code_points():
    assert KINDS["byte, special"].encode("aé😀").tolist() == list("aé😀".encode())
    assert build(CharConfig(), text_of("zZ😀é a\n")).encode("\n Zazé😀").tolist() == list(range(7))
    assert KINDS["ascii"].encode("\t\n\x0b\x0c\r ~\x7f").tolist() == [0, 1, 2, 3, 4, 5, 99, 100]


def golden():
    """Return, for each tokenizer, the ids of a sentence and the file that it is saved in."""
    sentence = "To be, or not: 'tis 2nd ÜBER-naïve\n\n  日本<|endoftext|>"
    closed = {"char": "The mind, 😀\n", "char, special": "The mind, 😀\n", "char, lowercase": "THE MIND, Ä\n"}
    return {name: [kind.encode(closed.get(name, sentence)).tolist(), kind.to_json()] for name, kind in KINDS.items()}


GOLDEN = {
    "byte": [
        84, 111, 32, 98, 101, 44, 32, 111, 114, 32, 110, 111, 116, 58, 32, 39, 116, 105, 115, 32, 50, 110, 100,
        32, 195, 156, 66, 69, 82, 45, 110, 97, 195, 175, 118, 101, 10, 10, 32, 32, 230, 151, 165, 230, 156, 172,
        60, 124, 101, 110, 100, 111, 102, 116, 101, 120, 116, 124, 62,
    ],
    "bpe": [
        268, 264, 11, 291, 296, 25, 287, 283, 220, 17, 77, 67, 220, 127, 250, 33, 36, 49, 12, 77, 64, 127, 107,
        85, 68, 286, 220, 220, 162, 245, 98, 162, 250, 105, 27, 91, 68, 77, 67, 78, 69, 83, 68, 87, 83, 91, 29,
    ],
    "bpe, special": [
        268, 265, 11, 290, 295, 25, 286, 282, 220, 17, 77, 67, 220, 127, 250, 33, 36, 49, 12, 77, 64, 127, 107,
        85, 68, 285, 220, 220, 162, 245, 98, 162, 250, 105, 27, 91, 68, 77, 67, 78, 69, 83, 68, 87, 83, 91, 29,
    ],
    "ascii": [
        57, 84, 5, 71, 74, 17, 5, 84, 87, 5, 83, 84, 89, 31, 5, 12, 89, 78, 88, 5, 23, 83, 73, 5, 100, 39, 42,
        55, 18, 83, 70, 100, 91, 74, 1, 1, 5, 5, 100, 100, 33, 97, 74, 83, 73, 84, 75, 89, 74, 93, 89, 97, 35,
    ],
    "char": [
        7, 15, 12, 1, 18, 16, 19, 11, 3, 1, 29, 0,
    ],
    "char, unknown": [
        6, 20, 1, 9, 12, 3, 1, 20, 23, 1, 19, 20, 25, 5, 1, 2, 25, 16, 24, 1, 27, 19, 11, 1, 27, 27, 27, 27, 27,
        19, 8, 27, 27, 12, 0, 0, 1, 1, 27, 27, 27, 27, 12, 19, 11, 20, 13, 25, 12, 27, 25, 27, 27,
    ],
    "char, lowercase": [
        21, 12, 9, 1, 15, 13, 16, 8, 3, 1, 25, 0,
    ],
    "char, both": [
        21, 17, 1, 7, 9, 3, 1, 17, 19, 1, 16, 17, 21, 5, 1, 2, 21, 13, 20, 1, 24, 16, 8, 1, 24, 7, 9, 19, 24,
        16, 6, 24, 24, 9, 0, 0, 1, 1, 24, 24, 24, 24, 9, 16, 8, 17, 10, 21, 9, 24, 21, 24, 24,
    ],
}  # fmt: skip


def test_ids_equal_the_recorded_ones():
    found = golden()
    assert {name: found[name][0] for name in GOLDEN} == GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "parallel"), [("1", "false"), ("2", "true")])
def test_every_process_builds_the_same_tokenizers(seed, parallel):
    code = "import json, test_tokenizer; print(json.dumps(test_tokenizer.golden()))"
    env = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
    env["PYTHONPATH"] = f"{TESTS}{os.pathsep}{TESTS.parent}"
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == golden()


# The saved file


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=50)
@given(data=st.data())
def test_hugging_face_loads_the_file_and_gives_the_same_ids(name, data):
    text = data.draw(encodable_texts(name))
    for special in SPECIAL:  # because it would encode them as the token
        text = text.replace(special, "")
    tokenizer, hf = KINDS[name], hugging_face(KINDS[name])
    ids = tokenizer.encode(text).tolist()
    assert hf.encode(text).ids == ids and hf.get_vocab_size() == tokenizer.vocab_size
    known = [i for i in ids if i not in tokenizer.special_tokens.values()]
    assert hf.decode(known) == tokenizer.decode(known)


@pytest.mark.slow
@settings(max_examples=100)
@given(parts=st.lists(CHARACTERS | st.sampled_from("ΣσςİIıßẞK\u1c89\ua7cb\U00010d50"), max_size=30))
def test_lower_case_equals_that_of_hugging_face(parts):
    text = "".join(parts)
    once = text_of("".join(sorted(set(text))) + "σ")
    tokenizer = build(CharConfig(lowercase=True), once)
    ids = tokenizer.encode(text).tolist()
    assert ids == hugging_face(tokenizer).encode(text).ids
    assert ids == [i for character in text for i in tokenizer.encode(character)]  # independent of adjacent characters


@pytest.mark.parametrize("name", KINDS)
def test_a_tokenizer_is_the_same_after_saving_and_loading(name):
    tokenizer = KINDS[name]
    again = from_json(tokenizer.to_json())
    assert type(again) is type(tokenizer) and again.to_json() == tokenizer.to_json()
    assert again.special_tokens == tokenizer.special_tokens and again.end_of_text == tokenizer.end_of_text
    assert np.array_equal(again.token_bytes, tokenizer.token_bytes) and again.border == tokenizer.border
    if isinstance(tokenizer, Chars):
        assert again.characters == tokenizer.characters
        assert (again.unknown, again.lowercase) == (tokenizer.unknown, tokenizer.lowercase)
    indented = json.dumps(json.loads(tokenizer.to_json()), indent=2)
    assert from_json(indented).to_json() == tokenizer.to_json()


BROKEN = ["", "{}", "[]", "3", "null", '"x"', '{"model": {}}', '{"kind": "char", "characters": "abc"}']
EMPTY = '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'


@pytest.mark.parametrize("text", [*BROKEN, EMPTY, *(kind.to_json()[:-9] for kind in KINDS.values())], ids=range(19))
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="not a tokenizer.json that Hugging Face's tokenizers can open: "):
        from_json(text)


def test_files_that_resemble_ours_keep_their_own_ids():
    letters = byte_letters()
    for vocab in (letters, sorted(letters)):  # ordered by byte, as ours, and by letter, as a trainer writes them
        hf = HFTokenizer(models.BPE(vocab={c: i for i, c in enumerate(vocab)}, merges=[]))
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=vocab == letters, use_regex=False)
        hf.decoder = decoders.ByteLevel()
        assert from_json(hf.to_str()).encode("ab").tolist() == hf.encode("ab").ids
    hf = HFTokenizer(models.BPE(vocab={"ab": 0, "a": 1, "b": 2}, merges=[]))
    hf.decoder = decoders.Fuse()
    assert from_json(hf.to_str()).encode("ab").tolist() == hf.encode("ab").ids == [1, 2]


# Characters


def test_char_includes_the_characters_of_the_validation_text_and_reports_missing_ones():
    assert KINDS["char"].decode(KINDS["char"].encode(VAL).tolist()) == VAL
    with pytest.raises(ValueError, match="lacks 'Z', 'ß'; .*tokenizer.unknown=true"):
        KINDS["char"].encode("Zoo ß")


def test_unknown_characters_share_an_id_and_count_one_byte():
    tokenizer = build(CharConfig(unknown=True), text_of("abß", "xyz"))
    ids = tokenizer.encode("xa😀ßy\U0010ffff").tolist()  # characters that only the validation text has are unknown too
    assert ids == [3, 0, 3, 2, 3, 3] and tokenizer.decode(ids) == "\ufffda\ufffdß\ufffd\ufffd"
    assert tokenizer.token_bytes.tolist() == [1, 1, 2, 1]


def test_char_counts_only_training_text_for_min_frequency():
    rare = text_of("aaabbc", "ccccb")
    assert build(CharConfig(min_frequency=2), rare).characters == "ab"
    assert build(CharConfig(min_frequency=3), rare).characters == "a"
    assert build(CharConfig(min_frequency=2, lowercase=True), text_of("aAbB C", "c")).characters == "ab"
    with pytest.raises(ValueError, match="no character of the text occurs tokenizer.min_frequency=4 times"):
        build(CharConfig(min_frequency=4), rare)


def test_char_learns_from_the_first_train_chars():
    documents = Text(Split.of("aé", "b" * 100, "c"), Split.of("d"))
    for chars, expected in ((1, "a"), (2, "aé"), (3, "abé"), (102, "abé"), (103, "abcé"), (None, "abcé")):
        assert build(CharConfig(unknown=True, train_chars=chars), documents).characters == expected
    assert build(CharConfig(train_chars=1), documents).characters == "ad"


def test_lower_case_converts_each_character():
    tokenizer = build(CharConfig(lowercase=True), text_of("ΑΣ İK", "ẞ"))
    assert tokenizer.characters == " ikß\u0307ασ"
    assert tokenizer.decode(tokenizer.encode("ΑΣ ασ İ K ẞ").tolist()) == "ασ ασ i\u0307 k ß"


# BPE


def test_bpe_has_every_byte_and_compresses_and_learns_only_from_training_text():
    assert sorted(BPE.token_bytes)[:256] == [1] * 256
    assert len(BPE.encode(PROSE)) < 0.6 * len(PROSE)
    assert build(BPEConfig(vocab_size=300), text_of(PROSE, "zzzz zzzz zzzz\n" * 500)).to_json() == BPE.to_json()


def test_bpe_learns_from_the_first_train_chars():
    first, rest = PROSE[:4000], "zzzz zzzz zzzz\n" * 10_000
    short = build(BPEConfig(vocab_size=300), text_of(first))
    assert build(BPEConfig(vocab_size=300, train_chars=4000), text_of(first + rest)).to_json() == short.to_json()
    assert build(BPEConfig(vocab_size=300, train_chars=4000), text_of(first)).to_json() == short.to_json()
    assert build(BPEConfig(vocab_size=300, train_chars=None), text_of(first + rest)).to_json() != short.to_json()


def test_bpe_learns_from_pieces_what_hugging_face_learns_from_the_whole_text():
    hf = HFTokenizer(models.BPE())
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = PROSE * 50  # several pieces
    hf.train_from_iterator([text], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    assert json.loads(build(BPEConfig(vocab_size=330), text_of(text)).to_json()) == json.loads(hf.to_str())


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 16])
def test_encoding_in_parallel_pieces_changes_no_id(size):
    text = PROSE[:3000] + "x" * 300 + "\n\n  " + PROSE[:300]
    pieces = BPE._pieces(text, size)
    assert "".join(pieces) == text and (len(pieces) > 1) == (size < 1000)
    assert np.concatenate(BPE.encode_batch(pieces)).tolist() == BPE.hf.encode(text).ids


# Invalid settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BPEConfig(vocab_size=100), "tokenizer.vocab_size=100 must be at least 256"),
        (
            lambda: BPEConfig(vocab_size=258, special_tokens=NAMES, reserved_tokens=1),
            "vocab_size=258 must be at least 259",
        ),
        (
            lambda: build(BPEConfig(vocab_size=256), DOCUMENTS),
            "vocab_size=256 must be at least 257: 256 bytes and <.endoftext.>",
        ),
        (lambda: BPEConfig(train_chars=0), "tokenizer.train_chars=0 must be at least 1"),
        (lambda: CharConfig(min_frequency=0), "tokenizer.min_frequency=0 must be at least 1"),
        (lambda: ByteConfig(reserved_tokens=-1), "tokenizer.reserved_tokens=-1 must be at least 0"),
        (lambda: ByteConfig(special_tokens=["[A]", "[A]"]), "special_tokens=.* must be different, each of two char"),
        (
            lambda: ByteConfig(special_tokens=["a"]),
            "special_tokens=.* must be different, each of two characters or more",
        ),
        (
            lambda: build(BPEConfig(vocab_size=300, special_tokens=["the"])),
            "special_tokens: the vocabulary learned from the text already has the; choose other names",
        ),
        (
            lambda: build(BPEConfig(vocab_size=300, special_tokens=["Ġto"])),
            "special_tokens: the vocabulary learned from the text already has Ġto; choose other names",
        ),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_vocabulary_is_learned_from_a_text_without_spaces_in_parts():
    """Learning time is quadratic in the length of a word: a million letters without a space would take minutes."""
    dna = "".join(random.Random(0).choices("ACGT", k=30_000)) + " and so\n" + " " * 5000
    parts = list(cut_long_words(dna))
    assert "".join(parts) == dna
    assert max(len(run) for part in parts for run in re.findall(r"\S+|\s+", part)) <= 1000
    assert list(cut_long_words(PROSE)) == [PROSE]
    tokenizer = BPEConfig(vocab_size=300).build(Text(Split.of(dna), Split.of(dna[:100])), Downloads(Path("nowhere")))
    assert tokenizer.decode(tokenizer.encode(dna).tolist()) == dna and len(tokenizer.encode(dna)) < 0.5 * len(dna)
