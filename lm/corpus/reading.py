"""Files of any usual packing as streams of text: plain, .gz, .zst, .zip; what is broken is named with its place."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from lzma import LZMAError
from pathlib import Path

import zstandard

PACKED = (".gz", ".zst", ".zip")
BLOCK = 1 << 18
DAMAGE = (EOFError, zlib.error, LZMAError, gzip.BadGzipFile, zstandard.ZstdError, zipfile.BadZipFile, KeyError)
RATIO, GRACE = 1000, 1 << 30  # text packs 3 to 20 times; what unpacks to more than this is a bomb


def members(path: Path) -> list[str | None]:
    """What is read out of a file, each a text of its own: the files of a .zip in order of name, else the file.

    What a Mac packs along of its own is left out.
    """
    if path.suffix != ".zip":
        return [None]
    try:
        names = sorted(set(_archive(path, _stamp(path)).namelist()))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged or no zip archive ({error}); fetch it again") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    names = [n for n in names if not n.endswith(("/", ".DS_Store")) and not n.startswith("__MACOSX/")]
    if not names:
        raise ValueError(f"{path} holds no file")
    return list(names)


class Empty(ValueError):
    """A file without a byte: refused where it is all there is, else no document."""


def text(path: Path, member: str | None = None, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """A file's text, or that of one file in a .zip, piece by piece; a byte-order mark is dropped, newlines stay.

    `start` and `stop` are byte offsets; a character that they cut is left out. Raises ValueError that names the file,
    the offset and the cure.
    """
    where = f"{path}/{member}" if member else str(path)
    offset, rest, empty = 0, b"", True
    cut = 3 if start else 0  # bytes, at most, of a character that `start` cuts
    for block in _range(_blocks(path, member), start, stop):
        data, empty = rest + block, False
        while cut and data and data[0] & 0xC0 == 0x80:
            data, offset, cut = data[1:], offset + 1, cut - 1
        cut = 0 if data else cut
        if offset == start == 0:
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise ValueError(f"{where} is UTF-16; {_converted(path, 'utf-16')}")
            skip = 3 if data.startswith(b"\xef\xbb\xbf") else 0
            data, offset = data[skip:], skip
        try:
            piece, rest = data.decode(), b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                raise ValueError(
                    f"{where} is not UTF-8: byte 0x{data[error.start]:02x} at offset {start + offset + error.start}; "
                    f"if it is text in another encoding, {_converted(path, 'latin1')}"
                ) from error
            piece, rest = data[: error.start].decode(), data[error.start :]
        if "\0" in piece:
            raise ValueError(f"{where} is binary, not text: a zero byte at offset {start + offset + data.index(0)}")
        offset += len(data) - len(rest)
        if piece:
            yield piece
    if empty:
        raise Empty(f"{where} is empty")
    if rest and stop is None:
        raise ValueError(f"{where} ends within a character, at offset {start + offset}: it is cut short")


def whole(path: Path) -> str:
    """All of it at once: for files that are known to be small."""
    return "".join(piece for member in members(path) for piece in text(path, member))


def _converted(path: Path, encoding: str) -> str:
    if path.suffix in (*PACKED, ".bz2", ".xz", ".7z", ".tar", ".tgz"):
        return "unpack it first"
    return f"convert it: iconv -f {encoding} -t utf-8 {path} > utf8.txt"


def lines(path: Path, member: str | None = None) -> Iterator[str]:
    """The lines of a file, with their newlines; the last may have none."""
    rest: list[str] = []  # of an unfinished line
    for piece in text(path, member):
        *whole, last = piece.split("\n")
        if whole:
            yield "".join(rest) + whole[0] + "\n"
            yield from (line + "\n" for line in whole[1:])
            rest = []
        rest.append(last)
    if last := "".join(rest):
        yield last


def _blocks(path: Path, member: str | None) -> Iterator[bytes]:
    """The unpacked bytes."""
    unpacked, limit = 0, 0
    try:
        limit = GRACE + RATIO * path.stat().st_size
        for block in _unpack(path, member):
            unpacked += len(block)
            if path.suffix in PACKED and unpacked > limit:
                raise ValueError(f"{path} unpacks to more than {limit:,} bytes: that is no text")
            yield block
    except DAMAGE as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); fetch or pack it again") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise ValueError(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpack(path: Path, member: str | None) -> Iterator[bytes]:
    if path.suffix == ".zst":
        with path.open("rb") as file:
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            while block := file.read(1 << 10):  # small, as nothing bounds what it unpacks to
                while block:
                    if unpacker.eof:  # another frame
                        unpacker = zstandard.ZstdDecompressor().decompressobj()
                    yield unpacker.decompress(block)
                    block = unpacker.unused_data
            if not unpacker.eof:
                raise EOFError("the last frame is incomplete")
        return
    if path.suffix == ".zip":
        assert member is not None
        with _archive(path, _stamp(path)).open(member) as file:  # read, never extracted: no path escapes
            while block := file.read(BLOCK):
                yield block
        return
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


@lru_cache(maxsize=1)
def _archive(path: Path, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """Kept open from one member to the next: with thousands of them, its directory must not be read for each."""
    return zipfile.ZipFile(path)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size


def _range(blocks: Iterator[bytes], start: int, stop: int | None) -> Iterator[bytes]:
    """Bytes start .. stop of a stream."""
    at = 0
    for block in blocks:
        part = block[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(block)
        if part:
            yield part
        if stop is not None and at >= stop:
            return
