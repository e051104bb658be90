"""Read compressed files and the members of .zip archives."""

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
# A file that unpacks to more than GRACE bytes plus RATIO times its size is a decompression bomb: text shrinks 3 to 20
# times.
RATIO, GRACE = 1000, 1 << 30


def packing(path: Path) -> str:
    """Return how a file is packed, as a suffix in PACKED; "" for a plain file.

    The first bytes of the file decide, otherwise its name. A zip archive is recognized only by its name, because other
    formats begin with the same bytes.

    Raises UserError if the file cannot be read.
    """
    head = b""
    try:
        if path.is_file():  # a pipe can be read only once
            with path.open("rb") as file:
                head = file.read(10)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    found = next((suffix for suffix, magic in MAGIC.items() if re.match(magic, head)), "")
    return found or (suffix if (suffix := path.suffix.lower()) in PACKED else "")


def unpacked_name(path: Path) -> Path:
    """Return the path without the suffix of a packing, if it has one."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def members(path: Path) -> list[str | None]:
    """Return the members of a .zip in order of name; [None] for any other file.

    Leaves out the metadata files that macOS adds. Raises UserError if the archive cannot be read or has no members.
    """
    if packing(path) != ".zip":
        return [None]
    try:
        names = sorted(set(_archive(path, _stamp(path)).namelist()))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is corrupted or not a zip archive ({error}); download it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    names = [n for n in names if not n.endswith(("/", ".DS_Store")) and not n.startswith("__MACOSX/")]
    if not names:
        raise UserError(f"{path} contains no file")
    return list(names)


def blocks(path: Path, member: str | None) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file, or of one member of a .zip. Raises UserError if it is corrupted."""
    unpacked, packed = 0, packing(path)
    try:
        limit = GRACE + RATIO * path.stat().st_size
        for block in _unpack(path, packed, member):
            unpacked += len(block)
            if packed and unpacked > limit:
                raise UserError(f"{path} unpacks to more than {limit:,} bytes, which cannot be text")
            yield block
    except DAMAGE as error:
        raise UserError(f"{path} is truncated or corrupted ({error}); download or pack it again") from error
    except RuntimeError as error:  # zipfile raises it if a password is needed
        raise UserError(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno is None:  # bz2 raises it if the data are corrupted
            raise UserError(f"{path} is truncated or corrupted ({error}); download or pack it again") from error
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpack(path: Path, packed: str, member: str | None) -> Iterator[bytes]:
    if packed == ".zip":
        if member is None:
            raise UserError(f"{path} is a zip archive: name one of the files in it")
        with _archive(path, _stamp(path)).open(member) as file:  # never extracted, so no path can leave the folder
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
        while block := file.read(1 << 10):  # small, because the size of the unpacked block is not limited
            while block:
                if unpacker.eof:  # another frame
                    unpacker = zstandard.ZstdDecompressor().decompressobj()
                yield unpacker.decompress(block)
                block = unpacker.unused_data
        if not unpacker.eof:
            raise EOFError("the last frame is incomplete")


STREAMS: dict[str, Callable[[], Any]] = {".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}


def _streams(path: Path, new: Callable[[], Any]) -> Iterator[bytes]:
    """Unpack one stream after another. (bz2.open and lzma.open treat a corrupted one as the end of the file.)"""
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
    """Open an archive. It is cached, so that the directory is not read again for each of thousands of members."""
    return zipfile.ZipFile(path)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size
