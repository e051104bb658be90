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
from lm.files import sha256


@dataclass
class FilesConfig(CorpusConfig):
    """Files on this machine; each is a document."""

    left_out: ClassVar[set[str]] = {"__pycache__"}  # folders

    path: Any = ""  # a file, a directory, a glob, or a list of them
    glob: str = "**/*.txt"  # which files of a directory; the same packed as .gz, .zst or .zip come along
    exclude: list[str] = field(default_factory=list)  # globs of files to leave out
    val_path: Any = ""  # the validation text, if it has files of its own

    def check(self, check: Check) -> None:
        check.that(bool(self.path), "path", "name a file, a directory or a glob, e.g. corpus.path=my.txt")

    def paths(self, root: Path) -> dict[str, list[Path]]:
        """train, and perhaps val and test; no file is in two."""
        train = self.find(self.path, "path", root)
        if not self.val_path:
            return {"train": train}
        val = self.find(self.val_path, "val_path", root)
        held_out = {path.resolve() for path in val}
        train = [path for path in train if path.resolve() not in held_out]
        if not train:
            raise ValueError(f"corpus.val_path={self.val_path} takes all files of corpus.path={self.path}")
        return {"train": train, "val": val}

    def find(self, wanted: Any, key: str, root: Path) -> list[Path]:
        """The files that `corpus.<key>` stands for, in order of name. Raises ValueError when there are none."""
        found: dict[Path, None] = {}  # a set that keeps the order
        for name in wanted if isinstance(wanted, list) else [wanted]:
            path = Path(str(name)).expanduser()
            if path.is_dir():
                matches = self.inside(path, key, root)
            elif path.exists():
                matches = [path]
            else:
                names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
                matches = [Path(m) for m in names if Path(m).is_file()]
                if not matches:
                    raise ValueError(f"corpus.{key}={name}: no such file (looked in {Path.cwd()}){_neighbour(path)}")
            found |= dict.fromkeys(m for m in matches if not self.excluded(m, path if path.is_dir() else m.parent))
        if not found:
            raise ValueError(f"corpus.exclude={self.exclude} leaves no file of corpus.{key}={wanted}")
        return list(found)

    def excluded(self, file: Path, folder: Path) -> bool:
        """A pattern that matches a folder inside `folder` leaves out all that it holds."""
        tree = [file, *(p for p in file.parents if folder in p.parents)]
        return any(p.match(pattern) for pattern in self.exclude for p in tree)

    def inside(self, folder: Path, key: str, root: Path) -> list[Path]:
        """Hidden files and folders (.git, .venv) are left out, and our own downloads and caches in `root`."""
        files = []
        for base, folders, names in os.walk(folder):
            inner = [Path(base, name) for name in folders if name[0] != "." and name not in self.left_out]
            folders[:] = [path.name for path in inner if path.name != root.name or path.resolve() != root.resolve()]
            files += [Path(base, name) for name in names if name[0] != "."]
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
            return digest(*(f"{name} {sha256(p)}" for name, paths in self.paths(downloads.root).items() for p in paths))
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {name: self.stream(paths) for name, paths in self.paths(downloads.root).items()}

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        documents = [(path, member) for path in paths for member in reading.members(path)]
        for path, member in documents:
            try:
                yield from self.document(path, member)
            except reading.Empty:  # such as most __init__.py
                if len(documents) == 1:
                    raise
            yield None

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


def _neighbour(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [p.name for p in folder.iterdir()], f"{folder}/") if folder.is_dir() else ""
