"""Find files by glob patterns, ignoring case."""

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
    """Tell whether the parts of a path match those of a pattern. `**` stands for any number of folders."""
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or matches(parts[1:], pattern)
    return names_match(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def names_match(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name.lower(), pattern.lower())


def fixed_part(path: Path) -> Path:
    """Return the folder that a pattern starts from: the parts before its first wildcard.

    A part with wildcard characters that exists under exactly this name is not a wildcard.
    """
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return path


def expand(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield the paths below `folder` that match `pattern`, like a shell: hidden ones only if the pattern has the dot.

    Raises OSError if a folder on the way cannot be read.
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
        elif names_match(name, head):
            if set(rest) <= {"**"}:
                yield path
            if rest and path.is_dir():
                yield from expand(path, rest)


def walk(folder: Path, ignored_folders: set[str], excluded: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield everything in `folder` and below it that is not a folder.

    Skips hidden files and folders (.git, .venv), links to folders, caches (such as data/cache) and folders with a name
    in `ignored_folders`. Raises OSError if a folder cannot be read, unless it is `excluded`.
    """

    def refuse(error: OSError) -> None:
        if not excluded(Path(error.filename)):
            raise error

    for base, folders, names in os.walk(folder, onerror=refuse):
        inner = (Path(base, name) for name in folders if name[0] != "." and name not in ignored_folders)
        folders[:] = [path.name for path in inner if not _is_cache(path)]
        yield from (Path(base, name) for name in names if name[0] != ".")


def _is_cache(folder: Path) -> bool:
    return os.path.exists(folder / CACHE_TAG)  # noqa: PTH110 - it returns False for a folder that may not be read


def is_excluded_by(pattern: str, path: Path) -> bool:
    """Tell whether the last parts of a path match those of a pattern, or all parts if the pattern is absolute."""
    expanded = expand_home(pattern)
    parts = path.absolute().parts if expanded.is_absolute() else path.parts
    last = parts if expanded.is_absolute() else parts[-len(expanded.parts) :]
    return 0 < len(expanded.parts) == len(last) and all(map(names_match, last, expanded.parts))


def expand_home(path: Any) -> Path:
    """Return a path with `~` or `~user` at its beginning replaced by the home directory."""
    return Path(os.path.expanduser(str(path)))  # noqa: PTH111 - Path.expanduser fails for an unknown user


def is_in_cache(path: Path, folder: Path) -> bool:
    """Tell whether a folder between `folder` and `path` is tagged as a cache."""
    return any(_is_cache(parent) for parent in path.parents if parent != folder and folder in parent.parents)


def describe_special_file(path: Path) -> str:
    """Describe a path that exists and is neither a file nor a folder."""
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def suggest_name(path: Path) -> str:
    """Return a suggestion of a similar name in the folder of `path`, if there is one, for an error message."""
    folder = path.parent
    return did_you_mean(path.name, [p.name for p in folder.iterdir()], f"{folder}/") if folder.is_dir() else ""
