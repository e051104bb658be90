import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.corpus import Text
from lm.tokenizer import BPEConfig, ByteConfig, CharConfig, from_json, pieces

PROSE = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n\n\nThe slings\n" * 50
TEXT = Text(PROSE, "Die Ärzte fühlen 😀 nothing.\n")
BPE = BPEConfig(vocab_size=300).build(TEXT)
BYTE = ByteConfig().build(TEXT)
ANYTHING = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.mark.parametrize("tokenizer", [BPE, BYTE], ids=["bpe", "byte"])
@settings(max_examples=200, deadline=None)
@given(text=ANYTHING)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


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
        "a" * 10_000,
        "\n" * 50,
        "<|endoftext|>",
    ],
)
def test_nasty_strings_come_back(text):
    for tokenizer in (BPE, BYTE):
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@settings(max_examples=100, deadline=None)
@given(text=ANYTHING.filter(bool))
def test_char_spells_what_the_corpus_spells(text):
    tokenizer = CharConfig().build(Text(text, text[::-1]))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text and len(ids) == len(text)
    assert tokenizer.vocab_size == len(set(text)) and tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_char_takes_in_characters_of_the_validation_text_and_names_those_it_lacks():
    tokenizer = CharConfig().build(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT.val).tolist()) == TEXT.val
    with pytest.raises(ValueError, match="lacks 'Z', 'ß'"):
        tokenizer.encode("Zoo ß")


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("ab \n\t."), max_size=300), size=st.integers(1, 40))
def test_pieces_change_no_id(text, size):
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    assert [i for part in parts for i in BPE.hf.encode(part).ids] == BPE.hf.encode(text).ids


def test_long_text_in_pieces_equals_the_whole(shared):
    text = (shared / "tinyshakespeare.txt").read_text()[:300_000]
    assert len(list(pieces(text))) > 3
    assert BPE.encode(text).tolist() == BPE.hf.encode(text).ids


def test_bpe_has_every_byte_learns_only_from_training_text_and_compresses():
    assert BPE.vocab_size == 300
    assert sorted(BPE.token_bytes)[:256] == [1] * 256
    assert len(BPE.encode(PROSE)) < 0.6 * len(PROSE)
    other = BPEConfig(vocab_size=300).build(Text(PROSE, "zzzz zzzz zzzz\n" * 500))
    assert other.to_json() == BPE.to_json()


@pytest.mark.parametrize("config", [BPEConfig(300), CharConfig(), ByteConfig()])
def test_saved_and_loaded_it_is_the_same(config):
    tokenizer = config.build(TEXT)
    again = from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json() == config.build(TEXT).to_json()
    assert np.array_equal(again.encode("to be\n"), tokenizer.encode("to be\n"))
    assert np.array_equal(again.token_bytes, tokenizer.token_bytes)


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"type": "char"}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="not a tokenizer of ours"):
        from_json(text)


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="tokenizer.vocab_size=100 must be at least 256"):
        BPEConfig(vocab_size=100)
