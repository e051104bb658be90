"""Write files and folders atomically: they are complete or they do not exist."""

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

CACHE_TAG = "CACHEDIR.TAG"  # tells backup programs, and our own search for text files, to skip a folder


def tag_cache(folder: Path) -> None:
    """Mark a folder as a cache that can be recreated (the convention of bford.info/cachedir)."""
    if not (folder / CACHE_TAG).exists():
        write_text(folder / CACHE_TAG, "Signature: 8a477f597d28d172789f06886806bc55\n")


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder for a file or a folder, and rename it to `path` if the block succeeds.

    Temporary files that killed processes of this machine left in the folder are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    host = platform.node() or "host"
    for stale in path.parent.glob(f".*~{host}~*"):
        if not is_alive(stale.name.rpartition("~")[2]):
            remove(stale)
    temporary = path.with_name(f".{path.name}~{host}~{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def explain_full_disk(folder: Path, elsewhere: str, room: str = "free some space") -> Iterator[None]:
    """Raises UserError if the disk is full or `folder` is not writable.

    The message advises the user to go `elsewhere` or, on a full disk, to make `room`.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).absolute().is_relative_to(folder.absolute()):
            raise  # the error concerns another folder
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"{folder} cannot be written to ({error.strerror}): {elsewhere}") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"not enough disk space in {folder} ({error.strerror}; "
            f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free): "
            f"{elsewhere}, or {room}"
        ) from error


def expand_path(typed: str) -> Path:
    """Return the path given as an argument, with `~` expanded, which shells do not do in `--out=~/x`."""
    return Path(typed).expanduser()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_replace(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def sha256(content: Path | str) -> str:
    """Return the SHA-256 digest of a file or a text, as hexadecimal digits."""
    if isinstance(content, str):
        return hashlib.sha256(content.encode()).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_alive(pid: int | str) -> bool:
    """Tell whether a process with this id runs on this machine."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists, ignoring errors."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
