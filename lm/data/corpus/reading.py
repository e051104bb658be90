"""Read plain or packed files as streams of text. Errors name the file and the offset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lm.base.errors import UserError
from lm.data.corpus import unreadable
from lm.data.corpus.packing import blocks, members

SAMPLE = 1 << 16  # bytes that are examined to find out what a file is that is not UTF-8


class EmptyFileError(UserError):
    """Error for an empty file. It is ignored if there are other files, as it is not a document."""


def text(path: Path, member: str | None = None, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """Yield the text of a file, or of one member of a .zip, in pieces, without a byte-order mark.

    `start` and `stop` are byte offsets; a character that they cut is left out. Line ends are not changed. Raises
    UserError, which names the file, the offset and a remedy, if the file is not text.
    """
    where = f"{path}/{member}" if member else str(path)
    offset, rest, empty, beyond = 0, b"", True, False
    cut = 3 if start else 0  # at most this many bytes belong to a character that `start` cuts
    for block in _select_range(blocks(path, member), start, stop):
        data, empty = rest + block, False
        while cut and data and data[0] & 0xC0 == 0x80:
            data, offset, cut = data[1:], offset + 1, cut - 1
        cut = 0 if data else cut
        if offset == start == 0 and data.startswith(b"\xef\xbb\xbf"):
            data, offset, beyond = data[3:], 3, True
        try:
            piece, rest = data.decode(), b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                raise _unreadable(path, member, data, start + offset, error.start, beyond) from error
            piece, rest = data[: error.start].decode(), data[error.start :]
        if "\0" in piece:
            raise _unreadable(path, member, data, start + offset, data.index(0), beyond)
        offset += len(data) - len(rest)
        beyond = beyond or not piece.isascii()
        if piece:
            yield piece
    if empty:
        raise EmptyFileError(f"{where} is empty")
    if rest and stop is None:
        if not beyond:  # the text so far is ASCII, so the encoding need not be UTF-8
            raise _unreadable(path, member, rest, start + offset, 0, beyond)
        raise UserError(f"{where} ends within a character, at offset {start + offset}: it is truncated")


def _unreadable(path: Path, member: str | None, data: bytes, begin: int, bad: int, beyond: bool) -> UserError:
    """Return the error for the byte with index `bad` in `data`, which begins at offset `begin` of the file.

    `beyond` tells whether the text before it contains UTF-8 beyond ASCII.
    """
    head, at = data if begin == 0 else b"", begin + bad
    if path.is_file():  # a pipe cannot be read again
        begin = max(0, at - SAMPLE // 2)
        head, data = (b"".join(_select_range(blocks(path, member), i, i + SAMPLE)) for i in (0, begin))
    return UserError(unreadable.explain(path, member, head, data, begin, at, beyond))


def read_all(path: Path) -> str:
    """Read a whole file at once. Use it only for files that are known to be small."""
    return "".join(piece for member in members(path) for piece in text(path, member))


def lines(path: Path, member: str | None = None) -> Iterator[str]:
    """Yield the lines of a file with their newlines. The last line may have none."""
    rest: list[str] = []  # the pieces of an unfinished line
    for piece in text(path, member):
        *whole, last = piece.split("\n")
        if whole:
            yield "".join(rest) + whole[0] + "\n"
            yield from (line + "\n" for line in whole[1:])
            rest = []
        rest.append(last)
    if last := "".join(rest):
        yield last


def _select_range(blocks: Iterator[bytes], start: int, stop: int | None) -> Iterator[bytes]:
    """Yield the bytes from `start` up to `stop` of a stream."""
    at = 0
    for block in blocks:
        part = block[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(block)
        if part:
            yield part
        if stop is not None and at >= stop:
            return
