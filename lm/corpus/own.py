"""The user's own text: files, directories and globs of plain text, JSON lines, source code, Hugging Face datasets."""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lm.check import Check, nearest
from lm.corpus import reading
from lm.corpus.files import FilesConfig, fixed_part


@dataclass
class TextConfig(FilesConfig):
    """Plain text in UTF-8."""

    separator: str = ""  # a line that holds only this stands between documents, e.g. <|endoftext|>

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        if not self.separator:
            yield from reading.text(path, member)
            return
        yield from separated(reading.lines(path, member), self.separator)

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        documents = 0
        for piece in super().stream(paths):
            documents += piece is None
            yield piece
        if self.separator and documents == sum(len(self.members(path)) for path in paths):
            raise ValueError(
                f"no line of corpus.path={self.path} is corpus.separator={self.separator} and nothing else"
            )


@dataclass
class JSONLConfig(FilesConfig):
    """JSON lines: each line an object, one field of which is a document."""

    glob: str = "**/*.jsonl"
    field: str = "text"

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        for number, line in enumerate(reading.lines(path, member), 1):
            if not line.strip():
                continue
            where = f"{path}{'/' + member if member else ''}, line {number}"
            try:
                value = json.loads(line.rstrip("\n"))
            except (ValueError, RecursionError) as error:  # ValueError: also for a number of thousands of digits
                raise ValueError(f"{where} is no JSON that can be read: {error}") from error
            if not isinstance(value, dict):
                raise ValueError(f"{where} is no JSON object")
            if self.field not in value:
                raise ValueError(f"{where} has no corpus.field={self.field}; it has {', '.join(value) or 'nothing'}"
                                 f"{nearest(self.field, list(value))}")  # fmt: skip
            document = value[self.field]
            if not isinstance(document, str):
                raise ValueError(f"{where}: corpus.field={self.field} holds {json.dumps(document)[:40]}, no text")
            try:
                document.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{where}: corpus.field={self.field} holds {error.object[error.start]!r}, half a "
                                 "character (a lone surrogate), which UTF-8 cannot spell") from error  # fmt: skip
            yield document
            yield None


@dataclass
class CodeConfig(FilesConfig):
    """Source code: each file a document, so that what is held out is whole files, neighbours in the tree."""

    glob: str = "**/*.py"


@dataclass
class StdlibConfig(CodeConfig):
    """The standard library of the Python that runs this, its tests left out."""

    left_out: ClassVar[set[str]] = {
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
    """A Hugging Face dataset on disk, as parquet or as `save_to_disk` writes it (arrow); a row is a document.

    Files or folders named train, validation (valid, val, dev) and test are those splits.
    """

    glob: str = "**/*"
    field: str = "text"

    def find(self, wanted: Any, key: str) -> list[Path]:
        kinds, left_over = (".parquet", ".arrow"), ("cache-", "tmp")  # what .map and .filter leave beside the data
        found = [p for p in super().find(wanted, key) if p.suffix in kinds and not p.name.startswith(left_over)]
        if not found:
            raise ValueError(f"corpus.{key}={wanted} holds no .parquet or .arrow file")
        return found

    def named(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        wanted = self.path if isinstance(self.path, list) else [self.path]
        folders = [fixed_part(Path(str(path)).expanduser()) for path in wanted]
        for path in self.find(self.path, "path"):
            inside = next((path.relative_to(f) for f in folders if f in path.parents), Path(path.name))
            match = re.search(r"(?:^|[/_.-])(train|val|dev|test)(?:id|idation)?(?=[/_.-])", inside.as_posix())
            named.setdefault({"dev": "val"}.get(match[1], match[1]) if match else "train", []).append(path)
        if "train" not in named:
            if len(named) > 1:
                raise ValueError(f"corpus.path={self.path} has a {' and a '.join(named)} split, but none to train on")
            named = {"train": named.popitem()[1]}
        return named

    def stream(self, paths: list[Path]) -> Iterator[str | None]:
        try:
            from pyarrow import ArrowException, ipc, parquet
        except ImportError as error:
            raise ValueError("corpus=hf needs pyarrow: pip install -e '.[hf]'") from error
        for path in paths:
            try:
                if path.suffix == ".parquet":
                    file = parquet.ParquetFile(path)
                    columns, batches = file.schema_arrow.names, file.iter_batches(1000, columns=[self.field])
                else:
                    file = ipc.open_stream(path.open("rb"))
                    columns, batches = file.schema.names, file
                if self.field not in columns:
                    raise ValueError(f"{path} has no column {self.field}; it has {', '.join(columns)}")
                for batch in batches:
                    batch.column(self.field).validate(full=True)  # what is damaged may bring the process down
                    for document in batch.column(self.field).to_pylist():
                        if not isinstance(document, str):
                            raise ValueError(
                                f"{path}: corpus.field={self.field} holds {type(document).__name__}, no text"
                            )
                        yield document
                        yield None
            except (ArrowException, OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is damaged or no {path.suffix} file: {error}") from error


def separated(lines: Iterator[str], separator: str) -> Iterator[str | None]:
    """Lines as documents that `separator`, a line of its own, parts."""
    for line in lines:
        if line.strip() == separator:
            yield None
        else:
            yield line
