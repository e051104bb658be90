"""Corpora of the user's own text: plain text, source code and Hugging Face datasets."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lm.base.checks import Check
from lm.base.commands import install, shell
from lm.base.errors import UserError
from lm.data.corpus import reading
from lm.data.corpus.files import ARCHIVES, FilesConfig
from lm.data.corpus.patterns import expand_home, fixed_part
from lm.data.corpus.text import ENDS, Text

INLINE = re.compile(r"<.+>|\[.+\]")  # separators that look like special tokens


@dataclass
class TextConfig(FilesConfig):
    """Plain text in UTF-8."""

    separator: str = ""  # line between documents; one of the form <|...|>, <...> or [...] also separates inside a line

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        if not self.separator:
            yield from reading.text(path, member)
            return
        yield from split_documents(reading.lines(path, member), self.separator)

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        documents = 0
        for piece in super().stream(paths):
            documents += piece is None
            yield piece
        if self.separator and documents == sum(len(self.members(path)) for path in paths):
            lines = (line for path in paths for member in self.members(path) for line in reading.lines(path, member))
            files = f"{paths[0]}{f' and {len(paths) - 1:,} other files' if paths[1:] else ''}"
            raise UserError(unused_separator_message(self.separator, lines, files))

    @property
    def counted_words(self) -> tuple[str, ...]:
        return () if self.separator else ENDS

    def notes(self, text: Text) -> list[str]:
        ends = [f"the text contains {name} {count:,} times; if documents end there, set "
                + shell(f'corpus.separator="{name}"') for name, count in text.counts.items() if count]  # fmt: skip
        return super().notes(text) + ends


@dataclass
class CodeConfig(FilesConfig):
    """Source code. Each file is a document, so the validation text is whole files that are neighbors in the tree."""

    related_suffixes: ClassVar[set[str]] = {
        ".py", ".pyi", ".ipynb", ".js", ".ts", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt",
        ".swift", ".cs", ".rb", ".php", ".lua", ".jl", ".r", ".scala", ".hs", ".ml", ".sh", ".sql", *ARCHIVES,
    }  # fmt: skip

    glob: str = "**/*.py"


@dataclass
class StdlibConfig(CodeConfig):
    """The standard library of the running Python, without its tests."""

    related_suffixes: ClassVar[set[str]] = set()
    ignored_folders: ClassVar[set[str]] = {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "lib2to3",
    }

    def check(self, check: Check) -> None:
        self.path = self.path or sysconfig.get_path("stdlib")


@dataclass
class HFConfig(FilesConfig):
    """A Hugging Face dataset on disk, as parquet or in the format of `save_to_disk` (arrow). Each row is a document.

    Files or folders named train, validation (valid, val, dev) and test become these splits.
    """

    glob: str = "**/*"
    field: str = "text"  # column of the dataset that holds the text

    def find(self, value: Any, key: str) -> list[Path]:
        kinds, leftovers = (".parquet", ".arrow"), ("cache-", "tmp")  # leftovers of .map and .filter next to the data
        found = [p for p in super().find(value, key) if p.suffix.lower() in kinds and not p.name.startswith(leftovers)]
        if not found:
            raise UserError(f"corpus.{key}={value} contains no .parquet or .arrow file")
        return found

    def find_splits(self) -> dict[str, list[Path]]:
        splits: dict[str, list[Path]] = {}
        named = self.path if isinstance(self.path, list) else [self.path]
        folders = [fixed_part(expand_home(path)) for path in named]
        for path in self.find(self.path, "path"):
            inside = next((path.relative_to(f) for f in folders if f in path.parents), Path(path.name))
            match = re.search(r"(?:^|[/_.-])(train|val|dev|test)(?:id|idation)?(?=[/_.-])", inside.as_posix().lower())
            splits.setdefault({"dev": "val"}.get(match[1], match[1]) if match else "train", []).append(path)
        if "train" not in splits:
            if len(splits) > 1:
                raise UserError(f"corpus.path={self.path} has a {' and a '.join(splits)} split, but no train split")
            splits = {"train": splits.popitem()[1]}
        return splits

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        try:
            from pyarrow import ArrowException, ipc, parquet
        except ImportError as error:
            raise UserError(f"corpus=hf needs pyarrow: {install('.[hf]')}") from error
        for path in paths:
            try:
                with path.open("rb") as opened:
                    is_parquet = opened.read(4) == b"PAR1"
                if is_parquet:
                    file = parquet.ParquetFile(path)
                    columns, batches = file.schema_arrow.names, file.iter_batches(1000, columns=[self.field])
                else:
                    file = ipc.open_stream(path.open("rb"))
                    columns, batches = file.schema.names, file
                if self.field not in columns:
                    raise UserError(f"{path} has no column {self.field}; it has {', '.join(columns)}")
                for batch in batches:
                    batch.column(self.field).validate(full=True)  # because corrupted data may crash the process
                    for document in batch.column(self.field).to_pylist():
                        if not isinstance(document, str):
                            raise UserError(
                                f"{path}: corpus.field={self.field} holds {type(document).__name__}, not text"
                            )
                        yield document
                        yield None
            except (ArrowException, OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path} is corrupted or not a {path.suffix} file: {error}") from error


def split_documents(lines: Iterator[str], separator: str) -> Iterator[str | None]:
    """Yield the text of `lines`, and None at each separator.

    A separator is a line of its own. If it matches INLINE, it may also be anywhere in a line.
    """
    for line in lines:
        if line.strip() == separator:
            yield None
        elif separator in line and INLINE.fullmatch(separator):
            for i, part in enumerate(line.split(separator)):
                if i:
                    yield None
                if part.strip():
                    yield part
        else:
            yield line


def unused_separator_message(separator: str, lines: Iterator[str], files: str) -> str:
    """Return the error message for `files` with these `lines`, which the separator does not split into documents."""
    if not (count := sum(line.count(separator) for line in lines)):
        return f"corpus.separator={separator} does not occur in {files}; without it each file is a document"
    return (
        f"corpus.separator={separator} occurs {count:,} times in {files}, but never on a line of its own: put it on "
        "lines of its own, or replace it with <|endoftext|>, which separates documents inside a line too"
    )
