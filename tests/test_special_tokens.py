"""Names of special tokens in a text or prompt: when they are parsed, and what is reported when they are not."""

import hashlib
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_foreign_tokenizers import KINDS as FOREIGN
from test_foreign_tokenizers import MIXED, byte_pairs
from test_tokenizer import KINDS as OWN
from test_tokenizer import PROSE, SPECIAL
from test_tokens import in_pieces
from tokenizers import AddedToken
from tokenizers import Tokenizer as HFTokenizer

from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.token_files import cache_tokens, cached_tokenizer, count_spelled_names, encode_split
from lm.data.tokenizer import BPEConfig, ByteConfig, Bytes, CharConfig, Chars, FileConfig, Subword, from_json

CHAT = "<|user|>To be, or not?<|bot|>Not to be.\n"
NAMES = ["<|user|>", "<|bot|>"]
CHATS = Text(Split.of(CHAT * 30), Split.of(CHAT))
# names that contain a position at which texts are cut, and names that begin or end like others
ODD = ["be, or", "to\nbe", " x", "x ", "\n\n", "<|a|>", "<|a|><|b|>", "a|", "12.", "b\n"]


def stripping():
    """Return a BPE tokenizer with special tokens that absorb adjacent white space, or must be whole words."""
    hf = byte_pairs()
    hf.add_special_tokens([
        AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True), AddedToken(".word", single_word=True),
        AddedToken("both ", lstrip=True, rstrip=True), *ODD,
    ])  # fmt: skip
    return Subword(hf)


KINDS = OWN | {name: from_json(content) for name, content in FOREIGN.items()}
KINDS |= {"odd bytes": Bytes(ODD), "odd byte pairs": stripping(), "odd lines": Subword(byte_pairs(), ODD)}
CLOSED = {"char", "char, special", "char, lowercase"}  # they encode only the characters of their corpus


def texts(name):
    tokenizer = KINDS[name]
    words = [*tokenizer.special_tokens, *(name[:-1] for name in tokenizer.special_tokens)]
    if name in CLOSED:
        letters = st.text(st.sampled_from(tokenizer.characters), max_size=5)
        return st.lists(letters | st.sampled_from([*tokenizer.special_tokens, "be"]), max_size=12).map("".join)
    if name.startswith("odd"):
        words += ["a", "b", "to", "be", ",", " ", "\n", ".", "12", "x", "<|a|", "  ", "|>", "word", "é"]
    return st.lists(st.sampled_from([*words, *SPECIAL]) | MIXED.map("".join) | st.text("ab ,.\n", max_size=4),
                    max_size=12).map("".join)  # fmt: skip


TEXTS = {name: texts(name) for name in KINDS}


def as_hugging_face(tokenizer, text):
    return HFTokenizer.from_str(tokenizer.to_json()).encode(text, add_special_tokens=False).ids


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_names_of_special_tokens_are_parsed_as_hugging_face_does_in_pieces_of_any_size(name, data):
    tokenizer, documents = KINDS[name], data.draw(st.lists(TEXTS[name], min_size=1, max_size=2))
    whole = [as_hugging_face(tokenizer, document) for document in documents]
    assert [tokenizer.encode(document, special=True).tolist() for document in documents] == whole
    assert [ids.tolist() for ids in tokenizer.encode_batch(documents, special=True)] == whole
    split, batch_chars = (
        in_pieces(data.draw(st.integers(1, 9)), *documents),
        data.draw(st.sampled_from([1, 9, 1 << 20])),
    )
    assert joined(encode_split(split, tokenizer, False, batch_chars, special=True)) == [i for ids in whole for i in ids]
    if name not in CLOSED:
        plain = [i for document in documents for i in tokenizer.encode(document).tolist()]
        assert joined(encode_split(split, tokenizer, False, batch_chars)) == plain
    if isinstance(tokenizer, Bytes | Chars):
        counts, ids = count_spelled_names(split, tokenizer.special_tokens), [i for ids in whole for i in ids]
        for special, i in tokenizer.special_tokens.items():
            assert counts.get(special, 0) == ids.count(i) or special == "<unk>"  # other text becomes <unk> too


def joined(stretches):
    return [i for ids, _ in stretches for i in ids.tolist()]


def test_an_example_of_names_that_are_parsed_or_not():
    tokenizer = Chars("ab", NAMES)
    assert tokenizer.encode("a<|user|>b<|bot|>", special=True).tolist() == [0, 2, 1, 3]
    assert tokenizer.encode("", special=True).tolist() == []
    with pytest.raises(ValueError, match="lacks '<', '>', 'e', 'r', 's', 'u', '|'".replace("|", r"\|")):
        tokenizer.encode("a<|user|>")
    bpe = BPEConfig(vocab_size=300, special_tokens=NAMES).build(CHATS, Downloads(None))
    user, bot = (bpe.special_tokens[name] for name in NAMES)
    assert not {user, bot} & set(bpe.encode(CHAT).tolist())
    ids = bpe.encode(CHAT, special=True).tolist()
    assert (ids[0], ids.count(user), ids.count(bot)) == (user, 1, 1)
    assert bpe.decode(bpe.encode(CHAT, special=True).tolist()) == CHAT
    assert bpe.token_bytes[bpe.encode(CHAT, special=True)].sum() == len(CHAT) - sum(map(len, NAMES))


# ---- the vocabulary


def test_a_vocabulary_is_not_learned_from_names_that_are_parsed():
    without = Text(Split.of(*[part for part in CHATS.train.read().replace("<|bot|>", "<|user|>").split("<|user|>") if part]),
                   Split.of("Not to be.\n"))  # fmt: skip
    config = BPEConfig(vocab_size=280, special_tokens=NAMES, parse_special=True)
    learned = json.loads(config.build(CHATS, Downloads(None)).to_json())["model"]["merges"]
    apart = BPEConfig(vocab_size=280, special_tokens=["<|endoftext|>", "x" * 9]).build(without, Downloads(None))
    assert learned == json.loads(apart.to_json())["model"]["merges"]
    assert any("<" in "".join(pair) for pair in merges(BPEConfig(vocab_size=280, special_tokens=NAMES)))
    assert not any("<" in "".join(pair) for pair in learned)
    chars = CharConfig(special_tokens=NAMES, parse_special=True).build(CHATS, Downloads(None))
    assert set(chars.characters) == set("To be, or not?Not to be.\n")
    assert len(chars.encode(CHAT, special=True)) == 2 + len("To be, or not?Not to be.\n")
    limited = CharConfig(special_tokens=NAMES, parse_special=True, unknown=True, train_chars=10)
    assert set(limited.build(CHATS, Downloads(None)).characters) == set("To")  # of <|user|>To


def merges(config):
    return json.loads(config.build(CHATS, Downloads(None)).to_json())["model"]["merges"]


# ---- token files


def keys(folder, kind):
    return {path.name for path in (folder / "cache").glob(f"{kind}-*")}


def digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def test_the_setting_has_its_own_cache_entries(tmp_path):
    downloads = Downloads(tmp_path)
    for parse, entries in ((False, 1), (True, 2), (False, 2)):
        config = ByteConfig(special_tokens=NAMES, parse_special=parse)
        tokenizer = cached_tokenizer(config, CHATS, downloads)
        tokens = cache_tokens(CHATS, tokenizer, downloads, parse)
        assert tokens.train.tolist() == tokenizer.encode(CHATS.train.read(), special=parse).tolist()
        assert (tokens.val.max() == 257) == parse
        assert len(keys(tmp_path, "tokens")) == len(keys(tmp_path, "tokenizer")) == entries


def test_a_document_that_ends_with_an_end_of_text_receives_no_second_one():
    split, tokenizer = Split.of("ab<|endoftext|>", "c", "<|endoftext|>d"), Bytes(["<|endoftext|>"])
    assert joined(encode_split(split, tokenizer, True, special=True)) == [97, 98, 256, 99, 256, 256, 100, 256]
    plain = joined(encode_split(split, tokenizer, True))
    assert plain.count(256) == 3 and len(plain) == 3 + split.size


def notes(caplog, *args):
    caplog.clear()
    with caplog.at_level(logging.INFO, "lm"):
        cache_tokens(*args)
    assert all(record.levelno == logging.INFO for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_every_start_logs_how_often_unparsed_names_occur(tmp_path, caplog):
    tokenizer, downloads = Bytes([*NAMES, "<|idle|>"]), Downloads(tmp_path)
    for _ in range(2):
        (line,) = notes(caplog, CHATS, tokenizer, downloads)
        assert line.startswith(
            "note      the training text contains <|user|> 30 times, <|bot|> 30 times, encoded as ordinary text;"
        )
        assert "tokenizer.parse_special=true" in line and "idle" not in line
    assert notes(caplog, CHATS, tokenizer, downloads, True) == []
    assert notes(caplog, CHATS, Bytes(), downloads) == []
    assert notes(caplog, Text(Split.of(PROSE), Split.of("a")), tokenizer, downloads) == []


def test_entries_of_older_versions_can_be_used(tmp_path, caplog):
    tokenizer, downloads = Bytes(NAMES), Downloads(tmp_path)
    first = cache_tokens(CHATS, tokenizer, downloads).train.tolist()
    for path in (tmp_path / "cache").glob("tokens-*/spelled.json"):
        path.unlink()
    assert notes(caplog, CHATS, tokenizer, downloads) == []
    assert cache_tokens(CHATS, tokenizer, downloads).train.tolist() == first


@pytest.mark.parametrize("config", [ByteConfig, CharConfig, BPEConfig, FileConfig])
def test_the_setting_is_off_by_default(config):
    built = config(path="x") if config is FileConfig else config()
    assert built.parse_special is False
