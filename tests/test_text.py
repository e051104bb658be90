import hashlib
import itertools
import os
import re
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from lm.data.corpus import CorpusConfig, Split, Text, TextConfig
from lm.data.corpus import pieces as pieces_module
from lm.data.corpus.pieces import ANYWHERE, BORDER, LETTER
from lm.data.corpus.text import is_near, write
from lm.data.download import Downloads
from lm.data.tokenizer import BPEConfig

# cases in which word splitters differ: all kinds of space, contractions, digits, punctuation, marks, emoji, letters of many scripts
PARTS = [
    *" \t\n\r\v\f\0\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b\u200d\ufeff'\u2019\"_-.,;:!?()<|>/@~", "  ", "\n\n", "\r\n",
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "don't", "it'll", "<|endoftext|>", "12", "3.5", "x_1", *"0123٣४½²Ⅷ①",
    *"aZéßþÑжЯλως\u0301\u0308\u20e3אبक्षไทยกํ한국あアーｶ々〆漢字𠮷鿽鿿ﬁ𝒜ǅª", *"、。\uff0c\uff1b\uff1a\uff01\uff1f「」…—·", "👍🏽", "👨‍👩‍👧", "🇩🇪", "e\u0301",
]  # fmt: skip
adversarial = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), max_size=40).map("".join)
gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
BPE = BPEConfig(vocab_size=300).build(
    Text(Split.of("To be, or not to be\n" * 20), Split.of("x")), Downloads(Path("nowhere"))
)


def words(text: str) -> list[str]:
    return [word for word, _ in gpt2.pre_tokenize_str(text)]


def documents(split: Split, size: int = 7, border: re.Pattern[str] | None = BORDER) -> list[str]:
    found, parts = [], []
    for piece, last in split.pieces(size, border):
        assert border or last
        parts.append(piece)
        if last:
            found.append("".join(parts))
            parts = []
    assert not parts
    return found


def write_and_open(
    folder: Path, val_fraction: float = 0.1, max_chars: int | None = None, whole=False, **streams
) -> Text:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {name: iter(s) for name, s in streams.items()}, val_fraction, max_chars, whole)
    return Text.open(folder)


def joined(docs: list[str]) -> list[str | None]:
    return [part for document in docs for part in (document, None)]


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.lists(adversarial, max_size=5), st.integers(1, 30), st.sampled_from([BORDER, None, re.compile("(?<=a)|(?=é)")])
)
def test_pieces_join_to_the_documents(docs, size, border):
    split = Split.of(*docs)
    assert documents(split, size, border) == docs
    assert split.read() == "".join(docs) and split.size == len("".join(docs).encode())


def test_pieces_have_about_the_requested_size(tmp_path):
    (tmp_path / "t").write_text("Some prose, with é. " * 5000)
    split = Split(tmp_path / "t", np.array([100_000, 105_000]))
    sizes = [len(piece.encode()) for piece, _ in split.pieces(1000)]
    assert sum(sizes) == 105_000 and max(sizes) < 1020 and len(sizes) < 110
    assert [len(piece.encode()) for piece, _ in split.pieces(1000, border=None)] == [100_000, 5000]


@pytest.mark.slow
@settings(max_examples=500)
@given(adversarial, st.integers(1, 12))
def test_pieces_have_the_same_words_as_the_whole_text(text, size):
    pieces = [piece for piece, _ in Split.of(text).pieces(size)]
    assert list(itertools.chain.from_iterable(map(words, pieces))) == words(text)


def runs(text: str, longest: int) -> list[str]:
    """Cut a text at every border, and every `longest` characters of a run without a border: a simple reference."""
    found = []
    while text:
        borders = [match.start() for match in BORDER.finditer(text) if match.start()]
        cut = min([*borders, len(text)])
        found.append(text[: min(cut, longest)])
        text = text[len(found[-1]) :]
    return found


mostly_endless = st.lists(
    st.one_of(st.sampled_from(PARTS), st.text("acgt", min_size=3, max_size=30), st.text(" \n\té", max_size=12)),
    max_size=20,
).map("".join)


@pytest.mark.slow
@settings(max_examples=500)
@given(mostly_endless, st.integers(1, 40), st.integers(1, 40), st.integers(3, 20))
def test_a_run_without_a_border_is_cut_at_the_same_places_for_all_chunk_sizes(text, size, other, longest):
    with mock.patch.object(pieces_module, "LONGEST", longest):
        expected = [word for run in runs(text, longest) for word in words(run)]
        read = [piece for piece, _ in Split.of(text).pieces(size)]
        whole = BPE._pieces(text, other)
    for pieces in (read, whole):
        assert "".join(pieces) == text
        assert list(itertools.chain.from_iterable(map(words, pieces))) == expected
    if BORDER.search(text) is None:  # as documented
        assert [p for p in whole if p] == [text[i : i + longest] for i in range(0, len(text), longest)]


@pytest.mark.slow
def test_a_text_without_borders_is_read_with_little_memory(tmp_path):
    size = 8_000_000
    (tmp_path / "dna").write_bytes(b"ACGT" * (size // 4))
    for border in (BORDER, ANYWHERE):
        tracemalloc.start()
        sizes = [len(piece) for piece, _ in Split(tmp_path / "dna", np.array([size])).pieces(border=border)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(sizes) == size and max(sizes) <= 1 << 16 and peak < 2_000_000


@pytest.mark.slow
def test_every_border_is_the_end_of_a_word():
    """The regular expression and the tokenizer may use different versions of Unicode."""
    touched = [c for c in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]) if re.match(rf"[!-~\w{LETTER}]", c)]
    text = "".join(f"{c} {c}\n{c}," for c in touched)
    borders = {match.start() for match in BORDER.finditer(text)}
    assert len(borders) > 2 * len(touched) > 200_000
    assert borders <= {end for _, (_, end) in gpt2.pre_tokenize_str(text)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["tinyshakespeare.txt", "shakespeare_pg100.txt", "enwik/enwik5", "tinystories/TinyStories-train.first2MiB.txt"],
)
def test_real_text_has_the_same_ids_in_pieces(shared, tmp_path, name):
    text = (shared / name).read_bytes()[-200_000:].decode(errors="ignore")
    bpe = BPEConfig(vocab_size=1000).build(Text(Split.of(text[:50_000]), Split.of("x")), Downloads(tmp_path)).hf
    ids = bpe.encode(text).ids
    assert len(ids) < len(text) / 2
    for size in (50, 1000, 65_536):
        pieces = [piece for piece, _ in Split.of(text).pieces(size)]
        assert len(pieces) > len(text) / size / 3
        assert list(itertools.chain.from_iterable(e.ids for e in bpe.encode_batch(pieces))) == ids


@settings(max_examples=200)
@given(st.text(st.sampled_from("aé漢𠮷\n"), max_size=40), st.floats(0.01, 0.99), st.integers(1, 5))
def test_a_single_document_is_cut_by_bytes_and_never_inside_a_character(tmp_path_factory, text, fraction, chunk):
    stream = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    size = len(text.encode())
    cuts = np.cumsum([0] + [len(c.encode()) for c in text])
    cut = int(cuts[cuts <= round(size * (1 - fraction))][-1])  # back to the beginning of a character
    folder = tmp_path_factory.mktemp("cut")
    if not 0 < cut < size:
        with pytest.raises(ValueError, match=f"has {size} bytes, too few to split" if text else "has no text"):
            write_and_open(folder, fraction, train=stream)
        return
    prepared = write_and_open(folder, fraction, train=stream)
    assert (prepared.train.read() + prepared.val.read(), prepared.train.size) == (text, cut)
    assert not prepared.documents
    data = text.encode()
    assert prepared.digest == hashlib.sha256(data[:cut] + b"\0split\0" + data[cut:]).hexdigest()
    assert prepared.digest == Text(Split.of(prepared.train.read()), Split.of(prepared.val.read())).digest


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(st.text(st.sampled_from("aé漢"), max_size=9), min_size=2, max_size=9), st.floats(0.01, 0.99))
def test_several_documents_are_kept_whole(tmp_path_factory, docs, fraction):
    non_empty = [d for d in docs if d]
    assume(len(non_empty) > 1)
    prepared = write_and_open(tmp_path_factory.mktemp("docs"), fraction, whole=True, train=joined(docs))
    train, val = documents(prepared.train), documents(prepared.val)
    assert train + val == non_empty and train and val
    ends = np.cumsum([len(d.encode()) for d in non_empty])[:-1]
    expected = round(sum(len(d.encode()) for d in non_empty) * (1 - fraction))
    assert abs(prepared.train.size - expected) == abs(ends - expected).min()
    assert (
        prepared.documents and prepared.digest == Text(Split.of(*train), Split.of(*val), several_documents=True).digest
    )


sizes = st.lists(st.integers(1, 400), min_size=2, max_size=8)


@pytest.mark.slow
@settings(max_examples=60)
@given(sizes, st.floats(0.02, 0.9), st.integers(1, 12), st.sampled_from(["a", "é", "漢"]))
def test_validation_gets_about_its_fraction_for_documents_of_any_size(tmp_path_factory, lines, fraction, width, letter):
    docs = [f"{letter * width}\n" * n for n in lines]
    size = sum(len(d.encode()) for d in docs)
    assume(size > 2000)
    prepared = write_and_open(tmp_path_factory.mktemp("docs"), fraction, train=joined(docs))
    whole = write_and_open(tmp_path_factory.mktemp("whole"), fraction, whole=True, train=joined(docs))
    train, val = documents(prepared.train), documents(prepared.val)
    assert "".join(train + val) == "".join(docs) and prepared.documents
    share = prepared.val.size / size
    assert fraction / 2 <= share <= 4 * fraction and 1 - share >= (1 - fraction) / 2
    if (
        prepared.digest != whole.digest
    ):  # a document was cut: near the fraction itself, and at a line end if one is close
        assert not is_near(whole.val.size / size, fraction)
        line, close = len(letter.encode()) * width + 1, min(fraction, 1 - fraction) / 10 * size
        assert abs(share - fraction) * size <= close + line
        assert len(train + val) == len(docs) + 1
        assert train[-1][-1] == "\n" or close < line


def test_a_document_without_line_ends_is_cut_at_a_character(tmp_path):
    docs = ["é" * 30, "漢" * 1000]
    prepared = write_and_open(tmp_path, 0.1, train=joined(docs))
    assert (
        documents(prepared.train)[0] == docs[0] and documents(prepared.train)[1] + documents(prepared.val)[0] == docs[1]
    )
    assert 0 <= prepared.val.size - 306 <= 2


@pytest.mark.parametrize("whole", [False, True])
def test_a_share_far_from_val_fraction_is_reported_at_every_start(tmp_path, caplog, whole):
    for name, text in (("a.txt", "short\n"), ("b.txt", "a long text\n" * 500)):
        (tmp_path / name).write_text(text)
    caplog.set_level("INFO", "lm")
    for fraction in (0.1, 0.5, 0.999):
        config = TextConfig(path=str(tmp_path), val_fraction=fraction, whole_documents=whole)
        for _ in range(2):  # the second time from the cache
            caplog.clear()
            text = config.load(Downloads(tmp_path / "data"))
            messages = [r.message for r in caplog.records]
            if not whole or fraction > 0.9:
                assert messages == [] and is_near(text.val.size / 6006, fraction)
            else:
                (line,) = messages
                assert text.train.read() == "short\n"
                assert line.startswith(
                    f"warning   validation is 99.9 % of the text, not corpus.val_fraction={fraction}, because no document is cut: "
                )
                assert "corpus.whole_documents=false" in line and "corpus.val_path" in line
    (tmp_path / "val.txt").write_text("x" * 9)
    caplog.clear()
    TextConfig(path=f"{tmp_path}/b.txt", val_path=f"{tmp_path}/val.txt", whole_documents=whole).load(
        Downloads(tmp_path)
    )
    assert not caplog.records


def test_max_chars_limits_only_the_training_text_and_what_is_split_from_it(tmp_path):
    prepared = write_and_open(tmp_path / "one", 0.25, 8, train=["é漢", "é漢" * 9])
    assert (prepared.train.read(), prepared.val.read()) == ("é漢é漢é漢"[:6], "é漢")
    prepared = write_and_open(tmp_path / "documents", 0.1, 7, train=joined(["ééé", "", "漢漢漢", "abc"]))
    assert (documents(prepared.train), documents(prepared.val)) == (["ééé", "漢漢漢"], ["a"])
    prepared = write_and_open(
        tmp_path / "official", 0.5, 4, train=["abcdefg"], val=["vwxyz"], test=joined(["test", "more"])
    )
    assert (prepared.train.read(), prepared.val.read(), documents(prepared.test)) == ("abcd", "vwxyz", ["test", "more"])
    assert write_and_open(tmp_path / "all", 0.5, 6, train=["abcdef"]).val.read() == "def"


def test_the_digest_depends_on_content_split_and_documents():
    a, b, c = "One. ", "Two. ", "Three."
    texts = [
        Text(Split.of(a + b), Split.of(c)), Text(Split.of(a), Split.of(b + c)), Text(Split.of(a, b), Split.of(c)),
        Text(Split.of(a + b[:2], b[2:]), Split.of(c)), Text(Split.of(a), Split.of(b, c)), Text(Split.of(b + a), Split.of(c)),
    ]  # fmt: skip
    assert len({text.digest for text in texts}) == len(texts)
    assert [text.documents for text in texts] == [False, False, True, True, True, False]
    assert texts[0].digest == Text(Split.of(a + b), Split.of(c), test=Split.of("kept for last")).digest


@dataclass
class Given(CorpusConfig):
    given: dict = field(default_factory=dict)

    def streams(self, downloads):
        return {name: iter(stream) for name, stream in self.given.items()}


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({"train": []}, "has no text"),
        ({"train": ["", None, None, ""]}, "has no text"),
        ({"train": ["a"]}, "has 1 bytes, too few to split with corpus.val_fraction=0.1"),
        ({"train": ["𠮷"]}, "has 4 bytes, too few"),
        ({"train": ["a" * 99], "val": [""]}, "has no val text"),
        ({"train": ["a" * 99], "val": ["b"], "test": [None]}, "has no test text"),
    ],
)
def test_a_text_that_cannot_be_split_is_refused_and_leaves_no_files(tmp_path, streams, message):
    with pytest.raises(ValueError, match=f"^the corpus {re.escape(message)}"):
        Given(given=streams).load(Downloads(tmp_path))
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_a_text_is_prepared_once_and_again_when_its_source_changes(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr("lm.data.corpus.base.write", lambda *a: prepared.append(1) or write(*a))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(folder * 20)
    config = TextConfig(path=f"{tmp_path}/a/same.txt")
    assert config.load(Downloads(tmp_path)).train.read() == "a" * 18
    assert config.load(Downloads(tmp_path)).digest == hashlib.sha256(b"a" * 18 + b"\0split\0aa").hexdigest()
    assert len(prepared) == 1
    assert TextConfig(path=f"{tmp_path}/a/same.txt", val_fraction=0.5).load(Downloads(tmp_path)).val.read() == "a" * 10
    assert TextConfig(path=f"{tmp_path}/b/same.txt").load(Downloads(tmp_path)).train.read() == "b" * 18
    (tmp_path / "a" / "same.txt").write_text("c" * 20)
    os.utime(tmp_path / "a" / "same.txt", (0, 0))
    assert config.load(Downloads(tmp_path)).val.read() == "cc"
    assert len(prepared) == 4


def test_a_border_at_the_end_of_a_chunk_does_not_stop_the_cutting():
    """Python's finditer matches at the end of a text even if its start position is after the end."""
    assert documents(Split.of("aaaa"), 1, re.compile("(?<=a)")) == ["aaaa"]
