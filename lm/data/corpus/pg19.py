"""PG-19 (Rae et al. 2019): books from before 1919, from Project Gutenberg, one file each, with the authors' splits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.files import remove, write_text
from lm.data.cache import digest
from lm.data.corpus.base import CorpusConfig
from lm.data.corpus.text import Stream
from lm.data.corpus.unwrap import unwrap
from lm.data.download import Downloads

FILES = "https://storage.googleapis.com/deepmind-gutenberg/"
LISTING = (
    "https://storage.googleapis.com/storage/v1/b/deepmind-gutenberg/o"
    "?prefix={}/&fields=items(name,size,md5Hash),nextPageToken&maxResults=1000"
)
SPLITS = {"train": "train", "val": "validation", "test": "test"}
CONNECTIONS = 8  # at a time: a book has only a few hundred kilobytes, so most of the time is spent waiting


@dataclass(frozen=True)
class Book:
    name: str  # <split>/<number>.txt
    size: int | None
    md5: str | None  # in base64

    @property
    def number(self) -> int:
        return int(Path(self.name).stem)


@dataclass
class PG19Config(CorpusConfig):
    """PG-19: 28,602 books to train on, 50 to validate on and 100 for the final test."""

    books: int | None = None  # use only this many books of each split, those with the lowest numbers; null: all
    documents: bool = True  # true: each book is a document; false: one text with a blank line between books
    normalised: bool = False  # join the lines of a paragraph, which were wrapped for print

    def check(self, check: Check) -> None:
        check.at_least("books", 1)

    @property
    def download_size(self) -> None:  # only the listing gives the sizes
        return None

    def select_books(self, downloads: Downloads) -> dict[str, list[Book]]:
        """Return the books of each split, in order of number."""
        return {name: _load_listing(downloads, split)[: self.books] for name, split in SPLITS.items()}

    def identity(self, downloads: Downloads) -> str:
        books = [book for split in self.select_books(downloads).values() for book in split]
        console = Console(stderr=True)
        columns = (TextColumn("fetching PG-19:"), MofNCompleteColumn(), TextColumn("books"), BarColumn())
        pool = ThreadPoolExecutor(CONNECTIONS)
        try:
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
                for _ in bar.track(pool.map(lambda book: _fetch_book(downloads, book), books), total=len(books)):
                    pass
        finally:  # after an error, do not wait for the other books
            pool.shutdown(cancel_futures=True)
        return digest(*(f"{book.name} {book.size} {book.md5}" for book in books))

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {name: self.stream(downloads, books) for name, books in self.select_books(downloads).items()}

    def stream(self, downloads: Downloads, books: list[Book]) -> Iterator[str | None]:
        first = True
        for book in books:
            text = _read_book(_fetch_book(downloads, book))
            if not first and not self.documents:
                yield "\n"
            yield unwrap(text) if self.normalised else text
            if self.documents:
                yield None
            first = False


def _load_listing(downloads: Downloads, split: str) -> list[Book]:
    """Return the books of a split, in order of number. The listing is downloaded once and stored with the books."""
    path = downloads.root / "corpora" / "pg19" / f"{split}.json"
    if not path.exists():
        if downloads.offline:
            raise UserError(
                f"{path} does not exist, and data.offline=true forbids downloading it: on a machine with a network, "
                f"run scripts/corpora.py fetch pg19_small (or pg19), which downloads this listing and the books, and "
                f"copy the folder to {path.parent}"
            )
        books = sorted(_fetch_listing(downloads, split), key=lambda book: book.number)
        write_text(path, json.dumps([asdict(book) for book in books]))
    return [Book(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _fetch_listing(downloads: Downloads, split: str) -> list[Book]:
    """Download the listing of a split. The books are in no particular order."""
    books: list[Book] = []
    url, token = LISTING.format(split), ""
    while True:
        page = downloads.json(url + (f"&pageToken={quote(token, safe='')}" if token else ""))
        for item in page.get("items", []):
            if re.fullmatch(rf"{split}/\d+\.txt", item["name"]):
                size = int(item["size"]) if "size" in item else None
                books.append(Book(item["name"], size, item.get("md5Hash")))
        if not (following := page.get("nextPageToken")):
            break
        if following == token:
            raise UserError(f"{url} returns the same page again; a mirror must not ignore the part after the '?'")
        token = following
    if not books:
        raise UserError(f"{url} lists no books")
    return books


def _fetch_book(downloads: Downloads, book: Book) -> Path:
    path = downloads.root / "corpora" / "pg19" / book.name
    exists = path.exists() and path.stat().st_size == book.size
    path = downloads.get(f"pg19/{book.name}", [FILES + book.name], size=book.size, quiet=True)
    if not exists and book.md5:
        with path.open("rb") as file:
            found = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
        if found != book.md5:
            remove(path)
            raise UserError(f"{FILES}{book.name} has the md5 checksum {found}, not {book.md5} as in the listing")
    return path


def _read_book(path: Path) -> str:
    """Read a book, with newlines as line ends and without blank lines at its beginning and end."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; "
            "delete it to download it again"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"\A\s*\n", "", text)
    last = len(text.rstrip())
    return text[:last] + text[last:].partition("\n")[0] + "\n"
