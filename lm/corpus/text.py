"""Text on disk: UTF-8 files with the places where documents end, read in pieces that fit in memory."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lm.console import progress

Stream = Iterable[str | None]  # pieces of text, and None where a document ends

# Where a long document may be cut for work in pieces: before a space or behind a newline between two visible
# characters, or between a letter and a punctuation mark. Every byte-level BPE splits words there in any case, so the
# pieces have the ids of the whole. Only characters are named that every version of Unicode puts in the same class.
PUNCTUATION = r",.;:!?\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f"
LETTER = r"0-9A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
BORDER = re.compile(rf"(?<=[!-~\w])(?= [!-~\w])|(?<=[!-~\w]\n)(?=[!-~\w])|(?<=[{LETTER}])(?=[{PUNCTUATION}])")


@dataclass(frozen=True)
class Split:
    """UTF-8 text in a file or in memory; `ends` (D,) int64 are the byte offsets behind each of its documents."""

    source: Path | bytes
    ends: np.ndarray

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def read(self) -> str:
        """All of it at once: for texts that are known to be small."""
        with self.open() as file:
            return file.read(self.size).decode()

    def pieces(self, size: int = 1 << 16, border: re.Pattern[str] | None = BORDER) -> Iterator[tuple[str, bool]]:
        """The text in pieces of about `size` bytes, each with whether a document ends behind it.

        A document is cut where `border` matches nothing; without one, or where none comes, it stays whole.
        """
        with self.open() as file:
            start = 0
            for end in self.ends.tolist():
                decoder = codecs.getincrementaldecoder("utf-8")()
                left, text = end - start, ""
                while left > size:
                    seen = max(0, len(text) - 2)
                    text += decoder.decode(file.read(size))
                    left -= size
                    if border and (cut := _last(border, text, seen)):
                        yield text[:cut], False
                        text = text[cut:]
                yield text + decoder.decode(file.read(left), final=True), True
                start = end

    @staticmethod
    def of(*documents: str) -> Split:
        """A split in memory."""
        data = [document.encode() for document in documents]
        return Split(b"".join(data), np.cumsum([len(d) for d in data], dtype=np.int64))


@dataclass(frozen=True)
class Text:
    """A corpus: what to train on, what to validate on, and what its authors keep for the last test, if anything."""

    train: Split
    val: Split
    test: Split | None = None
    parted: bool = False  # one text of several documents, of which each split has but one perhaps

    @property
    def documents(self) -> bool:
        """Whether it has documents, so that an end-of-text token must stand between them."""
        return self.parted or any(len(split.ends) > 1 for split in (self.train, self.val))

    @cached_property
    def digest(self) -> str:
        """sha256 over what is trained and validated on: what the token cache is keyed by."""
        sha = hashlib.sha256()
        for mark, split in ((b"", self.train), (b"\0split\0", self.val)):
            sha.update(mark)
            with split.open() as file:
                while block := file.read(1 << 20):
                    sha.update(block)
            if self.documents:
                sha.update(split.ends.astype("<i8").tobytes())
        return sha.hexdigest()

    @staticmethod
    def open(folder: Path) -> Text:
        """What `write` made."""
        about = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        splits = {name: Split(folder / f"{name}.txt", np.load(folder / f"{name}.npy")) for name in about["splits"]}
        text = Text(**splits, parted=about["parted"])
        text.__dict__["digest"] = about["digest"]  # 2 GiB need not be read again to be known
        return text


def _last(border: re.Pattern[str], text: str, seen: int) -> int:
    """Where the last border behind `seen` lies; 0: there is none."""
    for start in (max(seen, len(text) - 1000), seen):  # borders are many: the tail almost always has one
        if cuts := [match.start() for match in border.finditer(text, start)]:
            return cuts[-1]
    return 0


def write(folder: Path, streams: dict[str, Stream], val_fraction: float, max_chars: int | None) -> None:
    """Write the `streams` of a corpus, train.txt, val.txt and perhaps test.txt, into `folder`.

    Without a stream of its own, validation is the tail of the training text: whole documents, or when there is but
    one, a part of it. `max_chars` counts training text and what is split from it. Raises ValueError when a split would
    be empty.
    """
    ends = {name: _write_stream(folder / f"{name}.txt", s, max_chars if name == "train" else None)
            for name, s in streams.items()}  # fmt: skip
    for name, e in ends.items():
        if not len(e):
            raise ValueError(f"the corpus has no {'text' if name == 'train' else name + ' text'}")
    parted = len(ends["train"]) > 1
    if "val" not in ends:
        ends["train"], ends["val"] = _hold_out(folder, ends["train"], val_fraction)
    for name, e in ends.items():
        np.save(folder / f"{name}.npy", e)
    text = Text(**{name: Split(folder / f"{name}.txt", e) for name, e in ends.items()}, parted=parted)
    about = {"digest": text.digest, "splits": sorted(ends), "parted": parted}
    (folder / "text.json").write_text(json.dumps(about), encoding="utf-8")


def _write_stream(path: Path, stream: Stream, max_chars: int | None) -> np.ndarray:
    """Returns the documents' ends; empty documents are left out."""
    ends, size, left = [0], 0, max_chars
    with path.open("wb") as file, progress(f"preparing {path.name}", None) as advance:
        for piece in stream:
            if piece is None:
                if size > ends[-1]:
                    ends.append(size)
                continue
            if left is not None:
                piece, left = piece[:left], left - len(piece)
            written = file.write(piece.encode())
            size += written
            advance(written)
            if left is not None and left <= 0:
                break
    if size > ends[-1]:
        ends.append(size)
    return np.array(ends[1:], dtype=np.int64)


def _hold_out(folder: Path, ends: np.ndarray, val_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Move the tail of train.txt to val.txt. Returns the ends of both."""
    size = int(ends[-1])
    cut = round(size * (1 - val_fraction))
    train = folder / "train.txt"
    if len(ends) > 1:
        kept = 1 + int(np.abs(ends[:-1] - cut).argmin())  # documents
        cut = int(ends[kept - 1])
        train_ends, val_ends = ends[:kept], ends[kept:] - cut
    else:
        with train.open("rb") as file:  # back to the beginning of a character
            while cut and cut < size and (b := file.seek(cut) and file.read(1)) and b[0] & 0xC0 == 0x80:
                cut -= 1
        if not 0 < cut < size:
            raise ValueError(f"the corpus has {size} bytes, too few to split with corpus.val_fraction={val_fraction}")
        train_ends, val_ends = np.array([cut]), np.array([size - cut])
    with train.open("rb+") as file, (folder / "val.txt").open("wb") as val:
        file.seek(cut)
        while block := file.read(1 << 20):
            val.write(block)
        file.truncate(cut)
    return train_ends, val_ends
