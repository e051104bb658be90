"""Text on disk: UTF-8 files with the positions where documents end, read in pieces that fit in memory."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lm.base.console import progress
from lm.base.errors import UserError
from lm.data.corpus.pieces import BORDER, Border, in_pieces

Stream = Iterable[str | None]  # pieces of text, and None where a document ends
VAL_FRACTION = "corpus.val_fraction"
END_OF_TEXT = "<|endoftext|>"
# end-of-text tokens that other projects write into their texts
ENDS = (END_OF_TEXT, "<|end_of_text|>", "<|eos|>", "<eos>", "</s>", "[EOS]", "[SEP]")


@dataclass(frozen=True)
class Split:
    """UTF-8 text in a file or in memory. `ends` (D,) int64 are the byte offsets of the ends of its documents."""

    source: Path | bytes
    ends: np.ndarray

    @property
    def size(self) -> int:
        """Size in bytes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def read(self) -> str:
        """Read the whole text at once. Use it only for texts that are known to be small."""
        with self.open() as file:
            return file.read(self.size).decode()

    def pieces(self, size: int = 1 << 16, border: Border | None = BORDER) -> Iterator[tuple[str, bool]]:
        """Yield pieces of about `size` bytes, each with True if it ends a document.

        A document is cut by `in_pieces`: at a `border`, and in a long run without one. If `border` is None, documents
        are not cut.
        """
        with self.open() as file:
            start = 0
            for end in self.ends.tolist():
                pieces = in_pieces(_decoded(file, end - start, size), border)
                piece = next(pieces)
                for following in pieces:
                    yield piece, False
                    piece = following
                yield piece, True
                start = end

    @staticmethod
    def of(*documents: str) -> Split:
        """Return a split of these documents, in memory."""
        data = [document.encode() for document in documents]
        return Split(b"".join(data), np.cumsum([len(d) for d in data], dtype=np.int64))


@dataclass(frozen=True)
class Text:
    """The text of a corpus: training text, validation text and, if the authors provide one, test text."""

    train: Split
    val: Split
    test: Split | None = None
    several_documents: bool = False  # it had several documents before it was split, even if each split has only one
    counts: dict[str, int] = field(default_factory=dict)  # of the words in `CorpusConfig.counted_words`
    val_key: str = VAL_FRACTION  # the setting that gives more validation text; "": the authors' split is fixed

    @property
    def documents(self) -> bool:
        """True if the text has several documents, which need an end-of-text token between them."""
        return self.several_documents or any(len(split.ends) > 1 for split in (self.train, self.val))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the training and validation text, which is the key of the token cache."""
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
    def open(folder: Path, val_key: str = "") -> Text:
        """Open a folder that `write` has filled. `val_key` is the setting that names separate validation text."""
        about = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        splits = {name: Split(folder / f"{name}.txt", np.load(folder / f"{name}.npy")) for name in about["splits"]}
        source = VAL_FRACTION if about["held_out"] else val_key
        text = Text(splits["train"], splits["val"], splits.get("test"), about["parted"], about["counts"], source)
        text.__dict__["digest"] = about["digest"]  # so that a large text need not be read again for it
        return text


def _decoded(file: BinaryIO, left: int, size: int) -> Iterator[str]:
    """Yield the next `left` bytes of UTF-8 in chunks of about `size` bytes. No chunk ends within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, left, size):
        yield decoder.decode(file.read(min(size, left - at)))


def write(
    folder: Path, streams: dict[str, Stream], val_fraction: float, max_chars: int | None,
    whole_documents: bool = False, counted_words: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the `streams` of a corpus into `folder` as train.txt, val.txt and perhaps test.txt.

    If there is no stream `val`, the end of the training text is held out (see `_hold_out`). `max_chars` limits the
    training text before that. The `counted_words` are counted in the training and validation text. Raises UserError if
    a split is empty.
    """
    ends = {name: _write_stream(folder / f"{name}.txt", s, max_chars if name == "train" else None)
            for name, s in streams.items()}  # fmt: skip
    for name, e in ends.items():
        if not len(e):
            raise UserError(f"the corpus has no {'text' if name == 'train' else name + ' text'}")
    several_documents, held_out = len(ends["train"]) > 1, "val" not in ends
    if held_out:
        ends["train"], ends["val"] = _hold_out(folder, ends["train"], val_fraction, whole_documents)
    for name, e in ends.items():
        np.save(folder / f"{name}.npy", e)
    train, val = (Split(folder / f"{name}.txt", ends[name]) for name in ("train", "val"))
    text = Text(train, val, several_documents=several_documents)
    counts = {word: sum(_count(word.encode(), split) for split in (train, val)) for word in counted_words}
    about = {
        "digest": text.digest, "splits": sorted(ends), "parted": several_documents, "held_out": held_out,
        "counts": counts,
    }  # fmt: skip
    (folder / "text.json").write_text(json.dumps(about), encoding="utf-8")


def _write_stream(path: Path, stream: Stream, max_chars: int | None) -> np.ndarray:
    """Write a stream to a file and return the ends of its documents. Empty documents are left out."""
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


def _count(word: bytes, split: Split) -> int:
    count, rest = 0, b""
    with split.open() as file:
        while block := file.read(1 << 20):
            data = rest + block
            count += data.count(word)
            rest = data[len(data) - len(word) + 1 :] if len(data) >= len(word) else data
    return count


def is_near(share: float, val_fraction: float) -> bool:
    """Tell whether a `share` of validation text is close enough to `val_fraction`.

    It may be half to four times as large, and the training text must be at least half as large as it should be. For
    three documents of one size, for example, a whole document is close enough to 0.1.
    """
    return val_fraction / 2 <= share <= 4 * val_fraction and 1 - share >= (1 - val_fraction) / 2


def _hold_out(
    folder: Path, ends: np.ndarray, val_fraction: float, whole_documents: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Move the end of train.txt to val.txt. Return the document ends of both.

    The end consists of whole documents if their share is close to `val_fraction` (see `is_near`), or if
    `whole_documents` is set. Otherwise a document is cut to reach `val_fraction`, at a line end if one is close.
    """
    size, train = int(ends[-1]), folder / "train.txt"
    target = round(size * (1 - val_fraction))
    cut = _find_cut(train, target, ends, round(size * min(val_fraction, 1 - val_fraction) / 10))
    if len(ends) > 1:
        whole = int(ends[np.abs(ends[:-1] - target).argmin()])
        if whole_documents or is_near(1 - whole / size, val_fraction) or not 0 < cut < size:
            cut = whole
    if not 0 < cut < size:
        raise UserError(f"the corpus has {size} bytes, too few to split with corpus.val_fraction={val_fraction}")
    with train.open("rb+") as file, (folder / "val.txt").open("wb") as val:
        file.seek(cut)
        while block := file.read(1 << 20):
            val.write(block)
        file.truncate(cut)
    return np.append(ends[ends < cut], cut), ends[ends > cut] - cut


def _find_cut(path: Path, at: int, ends: np.ndarray, reach: int) -> int:
    """Return the position of a cut inside a document.

    It is after the last line end at most `reach` bytes before `at`, otherwise at the beginning of the character at
    `at`. A text of a single document is cut without regard to lines.
    """
    start = max(at - reach, int(ends[ends <= at].max(initial=0))) if len(ends) > 1 else at
    with path.open("rb") as file:
        file.seek(start)
        if line := file.read(at - start).rfind(b"\n") + 1:
            return start + line
        while at and (byte := file.seek(at) and file.read(1)) and byte[0] & 0xC0 == 0x80:
            at -= 1
    return at
