import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.corpus import TextConfig
from lm.data.corpus.cleaning import clean
from lm.data.download import Downloads

MARKS = "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
messy = st.lists(
    st.one_of(
        st.sampled_from(
            ["\n", "\n", "\n", " ", " ", "\t", "\xa0", "\r\n", "a", "é", "b.", *MARKS, *map(chr, range(0xA0))]
        ),
        st.text(max_size=2),
    ),
    max_size=30,
).map("".join)


def simple(document: str) -> str:
    """Clean a whole document in a simple way, as a reference."""
    document = "\n".join(line.rstrip("\r") for line in document.split("\n")).replace("\r", "\n")
    document = "".join(" " if c in "\x0b\x0c\x1c\x1d\x1e\x1f\x85" else c for c in document)
    seen = "".join(c for c in document if c in "\t\n" or not (unicodedata.category(c) == "Cc" or c in MARKS))
    lines = []
    for line in seen.replace("\t", " ").replace("\xa0", " ").split("\n"):
        while "  " in line:
            line = line.replace("  ", " ")
        lines.append(line.removesuffix(" "))
    text = "\n".join(lines).strip("\n")
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text + "\n" if text else ""


def cleaned(stream: list[str | None]) -> list[str]:
    """Return the cleaned documents; the last one is what follows the last None."""
    documents = [""]
    for piece in clean(iter(stream)):
        if piece is None:
            documents.append("")
        else:
            documents[-1] += piece
    return documents


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\r\n", "a\nb\n"),
        ("\ufeff\n \n\ta \t b \n\n \n\x0c\n  c", " a b\n\n c\n"),
        ("one\xad\u200btwo \u200e three", "onetwo three\n"),
        ("\x00\x1f\x7f\x85\x9f\n\n", ""),
        ("👩\u200d🚀 \u3000 \u2003x\u2028y", "👩\u200d🚀 \u3000 \u2003x\u2028y\n"),  # kept
    ],
)
def test_a_text_is_cleaned(text, expected):
    assert simple(text) == expected
    assert cleaned([text]) == [expected] and cleaned([*text]) == [expected]


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(messy, max_size=4), messy, st.lists(st.integers(0, 40), max_size=6))
def test_each_document_is_cleaned_separately_for_all_divisions_into_pieces(documents, last, cuts):
    stream = []
    for document in documents:
        places = sorted({0, *(c for c in cuts if c < len(document)), len(document)})
        stream += [document[a:b] for a, b in pairwise(places)] + [None]
    expected = [simple(document) for document in [*documents, last]]
    assert cleaned([*stream, *last]) == expected
    assert cleaned([*(part for d in expected[:-1] for part in (d, None)), expected[-1]]) == expected


def test_a_corpus_is_cleaned_before_max_chars_is_applied(tmp_path):
    for i, content in enumerate(["a  b \r\n", "\u200b \n\n", "c\n\n\n\nd", "\x01\n", "e\t"]):
        (tmp_path / f"{i}.txt").write_bytes(content.encode())
    text = TextConfig(path=str(tmp_path), clean=True, max_chars=12).load(Downloads(tmp_path))
    pieces = [(piece, last) for split in (text.train, text.val) for piece, last in split.pieces()]
    assert pieces == [("a b\n", True), ("c\n\nd\n", True), ("e\n", True)]
    assert TextConfig(path=str(tmp_path)).load(Downloads(tmp_path)).train.read().startswith("a  b \r\n\u200b")
