"""Files on this machine as a corpus: which ones a path, a directory or a pattern stands for."""

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
    """Files on this machine; each is a document."""

    located: ClassVar[set[str]] = {"licence", "path", "val_path"}
    val_key: ClassVar[str] = "corpus.val_path"
    left_out: ClassVar[set[str]] = {"__pycache__"}  # folders
    related: ClassVar[set[str]] = {".txt", ".text", ".md", ".rst", *ARCHIVES}  # kinds of files, told of if left out

    path: Any = ""  # a file, a directory, a glob pattern, or a list of them
    # which files of a directory to read, upper and lower case alike; packed ones (.gz, .zip, ...) of these names too
    glob: str = "**/*.txt"
    exclude: list[str] = field(default_factory=list)  # glob patterns of files to leave out
    val_path: Any = ""  # files with the validation text, if you have any: like path

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
            raise UserError(f"corpus.val_path={self.val_path} takes all files of corpus.path={self.path}")
        return named | {"train": train, "val": val}

    def named(self) -> dict[str, list[Path]]:
        """What `path` holds, by split."""
        return {"train": self.find(self.path, "path")}

    def find(self, wanted: Any, key: str) -> list[Path]:
        """Return the files that `corpus.<key>` stands for, in order of name. Raises UserError when there are none."""
        found: dict[Path, Path] = {}  # by where they really lie: a file that is named twice is read once
        for name in wanted if isinstance(wanted, list) else [wanted]:
            path = patterns.home(name)
            try:
                for match in self.replacement_note(path, f"corpus.{key}={name}"):
                    if not self.excluded(match, path if path.is_dir() else match.parent):
                        found.setdefault(match.resolve(), match)
            except OSError as error:
                raise UserError(f"corpus.{key}={name}: {error.filename or path} cannot be read: {error.strerror}; let "
                                 "it be read, or leave it out with corpus.exclude") from error  # fmt: skip
        if not found:
            raise UserError(f"corpus.exclude={self.exclude} leaves no file of corpus.{key}={wanted}")
        return list(found.values())

    def replacement_note(self, path: Path, typed: str) -> list[Path]:
        """Return the files that one path stands for; messages name it as it was `typed`.

        Raises OSError for what may not be read.
        """
        if path.is_dir():
            return self.inside(path, typed)
        if path.is_file():
            return [path]
        if path.exists():
            raise UserError(f"{typed} is {patterns.special(path)}, and a text is read more than once: write it to a "
                             "file first (COMMAND > my.txt) and name that")  # fmt: skip
        if path.is_symlink():
            raise UserError(f"{typed} is a link to {path.readlink()}, which does not exist")
        folder = patterns.fixed_part(path)
        pattern = path.relative_to(folder).parts
        found = sorted(patterns.expand(folder, pattern), key=str) if pattern and folder.is_dir() else []
        files = [match for match in found if match.is_file() and not patterns.in_a_cache(match, folder)]
        if not files and any(match.is_dir() for match in found):
            raise UserError(f"{typed} stands for folders only; for the files in them, name {path}/*")
        if not files:
            raise UserError(f"{typed}: no such file (looked in {Path.cwd()}){patterns.neighbor(path)}")
        return files

    def excluded(self, file: Path, folder: Path) -> bool:
        """A pattern that matches a folder inside `folder` leaves out all that it holds."""
        tree = [file, *(p for p in file.parents if folder in p.parents)]
        return any(patterns.excludes(pattern, p) for pattern in self.exclude for p in tree)

    def walk(self, folder: Path) -> Iterator[Path]:
        return patterns.walk(folder, self.left_out, lambda path: self.excluded(path, folder))

    def is_wanted(self, path: Path, folder: Path) -> bool:
        """Tell whether a file in `folder` matches `glob`; the suffix of its packing does not count."""
        return patterns.matches(unpacked_name(path.relative_to(folder)).parts, self.glob.split("/"))

    def inside(self, folder: Path, typed: str) -> list[Path]:
        files = [path for path in self.walk(folder) if path.is_file()]
        if not files:
            raise UserError(f"{typed} is a folder without files (hidden ones and links to folders do not count)")
        found = sorted(path for path in files if self.is_wanted(path, folder))
        if not found:
            kinds = Counter(path.suffix for path in files).most_common(3)
            there = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in kinds)
            raise UserError(f"{typed} holds no file that matches corpus.glob='{self.glob}'; there are: {there}")
        return found

    def notes(self, text: Text) -> list[str]:
        """Name what is not read although a user may expect it."""
        notes = []
        for key in ("path", "val_path"):
            value = getattr(self, key)
            for name in value if isinstance(value, list) else [value] if value else []:
                kinds, broken = self.passed_over(patterns.home(name))
                if kinds:
                    told = ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items()))
                    notes.append(f"corpus.{key}={name}: corpus.glob='{self.glob}' leaves out files ({told})")
                if broken:
                    told = f"{broken[0]}{f' and {len(broken) - 1:,} more' if broken[1:] else ''}"
                    notes.append(f"corpus.{key}={name}: left out as broken links or pipes: {told}")
        return notes

    def passed_over(self, path: Path) -> tuple[Counter[str], list[Path]]:
        """Count the files of each kind in `related` that `glob` leaves out in a folder or a .zip, and list what it
        matches and is not a file.
        """
        left, broken = [], []
        if path.is_dir():
            here = [p for p in self.walk(path) if not self.excluded(p, path)]
            left = [p for p in here if not self.is_wanted(p, path)]
            broken = sorted(p for p in here if self.is_wanted(p, path) and not p.is_file())
        elif path.is_file() and packing(path) == ".zip":
            inside = (Path("/", str(name)) for name in set(members(path)) - set(self.members(path)))
            left = [p for p in inside if not self.excluded(p, Path("/"))]
        kinds = ((unpacked_name(p).suffix or p.suffix).lower() for p in left)
        return Counter(kind for kind in kinds if kind in self.related), broken

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
            except reading.Empty:  # such as most __init__.py
                if len(documents) == 1:
                    raise
            yield None

    def members(self, path: Path) -> list[str | None]:
        """Of a .zip those that `glob` matches and `exclude` does not; all, where it matches none."""
        names = members(path)
        if names == [None]:
            return names
        inside = [(name, Path("/", str(name))) for name in names]  # a pattern that begins with ** matches here too
        kept = [name for name, member in inside if not self.excluded(member, Path("/"))]
        return [name for name in kept if patterns.matches(Path(str(name)).parts, self.glob.split("/"))] or kept

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        yield from reading.text(path, member)
