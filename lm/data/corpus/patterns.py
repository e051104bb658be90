"""Find files: what a pattern stands for, in names of files and folders written in any case."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lm.base.checks import did_you_mean
from lm.base.files import CACHE_TAG


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether the parts of a path match those of a pattern, of which ** stands for any number of folders."""
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or matches(parts[1:], pattern)
    return alike(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def alike(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name.lower(), pattern.lower())


def fixed_part(path: Path) -> Path:
    """Return the folder that a pattern lies in: its parts before the first with a wildcard that is not just a name."""
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return path


def expand(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield what matches `pattern` below `folder`, as a shell would: hidden names only where the pattern has the dot.

    Raises OSError when a folder on the way cannot be read.
    """
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        yield from expand(folder, rest or ["*"])
    elif head == "..":
        yield from expand(folder / head, rest) if rest else [folder / head]
        return
    for path in folder.iterdir():
        name = path.name
        if name[0] == "." and head[0] != ".":
            continue
        if head == "**":
            yield from expand(path, pattern) if path.is_dir() else ()
        elif alike(name, head):
            if set(rest) <= {"**"}:
                yield path
            if rest and path.is_dir():
                yield from expand(path, rest)


def walk(folder: Path, left_out: set[str], excluded: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield what is in `folder` and below and is not a folder.

    Hidden files and folders (.git, .venv), links to folders, caches (such as ours) and folders named as one of
    `left_out` are passed over. Raises OSError when a folder cannot be read, unless it is `excluded`.
    """

    def refuse(error: OSError) -> None:
        if not excluded(Path(error.filename)):
            raise error

    for base, folders, names in os.walk(folder, onerror=refuse):
        inner = (Path(base, name) for name in folders if name[0] != "." and name not in left_out)
        folders[:] = [path.name for path in inner if not _is_cache(path)]
        yield from (Path(base, name) for name in names if name[0] != ".")


def _is_cache(folder: Path) -> bool:
    return os.path.exists(folder / CACHE_TAG)  # noqa: PTH110 - which says no where it may not look


def excludes(pattern: str, path: Path) -> bool:
    """Tell whether the last parts of a path match those of a pattern; if that is absolute, whether all parts do."""
    wanted = home(pattern)
    parts = path.absolute().parts if wanted.is_absolute() else path.parts
    last = parts[-len(wanted.parts) :] if not wanted.is_absolute() else parts
    return 0 < len(wanted.parts) == len(last) and all(map(alike, last, wanted.parts))


def home(path: Any) -> Path:
    """Return a path as it was typed, ~ and ~user at its beginning put in place."""
    return Path(os.path.expanduser(str(path)))  # noqa: PTH111 - Path.expanduser fails for a user who is unknown


def in_a_cache(path: Path, folder: Path) -> bool:
    """Tell whether a folder between `folder` and `path` says of itself that it is a cache."""
    return any(_is_cache(parent) for parent in path.parents if parent != folder and folder in parent.parents)


def special(path: Path) -> str:
    """Return what something is that exists and is neither a file nor a folder."""
    mode = path.stat().st_mode
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def neighbor(path: Path) -> str:
    """Return a question about a name like that of `path` beside it, if there is one."""
    folder = path.parent
    return did_you_mean(path.name, [p.name for p in folder.iterdir()], f"{folder}/") if folder.is_dir() else ""
