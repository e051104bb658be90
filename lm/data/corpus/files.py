"""Base class of corpora that read local files: find the files of a path, a directory or a pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.files import sha256
from lm.data.cache import digest
from lm.data.corpus import patterns, reading
from lm.data.corpus.base import CorpusConfig
from lm.data.corpus.packing import PACKED, members, packing, unpacked_name
from lm.data.corpus.text import Stream, Text
from lm.data.download import Downloads

ARCHIVES = {*PACKED, ".tar", ".tgz", ".7z", ".rar"}


@dataclass
class FilesConfig(CorpusConfig):
    """Local files; each is a document."""

    location_keys: ClassVar[set[str]] = {"licence", "path", "val_path"}
    val_key: ClassVar[str] = "corpus.val_path"
    ignored_folders: ClassVar[set[str]] = {"__pycache__"}
    # A note names files with these suffixes if they are not read.
    related_suffixes: ClassVar[set[str]] = {".txt", ".text", ".md", ".rst", *ARCHIVES}

    path: Any = ""  # a file, a directory, a glob pattern, or a list of them
    # which files of a directory to read, ignoring case; compressed files (.gz, .zip, ...) with such names too
    glob: str = "**/*.txt"
    exclude: list[str] = field(default_factory=list)  # glob patterns of files to leave out
    val_path: Any = ""  # files with the validation text, if you have any: like path

    def check(self, check: Check) -> None:
        check.require(bool(self.path), "path", "name a file, a directory or a glob, e.g. corpus.path=my.txt")

    def paths(self) -> dict[str, list[Path]]:
        """Return the files of each split: train, and perhaps val and test. Validation files are not trained on."""
        splits = self.find_splits()
        if not self.val_path:
            return splits
        val = self.find(self.val_path, "val_path")
        held_out = {path.resolve() for path in val}
        train = [path for path in splits["train"] if path.resolve() not in held_out]
        if not train:
            raise UserError(f"corpus.val_path={self.val_path} includes all files of corpus.path={self.path}; no file "
                             "is left to train on")  # fmt: skip
        return splits | {"train": train, "val": val}

    def find_splits(self) -> dict[str, list[Path]]:
        """Return the files of `path` by split."""
        return {"train": self.find(self.path, "path")}

    def find(self, value: Any, key: str) -> list[Path]:
        """Return the files that `value`, the value of `corpus.<key>`, stands for, in order of name.

        Raises UserError if there are none.
        """
        found: dict[Path, Path] = {}  # keyed by the resolved path, so that a file that is named twice is read once
        for name in value if isinstance(value, list) else [value]:
            path = patterns.expand_home(name)
            try:
                for match in self.resolve_path(path, f"corpus.{key}={name}"):
                    if not self.excluded(match, path if path.is_dir() else match.parent):
                        found.setdefault(match.resolve(), match)
            except OSError as error:
                raise UserError(f"corpus.{key}={name}: {error.filename or path} cannot be read: {error.strerror}; "
                                 "change its permissions, or leave it out with corpus.exclude") from error  # fmt: skip
        if not found:
            raise UserError(f"corpus.exclude={self.exclude} leaves no file of corpus.{key}={value}")
        return list(found.values())

    def resolve_path(self, path: Path, setting: str) -> list[Path]:
        """Return the files that one path stands for. Messages show the `setting` as the user wrote it.

        Raises UserError if there are none, and OSError if one may not be read.
        """
        if path.is_dir():
            return self.files_in_folder(path, setting)
        if path.is_file():
            return [path]
        if path.exists():
            kind = patterns.describe_special_file(path)
            raise UserError(f"{setting} is {kind}, but a text is read more than once: write it to a file first "
                             "(COMMAND > my.txt) and use that file")  # fmt: skip
        if path.is_symlink():
            raise UserError(f"{setting} is a link to {path.readlink()}, which does not exist")
        folder = patterns.fixed_part(path)
        pattern = path.relative_to(folder).parts
        found = sorted(patterns.expand(folder, pattern), key=str) if pattern and folder.is_dir() else []
        files = [match for match in found if match.is_file() and not patterns.is_in_cache(match, folder)]
        if not files and any(match.is_dir() for match in found):
            raise UserError(f"{setting} matches only folders; for the files in them, use {path}/*")
        if not files:
            raise UserError(f"{setting}: no such file (looked in {Path.cwd()}){patterns.suggest_name(path)}")
        return files

    def excluded(self, file: Path, folder: Path) -> bool:
        """Tell whether `exclude` matches a file, or one of the folders that contain it inside `folder`."""
        tree = [file, *(p for p in file.parents if folder in p.parents)]
        return any(patterns.is_excluded_by(pattern, p) for pattern in self.exclude for p in tree)

    def walk(self, folder: Path) -> Iterator[Path]:
        return patterns.walk(folder, self.ignored_folders, lambda path: self.excluded(path, folder))

    def matches_glob(self, path: Path, folder: Path) -> bool:
        """Tell whether a file in `folder` matches `glob`. The suffix of its packing is ignored."""
        return patterns.matches(unpacked_name(path.relative_to(folder)).parts, self.glob.split("/"))

    def files_in_folder(self, folder: Path, setting: str) -> list[Path]:
        files = [path for path in self.walk(folder) if path.is_file()]
        if not files:
            raise UserError(f"{setting} is a folder without files (hidden files and links to folders are ignored)")
        found = sorted(path for path in files if self.matches_glob(path, folder))
        if not found:
            kinds = Counter(path.suffix for path in files).most_common(3)
            existing = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in kinds)
            raise UserError(f"{setting} contains no file that matches corpus.glob='{self.glob}'; "
                             f"it contains: {existing}")  # fmt: skip
        return found

    def notes(self, text: Text) -> list[str]:
        """Return notes about files that are not read although the user may expect it."""
        notes = []
        for key in ("path", "val_path"):
            value = getattr(self, key)
            if not value:
                continue
            for name in value if isinstance(value, list) else [value]:
                kinds, broken = self.find_left_out(patterns.expand_home(name))
                if kinds:
                    numbers = ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items()))
                    notes.append(f"corpus.{key}={name}: corpus.glob='{self.glob}' leaves out files ({numbers})")
                if broken:
                    others = f" and {len(broken) - 1:,} more" if broken[1:] else ""
                    notes.append(f"corpus.{key}={name}: ignored broken links or pipes: {broken[0]}{others}")
        return notes

    def find_left_out(self, path: Path) -> tuple[Counter[str], list[Path]]:
        """Find what is not read in a folder or a .zip.

        Returns the number of files that `glob` does not match, for each suffix in `related_suffixes`, and the paths
        that it matches but that are not files.
        """
        left, broken = [], []
        if path.is_dir():
            here = [p for p in self.walk(path) if not self.excluded(p, path)]
            left = [p for p in here if not self.matches_glob(p, path)]
            broken = sorted(p for p in here if self.matches_glob(p, path) and not p.is_file())
        elif path.is_file() and packing(path) == ".zip":
            inside = (Path("/", str(name)) for name in set(members(path)) - set(self.members(path)))
            left = [p for p in inside if not self.excluded(p, Path("/"))]
        kinds = ((unpacked_name(p).suffix or p.suffix).lower() for p in left)
        return Counter(kind for kind in kinds if kind in self.related_suffixes), broken

    def identity(self, downloads: Downloads) -> str:
        try:
            return digest(*(f"{name} {packing(p)} {sha256(p)}" for name, ps in self.paths().items() for p in ps))
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {name: self.stream(paths) for name, paths in self.paths().items()}

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        documents = [(path, member) for path in paths for member in self.members(path)]
        for path, member in documents:
            try:
                yield from self.document(path, member)
            except reading.EmptyFileError:  # common, e.g. most __init__.py
                if len(documents) == 1:
                    raise
            yield None

    def members(self, path: Path) -> list[str | None]:
        """Return the members of a .zip that `glob` matches and `exclude` does not; [None] for any other file.

        If `glob` matches no member, all that are not excluded are returned.
        """
        names = members(path)
        if names == [None]:
            return names
        rooted = [(name, Path("/", str(name))) for name in names]  # so that a pattern that begins with ** matches too
        included = [name for name, member in rooted if not self.excluded(member, Path("/"))]
        return [name for name in included if patterns.matches(Path(str(name)).parts, self.glob.split("/"))] or included

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        yield from reading.text(path, member)
