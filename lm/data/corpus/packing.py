"""Read packed files: which packing a file has, and its bytes without it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import zstandard

from lm.base.errors import UserError

PACKED = (".gz", ".zst", ".zip", ".bz2", ".xz")
MAGIC = {
    ".gz": rb"\x1f\x8b",
    ".zst": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    ".bz2": rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)",
    ".xz": rb"\xfd7zXZ\0",
}
BLOCK = 1 << 18
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError, zipfile.BadZipFile, KeyError)
RATIO, GRACE = 1000, 1 << 30  # text packs 3 to 20 times; what unpacks to more than this is a bomb


def packing(path: Path) -> str:
    """Return one of PACKED, as the first bytes of the file say or else its name, or "" for a plain file.

    A zip archive is known by its name alone, as other formats begin in the same way.

    Raises UserError when the file cannot be read.
    """
    head = b""
    try:
        if path.is_file():  # what is read of a pipe is gone
            with path.open("rb") as file:
                head = file.read(10)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    found = next((suffix for suffix, magic in MAGIC.items() if re.match(magic, head)), "")
    return found or (suffix if (suffix := path.suffix.lower()) in PACKED else "")


def unpacked_name(path: Path) -> Path:
    """Return the path, of a file that its name says is packed without that suffix."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def members(path: Path) -> list[str | None]:
    """Return what is read out of a file, each a text of its own: the files of a .zip in order of name, else the file.

    What a Mac packs along of its own is left out.
    """
    if packing(path) != ".zip":
        return [None]
    try:
        names = sorted(set(_archive(path, _stamp(path)).namelist()))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is damaged or no zip archive ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    names = [n for n in names if not n.endswith(("/", ".DS_Store")) and not n.startswith("__MACOSX/")]
    if not names:
        raise UserError(f"{path} holds no file")
    return list(names)


def blocks(path: Path, member: str | None) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file, or of one file of a .zip. Raises UserError that says what is broken."""
    unpacked, packed = 0, packing(path)
    try:
        limit = GRACE + RATIO * path.stat().st_size
        for block in _unpack(path, packed, member):
            unpacked += len(block)
            if packed and unpacked > limit:
                raise UserError(f"{path} unpacks to more than {limit:,} bytes: that is no text")
            yield block
    except DAMAGE as error:
        raise UserError(f"{path} is truncated or damaged ({error}); fetch or pack it again") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise UserError(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno is None:  # bz2's word for damage
            raise UserError(f"{path} is truncated or damaged ({error}); fetch or pack it again") from error
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpack(path: Path, packed: str, member: str | None) -> Iterator[bytes]:
    if packed == ".zip":
        if member is None:
            raise UserError(f"{path} is a zip archive: name the file in it that is meant")
        with _archive(path, _stamp(path)).open(member) as file:  # read, never extracted: no path escapes
            while block := file.read(BLOCK):
                yield block
        return
    if packed == ".zst":
        yield from _zstandard(path)
        return
    if packed in STREAMS:
        yield from _streams(path, STREAMS[packed])
        return
    with gzip.open(path) if packed == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _zstandard(path: Path) -> Iterator[bytes]:
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


STREAMS: dict[str, Callable[[], Any]] = {".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}


def _streams(path: Path, new: Callable[[], Any]) -> Iterator[bytes]:
    """Unpack one stream after another. (bz2.open and lzma.open take a damaged one for the end of the file.)"""
    with path.open("rb") as file:
        unpacker, packed = new(), b""
        while True:
            if unpacker.eof:
                if not (packed := unpacker.unused_data or file.read(BLOCK)):
                    return
                unpacker = new()
            elif unpacker.needs_input and not (packed := file.read(BLOCK)):
                raise EOFError("the last stream is incomplete")
            yield unpacker.decompress(packed, BLOCK)
            packed = b""


@lru_cache(maxsize=1)
def _archive(path: Path, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """Kept open from one member to the next: with thousands of them, its directory must not be read for each."""
    return zipfile.ZipFile(path)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size
