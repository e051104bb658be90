"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lm.base.errors import UserError

CACHE_TAG = "CACHEDIR.TAG"  # says to backups, and to our own search for text, that a folder can be made again


def tag_cache(folder: Path) -> None:
    """By the convention of bford.info/cachedir."""
    if not (folder / CACHE_TAG).exists():
        write_text(folder / CACHE_TAG, "Signature: 8a477f597d28d172789f06886806bc55\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, a file or a folder, which takes its name when the block succeeds.

    What a killed process of this machine left beside it is removed on the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    host = platform.node() or "host"
    for stale in path.parent.glob(f".*~{host}~*"):
        if not is_alive(stale.name.rpartition("~")[2]):
            remove(stale)
    aside = path.with_name(f".{path.name}~{host}~{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        remove(aside)


@contextmanager
def explain_full_disk(folder: Path, elsewhere: str, room: str = "make room") -> Iterator[None]:
    """Raises UserError when the disk is full, or not ours to write on: go `elsewhere`, or make `room`."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).absolute().is_relative_to(folder.absolute()):
            raise  # of another place
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"{folder} cannot be written to ({error.strerror}): {elsewhere}") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"no room in {folder} ({error.strerror}; {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free): "
            f"{elsewhere}, or {room}"
        ) from error


def write_text(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def sha256(content: Path | str) -> str:
    """Of a file, or of a text."""
    if isinstance(content, str):
        return hashlib.sha256(content.encode()).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_alive(pid: int | str) -> bool:
    """Whether a process of this machine has the number."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
