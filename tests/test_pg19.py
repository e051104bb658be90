import base64
import hashlib
import json
import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import NANO, config_of
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from lm.data.corpus.pg19 import PG19Config
from lm.data.corpus.unwrap import unwrap
from lm.data.download import Downloads

PROSE = (
    "It was a bright morning, and the whole village had come out to see the coach go by; the smith had left his forge, "
    "and the baker stood, white to the elbows, among the children. Nobody spoke. Mr. Brown, who had been up since four "
    "o'clock, looked at his watch, and looked again. The road lay empty as far as the mill, and beyond it the hills "
    "were blue with the promise of a hot day."
)


def wrapped(text: str, width: int = 70) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False)


def test_a_paragraph_becomes_a_line():
    two = wrapped(PROSE) + "\n\n\n\n" + wrapped(PROSE[:150], 60) + "\n"
    assert unwrap(two) == f"{PROSE}\n\n{PROSE[:150]}\n"
    assert unwrap(two.replace("\n", "\r\n").replace("o", "o\0")) == unwrap(two)
    assert unwrap("\n  \n" + wrapped(PROSE) + "  \n\t\n") == PROSE + "\n"
    assert unwrap("") == unwrap(" \n\n") == ""


def test_lines_with_the_ends_of_the_printed_book_are_joined_too():
    """In proportional type all lines are full, but they are not equally long."""
    lines, words = [], PROSE.split()
    for width in (58, 66, 61, 68, 59, 64, 62):
        line, *_ = textwrap.wrap(" ".join(words), width)
        lines.append(line)
        words = words[len(line.split()) :]
    assert unwrap("\n".join(lines)) == " ".join(lines) + "\n"


def test_the_first_line_of_a_paragraph_may_be_indented():
    text = textwrap.fill(PROSE, 70, initial_indent="    ")
    assert unwrap(f"{text}\n{text}\n") == f"    {PROSE}\n    {PROSE}\n"


@pytest.mark.parametrize(
    "block",
    [
        # lists
        "1. The first of all the reasons for which the coach was late that day\n2. The second reason",
        "- the smith, who had left his forge to see the coach go by that day,\n- the baker\n- the miller and his wife",
        # verse
        "Shall I compare thee to a summer's day, and to the evening's golden light?\n"
        "Thou art more lovely and more temperate, thou art more fair and far more bright:\n"
        "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;",
        "Thirty days hath September,\nApril, June, and November;\nAll the rest have thirty-one,\nSave February alone",
        "Yet once more, O ye laurels, and once more,\nYe myrtles brown, with ivy never sere,\n"
        "I come to pluck your berries harsh and crude,\nAnd with forced fingers rude\n"
        "Shatter your leaves before the mellowing year.\nBitter constraint and sad occasion dear",
        # headings
        "CHAPTER IX.\nIN WHICH THE COACH ARRIVES",
        "A BRIEF NARRATION OF INCIDENTS AND EVENTS CONNECTED WITH THE EARLY\nDAYS OF ST. PAUL.",
        "Chapter IX\nIn which the coach arrives",
        # tables
        "60 seconds       1 minute\n60 minutes       1 hour\n24 hours         1 day of the week, by sun and clock",
        "|    1 &   |    2 &   |    3 &   |    4 &   |    5 &   |    6 &   |\n"
        "|  1 are 2 |  1 are 3 |  1 are 4 |  1 are 5 |  1 are 6 |  1 are 7 |",
        "Name of the county\tInhabitants in the year 1801\tInhabitants in 1831\nKent\t307,624\t479,155",
        # indented: a letter, a hanging indent, a centered heading
        textwrap.indent(wrapped(PROSE, 60), "    "),
        "SMITH. " + textwrap.fill(PROSE, 60, subsequent_indent="  "),
        "                         ON THE ROAD, AND WHAT CAME OF IT\n                        A TALE",
        # an address, a signature, a salutation above lines that are full
        "_Moor Cottage,\nWestgate Common,\nWakefield,\nNov. 1552_.",
        "I remain, Sir, your most obedient humble servant,\nJohn Brown",
        "Dear Sir,\n" + wrapped(PROSE),
        # whole paragraphs on lines of their own
        f"{PROSE}\n{PROSE[:200]}\n{PROSE}",
    ],
)  # fmt: skip
def test_a_block_that_is_not_prose_keeps_its_lines(block):
    assert unwrap(block) == block + "\n"


@pytest.mark.parametrize(
    ("end", "begin", "rest", "joined"),
    [
        ("knowl-", "edge", "", "knowledge"),
        ("to-", "gether", "to gather", "together"),
        ("looking-", "glass", "", "looking-glass"),  # neither form occurs, but both halves are words
        ("look-", "ing", "looking", "looking"),
        ("in-", "form", "in this form", "inform"),  # short words are often the beginnings of others
        ("to-", "morrow", "to-morrow", "to-morrow"),
        ("self-", "conscious", "self-love of the conscious", "self-conscious"),
        ("one-and-", "twenty", "", "one-and-twenty"),
        ("will-", "o'-the-wisp", "", "will-o'-the-wisp"),
        ("Anglo-", "Saxon", "", "Anglo-Saxon"),
        ("1857-", "1858", "", "1857-1858"),
        ("palace--", "yes", "", "palace--yes"),
        ("palace", "--yes", "", "palace--yes"),
        ("palace\u2014", "yes", "", "palace\u2014yes"),
        ("palace --", "yes", "", "palace -- yes"),
        ("Mr. B----", "said", "", "Mr. B---- said"),
    ],
)
def test_words_are_joined_at_hyphens_and_dashes_at_the_end_of_a_line(end, begin, rest, joined):
    start = "They were looking at the glass and at the soldiers on the hill, for "
    text = f"{start}{end}\n{begin} it was said of them before that year was over, that they {rest}\nwould come back.\n"
    assert unwrap(text).startswith(start + joined + " it was said")


WORDS = st.sampled_from(["a", "I", "the", "coach", "Brown", "well-", "known", "--", "B----", "1.", "*", "THE", "a\0b"])
LINES = st.lists(WORDS, min_size=8, max_size=16).map(" ".join)
LINES = st.tuples(st.sampled_from(["", "", "", "  ", "\t"]), LINES | WORDS).map("".join)
BOOKS = st.lists(st.lists(LINES, min_size=1, max_size=6).map("\n".join), max_size=4).map("\n\n".join)
BOOKS |= st.text("aB1-.|\u2014 \t\n\r\0\x0b", max_size=200)


@pytest.mark.slow
@settings(max_examples=200)
@given(BOOKS)
def test_unwrapping_again_changes_nothing_and_no_letter_is_lost(text):
    once = unwrap(text)
    assert unwrap(once) == once
    assert "\n\n\n" not in once and "\r" not in once and "\0" not in once
    ignored = re.compile(r"[\s\0-]+")  # hyphens may be removed
    assert ignored.sub("", once) == ignored.sub("", text)


def test_most_lines_of_real_books_are_joined(shared):
    lines, kept = 0, Counter()
    for path in sorted((shared / "pg19").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        done = unwrap(text)
        assert unwrap(done) == done
        assert re.sub(r"\s+", "", text) == re.sub(r"\s+", "", done)  # these three have no split words
        blocks = [block.split("\n") for block in re.split(r"\n{2,}", text.strip("\n"))]
        results = [block.split("\n") for block in re.split(r"\n{2,}", done.strip("\n"))]
        assert len(blocks) == len(results)
        for block, result in zip(blocks, results, strict=True):
            lines += len(block) > 1 and len(block)
            kept["flush" if not block[0].startswith(" ") else "indented"] += len(result) > 1 and len(result)
            assert len(result) in (1, len(block))
        if path.stem == "10985":
            verse = "  Twenty pence are one and eightpence,\n"
            table = "\n".join(line for line in text.split("\n") if line.startswith("|"))
            assert verse in text and verse in done
            assert all(line in done for line in table.split("\n"))
            assert "_Days and scenes of childhood--Parental care--Power of early impressions--School" in done
    assert lines > 20_000
    assert kept["flush"] < 0.015 * lines and kept["indented"] < 0.05 * lines


@dataclass
class Bucket:
    """Google's bucket and its listing, with three books on a page, as a mirror serves them."""

    books: dict[str, bytes]
    listed: dict[str, dict] = field(default_factory=dict)  # entries of the listing that differ from the books
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, target: str) -> bytes | None:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path.startswith(files := "/storage.googleapis.com/deepmind-gutenberg/"):
            return self.books.get(path.removeprefix(files))
        assert path == "/storage.googleapis.com/storage/v1/b/deepmind-gutenberg/o"
        names = sorted(name for name in {*self.books, *self.listed} if name.startswith(query["prefix"][0]))
        start = int(query.get("pageToken", ["0=="])[0].rstrip("="))
        items = [{"name": n, **self.about(n), **self.listed.get(n, {})} for n in names[start : start + 3]]
        page = {"items": items} | ({"nextPageToken": f"{start + 3}=="} if start + 3 < len(names) else {})
        return json.dumps(page).encode()

    def about(self, name: str) -> dict:
        data = self.books.get(name, b"")
        return {"size": str(len(data)), "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode()}


@pytest.fixture
def bucket():
    """Small books. Number 9 comes before 70, although not in the order of text."""
    bucket = Bucket({
        "train/1234.txt": ("\r\n\r\n  The first line\r\n" + wrapped("Train one. " * 20) + "\r\n\r\n***").encode(),
        "train/70.txt": b"\xef\xbb\xbf" + wrapped("Train two. " * 20).encode(),
        "train/9.txt": b"Train three.\n\n\n",
        "train/100.txt": b"Train four.\n",
        "validation/85.txt": "Validation café.\n".encode(),
        "test/200.txt": b"Test one.\n",
        "test/1000.txt": b"Test two.\n",
        "train/": b"",
        "test/notes.md": b"no book",
    })  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            bucket.requests.append(self.path)
            body = bucket.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,)).start()
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    yield bucket
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    """Do not retry downloads of files that are missing in the bucket."""
    monkeypatch.setattr("lm.data.download.BACKOFF", 0.0)
    monkeypatch.setattr("lm.data.download.ATTEMPTS", 1)


def load_pieces(config, downloads):
    """Return the pieces of each split."""
    config.identity(downloads)
    return {name: list(stream) for name, stream in config.streams(downloads).items()}


def test_each_book_is_a_document_in_its_own_split(bucket, tmp_path):
    splits = load_pieces(PG19Config(), Downloads(tmp_path, mirror=bucket.url))
    one = "  The first line\n" + wrapped("Train one. " * 20) + "\n\n***\n"
    two = wrapped("Train two. " * 20) + "\n"
    assert splits == {
        "train": ["Train three.\n", None, two, None, "Train four.\n", None, one, None],  # by number
        "val": ["Validation café.\n", None],
        "test": ["Test one.\n", None, "Test two.\n", None],
    }
    assert sum("/storage/v1/" in request for request in bucket.requests) == 2 + 1 + 1  # all pages, each once
    assert sum("deepmind-gutenberg/t" in request for request in bucket.requests) == 6


def test_without_documents_a_blank_line_separates_books(bucket, tmp_path):
    splits = load_pieces(PG19Config(documents=False, books=2), Downloads(tmp_path, mirror=bucket.url))
    assert "".join(splits["train"]) == "Train three.\n\n" + wrapped("Train two. " * 20) + "\n"
    assert "".join(splits["test"]) == "Test one.\n\nTest two.\n"


def test_only_the_selected_books_are_downloaded(bucket, tmp_path):
    downloads = Downloads(tmp_path, mirror=bucket.url)
    few = PG19Config(books=1)
    assert load_pieces(few, downloads)["train"] == ["Train three.\n", None]
    assert sorted(p.name for p in (tmp_path / "corpora" / "pg19").glob("*/*.txt")) == ["200.txt", "85.txt", "9.txt"]
    assert few.identity(downloads) != PG19Config(books=2).identity(downloads)
    with pytest.raises(ValueError, match=r"corpus.books=0 must be at least 1"):
        PG19Config(books=0)


def test_with_normalised_each_paragraph_is_a_line(bucket, tmp_path):
    splits = load_pieces(PG19Config(normalised=True), Downloads(tmp_path, mirror=bucket.url))
    assert splits["train"][2] == ("Train two. " * 20).strip() + "\n"


def test_books_from_the_bucket_become_a_text(bucket, tmp_path):
    downloads = Downloads(tmp_path, mirror=bucket.url)
    text = PG19Config().load(downloads)
    assert text.documents and text.test is not None
    assert [len(split.ends) for split in (text.train, text.val, text.test)] == [4, 1, 2]
    assert text.val.read() == "Validation café.\n" and "Validation" not in text.train.read()
    bucket.requests.clear()
    assert PG19Config().load(downloads).digest == text.digest
    assert PG19Config().load(Downloads(tmp_path, offline=True)).digest == text.digest
    flat = PG19Config(documents=False).load(Downloads(tmp_path, offline=True))
    assert flat.train.read().startswith("Train three.\n\n")
    assert not bucket.requests


def test_books_are_read_one_at_a_time(bucket, tmp_path):
    downloads = Downloads(tmp_path, mirror=bucket.url)
    config = PG19Config()
    config.identity(downloads)
    train = iter(config.streams(downloads)["train"])
    (tmp_path / "corpora/pg19/train/70.txt").write_bytes(bucket.books["train/70.txt"].replace(b"two", b"TWO"))
    assert next(train) == "Train three.\n" and next(train) is None
    assert "TWO" in next(train)


def test_a_book_that_differs_from_the_listing_is_refused_and_not_kept(bucket, tmp_path):
    bucket.listed["test/200.txt"] = {"md5Hash": base64.b64encode(hashlib.md5(b"Test 1st.\n").digest()).decode()}
    with pytest.raises(ValueError, match=r"test/200.txt has the md5 checksum \S+, not \S+ as in the listing"):
        PG19Config().identity(Downloads(tmp_path, mirror=bucket.url))
    assert not (tmp_path / "corpora/pg19/test/200.txt").exists()


def test_the_error_names_a_missing_book(bucket, tmp_path):
    bucket.listed["train/71.txt"] = {"size": "12"}
    with pytest.raises(ValueError, match=r"pg19/train/71.txt"):
        PG19Config().identity(Downloads(tmp_path, mirror=bucket.url))


def test_only_a_complete_listing_is_stored(bucket, tmp_path):
    downloads = Downloads(tmp_path, mirror=bucket.url)
    books = dict(bucket.books)
    del bucket.books["validation/85.txt"]
    with pytest.raises(ValueError, match=r"prefix=validation/\S* lists no books"):
        PG19Config().identity(downloads)
    assert [p.name for p in (tmp_path / "corpora/pg19").iterdir()] == ["train.json"]
    bucket.books = books
    assert len(PG19Config().streams(downloads)) == 3


def test_a_mirror_that_ignores_the_page_token_is_refused(bucket, tmp_path, monkeypatch):
    page = bucket.answer(
        "/storage.googleapis.com/storage/v1/b/deepmind-gutenberg/o?prefix=train/&fields=items,nextPageToken"
    )
    monkeypatch.setattr(bucket, "answer", lambda target: page)
    with pytest.raises(ValueError, match="returns the same page again; a mirror must not ignore"):
        PG19Config().identity(Downloads(tmp_path, mirror=bucket.url))


def test_offline_nothing_is_downloaded(tmp_path):
    with pytest.raises(ValueError, match="does not exist, and data.offline=true forbids downloading it"):
        PG19Config().identity(Downloads(tmp_path, offline=True))


def test_the_error_gives_the_offset_of_bytes_that_are_not_utf8(bucket, tmp_path):
    bucket.books["test/200.txt"] = b"\xef\xbb\xbfcaf\xe9"
    with pytest.raises(ValueError, match=r"test/200.txt is not UTF-8: byte 0xe9 at offset 6"):
        load_pieces(PG19Config(), Downloads(tmp_path, mirror=bucket.url))


def test_real_books_are_read_unchanged(bucket, shared, tmp_path):
    real = {"test/10146": "10146", "train/10985": "10985", "validation/20111": "frank_merriwell_down_south"}
    raw = {name: (shared / "pg19" / f"{stem}.txt").read_bytes() for name, stem in real.items()}
    bucket.books |= {f"{name}.txt": data.replace(b"\n", b"\r\n") for name, data in raw.items()}
    downloads = Downloads(tmp_path, mirror=bucket.url)
    text = PG19Config().load(downloads)
    assert text.test is not None
    for split, name in ((text.train, "train/10985"), (text.val, "validation/20111"), (text.test, "test/10146")):
        assert split.read().endswith(raw[name].decode().strip("\n") + "\n")
    train = set(text.train.read().split("\n"))
    for other in (text.val, text.test):
        common = {line for line in train & set(other.read().split("\n")) if len(line) > 25}
        assert common <= {"       *       *       *       *       *"}
    flat = PG19Config(documents=False, normalised=True).load(downloads)
    assert not flat.documents and flat.val.size < text.val.size
    assert flat.val.read().count("\n") < 0.7 * text.val.read().count("\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pg19", "pg19_small"])
def test_training_on_real_books_from_their_real_path(name, bucket, shared, tmp_path):
    """Uses two books for training and one for validation. These splits are not the official ones."""
    files = {"train/10146": "10146", "train/20000": "frank_merriwell_down_south", "validation/10985": "10985"}
    bucket.books = {f"{key}.txt": (shared / "pg19" / f"{file}.txt").read_bytes() for key, file in files.items()}
    bucket.books["test/1.txt"] = b"Of the last test.\n"
    base = [override for override in NANO if not override.startswith(("corpus", "tokenizer"))]
    config = config_of(
        *base, f"corpus={name}", "corpus.normalised=true", "tokenizer=bpe", "tokenizer.vocab_size=512",
        "trainer.max_steps=4", "trainer.val_batches=1", "callbacks.sample.enabled=false",
        "data.respect_documents=true", f"data.root={tmp_path}/data", f"data.mirror={bucket.url}",
    )  # fmt: skip
    assert 0 < train.train(config, tmp_path / "run") < 8
    text = config.corpus.load(Downloads(tmp_path / "data", offline=True))
    assert [len(split.ends) for split in (text.train, text.val, text.test)] == [2, 1, 1]
