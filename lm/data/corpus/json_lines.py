"""JSON lines: each line of a file is an object, and one of its fields is a document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lm.base.checks import did_you_mean
from lm.base.commands import python, shell
from lm.base.errors import UserError
from lm.data.corpus import reading
from lm.data.corpus.files import ARCHIVES, FilesConfig
from lm.data.corpus.packing import unpacked_name
from lm.data.corpus.unreadable import unused_name, with_input

# Python code for a shell command: print the elements of an array, or a sequence of objects, as JSON lines.
TO_LINES = (
    "import json, re, sys; t = sys.stdin.buffer.read().decode('utf-8-sig'); i = 0; "
    "[print(json.dumps(x if isinstance(x, dict) else {FIELD: x})) "
    "for begin in iter(lambda: re.compile('[^\\\\s,]').search(t, i), None) "
    "for v, end in [json.JSONDecoder().raw_decode(t, begin.start())] if [i := end] "
    "for x in (v if isinstance(v, list) else [v])]"
)


@dataclass
class JSONLConfig(FilesConfig):
    """JSON lines: each line is an object, and one of its fields is a document."""

    related_suffixes: ClassVar[set[str]] = {".jsonl", ".json", ".ndjson", *ARCHIVES}

    glob: str = "**/*.jsonl"
    field: str = "text"  # key of each JSON object that holds the text

    def document(self, path: Path, member: str | None) -> Iterator[str | None]:
        first = ""  # the first line that is not blank
        for number, line in enumerate(reading.lines(path, member), 1):
            if not line.strip():
                continue
            first = first or line
            where = f"{path}{'/' + member if member else ''}, line {number}"
            try:
                value = json.loads(line.rstrip("\n"))
            except (ValueError, RecursionError) as error:  # ValueError: also for a number with thousands of digits
                cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip())
                if line is first and (line.lstrip()[0] == "[" or (line.lstrip()[0] == "{" and cut)):
                    raise self.not_json_lines_error(path, member, line) from error
                raise UserError(f"{where} cannot be parsed as JSON: {error}") from error
            if line is first and isinstance(value, list):
                raise self.not_json_lines_error(path, member, line)
            if not isinstance(value, dict):
                raise UserError(f"{where} is not a JSON object")
            if self.field not in value:
                raise UserError(f"{where} has no corpus.field={self.field}; it has {', '.join(value) or 'nothing'}"
                                 f"{did_you_mean(self.field, list(value))}")  # fmt: skip
            document = value[self.field]
            if not isinstance(document, str):
                raise UserError(f"{where}: corpus.field={self.field} holds {json.dumps(document)[:40]}, not text")
            try:
                document.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{where}: corpus.field={self.field} holds {error.object[error.start]!r}, half a "
                                 "character (a lone surrogate), which UTF-8 cannot encode") from error  # fmt: skip
            yield document
            yield None

    def not_json_lines_error(self, path: Path, member: str | None, first: str) -> UserError:
        """Return the error for a file that is JSON but not JSON lines, with the command that converts it."""
        kind = "a JSON array" if first.lstrip()[0] == "[" else "a JSON object over several lines"
        new = unused_name(Path(member or unpacked_name(path)).stem + ".jsonl")
        command = with_input(path, member, shell(python(), "-c", TO_LINES.replace("FIELD", json.dumps(self.field))))
        return UserError(f"{path}{'/' + member if member else ''} is {kind}; corpus=jsonl reads JSON lines, an object "
                          f"on each line; convert it and use the new file: {command} > {shell(new)}")  # fmt: skip
