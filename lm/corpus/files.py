"""Files on this machine as a corpus: which ones a path, a directory or a pattern stands for."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from lm.cache import digest
from lm.check import Check, nearest
from lm.corpus import reading
from lm.corpus.base import CorpusConfig
from lm.corpus.text import Stream
from lm.download import Downloads
from lm.files import CACHE_TAG, sha256


@dataclass
class FilesConfig(CorpusConfig):
    """Files on this machine; each is a document."""

    located: ClassVar[set[str]] = {"licence", "path", "val_path"}
    left_out: ClassVar[set[str]] = {"__pycache__"}  # folders

    path: Any = ""  # a file, a directory, a glob, or a list of them
    glob: str = "**/*.txt"  # which files of a directory; the same packed as .gz, .zst or .zip come along
    exclude: list[str] = field(default_factory=list)  # globs of files to leave out
    val_path: Any = ""  # the validation text, if it has files of its own

    def check(self, check: Check) -> None:
        check.that(bool(self.path), "path", "name a file, a directory or a glob, e.g. corpus.path=my.txt")

    def paths(self) -> dict[str, list[Path]]:
        """train, and perhaps val and test; no file is in two."""
        named = self.named()
        if not self.val_path:
            return named
        val = self.find(self.val_path, "val_path")
        held_out = {path.resolve() for path in val}
        train = [path for path in named["train"] if path.resolve() not in held_out]
        if not train:
            raise ValueError(f"corpus.val_path={self.val_path} takes all files of corpus.path={self.path}")
        return named | {"train": train, "val": val}

    def named(self) -> dict[str, list[Path]]:
        """What `path` holds, by split."""
        return {"train": self.find(self.path, "path")}

    def find(self, wanted: Any, key: str) -> list[Path]:
        """The files that `corpus.<key>` stands for, in order of name. Raises ValueError when there are none."""
        found: dict[Path, Path] = {}  # by where they really lie: a file that is named twice is read once
        for name in wanted if isinstance(wanted, list) else [wanted]:
            path = Path(str(name)).expanduser()
            if path.is_dir():
                matches = self.inside(path, key)
            elif path.exists():
                matches = [path]
            else:
                names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
                matches = [Path(m) for m in names if Path(m).is_file() and not _in_a_cache(Path(m), fixed_part(path))]
                if not matches:
                    raise ValueError(f"corpus.{key}={name}: no such file (looked in {Path.cwd()}){_neighbour(path)}")
            for match in matches:
                if not self.excluded(match, path if path.is_dir() else match.parent):
                    found.setdefault(match.resolve(), match)
        if not found:
            raise ValueError(f"corpus.exclude={self.exclude} leaves no file of corpus.{key}={wanted}")
        return list(found.values())

    def excluded(self, file: Path, folder: Path) -> bool:
        """A pattern that matches a folder inside `folder` leaves out all that it holds."""
        tree = [file, *(p for p in file.parents if folder in p.parents)]
        return any(p.match(pattern) for pattern in self.exclude for p in tree)

    def inside(self, folder: Path, key: str) -> list[Path]:
        """Hidden files and folders (.git, .venv), links to folders and caches (such as ours) are left out."""
        files: list[Path] = []
        for base, folders, names in os.walk(folder):
            inner = (Path(base, name) for name in folders if name[0] != "." and name not in self.left_out)
            folders[:] = [path.name for path in inner if not (path / CACHE_TAG).exists()]
            files += [path for name in names if name[0] != "." and (path := Path(base, name)).is_file()]
        pattern = self.glob.split("/")
        matches = sorted(p for p in files if _matches(_unpacked(p.relative_to(folder)), pattern))
        if not matches:
            kinds = Counter(path.suffix for path in files).most_common(3)
            there = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in kinds) or "nothing"
            raise ValueError(f"corpus.{key}={folder} holds no file that matches corpus.glob='{self.glob}'; "
                             f"there are: {there}")  # fmt: skip
        return matches

    def identity(self, downloads: Downloads) -> str:
        try:
            return digest(*(f"{name} {sha256(p)}" for name, paths in self.paths().items() for p in paths))
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {name: self.stream(paths) for name, paths in self.paths().items()}

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        documents = [(path, member) for path in paths for member in self.members(path)]
        for path, member in documents:
            try:
                yield from self.document(path, member)
            except reading.Empty:  # such as most __init__.py
                if len(documents) == 1:
                    raise
            yield None

    def members(self, path: Path) -> list[str | None]:
        """Of a .zip those that `glob` matches and `exclude` does not; all, where it matches none."""
        names = reading.members(path)
        if names == [None]:
            return names
        inside = [(name, Path("/", str(name))) for name in names]  # a pattern that begins with ** matches here too
        kept = [name for name, member in inside if not self.excluded(member, Path("/"))]
        pattern = self.glob.split("/")
        return [name for name in kept if _matches(Path(str(name)).parts, pattern)] or kept

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        yield from reading.text(path, member)


def _unpacked(path: Path) -> tuple[str, ...]:
    """The parts of a path, of a packed file without the packing's suffix."""
    return path.with_suffix("").parts if path.suffix in reading.PACKED else path.parts


def _matches(parts: tuple[str, ...], pattern: list[str]) -> bool:
    """As Path.glob would, but without walking into what is left out."""
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def fixed_part(path: Path) -> Path:
    """The folder that a pattern lies in: its parts before the first with a wildcard."""
    while glob.has_magic(str(path)):
        path = path.parent
    return path


def _in_a_cache(path: Path, folder: Path) -> bool:
    """Whether a folder between `folder` and `path` says of itself that it is a cache."""
    return any(
        (parent / CACHE_TAG).exists() for parent in path.parents if parent != folder and folder in parent.parents
    )


def _neighbour(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [p.name for p in folder.iterdir()], f"{folder}/") if folder.is_dir() else ""
