"""Keep what people type on the command line as they typed it, where Hydra would read something else into it."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lm.base.commands import override

OVERRIDE = re.compile(r"(\+{0,2})([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
PATHS_OF_HYDRA = re.compile(r"(--config-dir|--config-path|hydra\.run\.dir|hydra\.sweep\.dir)=(~.*)", re.DOTALL)
TEXT_OR_LIST = ("corpus.path", "corpus.val_path")  # fields of type Any, which take a path or a list of paths


def keep_typed(argv: list[str], schema: type, groups: dict[str, list[type]]) -> list[str]:
    """Return the command line so that text stays the text that was typed, and `~` is the home directory.

    Hydra reads `1e3`, `true` and `1_000` as a number or a boolean, so that the config would hold `1000.0`, `True` and
    `1000`, and it refuses `~/x` and `my file (1).txt`. Such values of text fields are put in quotes. `schema` is the
    root config, and `groups` are the classes that a section can have.
    """
    return [_kept(word, schema, groups) for word in argv]


def _kept(word: str, schema: type, groups: dict[str, list[type]]) -> str:
    if match := PATHS_OF_HYDRA.fullmatch(word):
        return f"{match[1]}={Path(match[2]).expanduser()}"
    match = OVERRIDE.fullmatch(word)
    if match and _is_text(match[2], schema, groups):
        return f"{match[1]}{match[2]}={quoted(match[3])}"
    return word


def _is_text(key: str, schema: type, groups: dict[str, list[type]]) -> bool:
    """Tell whether a dotted key is a field of text, or a list of texts, in every class that has it."""
    group, _, rest = key.partition(".")
    classes, name = (groups[group], rest) if group in groups else ([schema], key)
    found = [kind for cls in classes for kind in _types(cls, name)]
    return key in TEXT_OR_LIST or (bool(found) and all(kind in (str, str | None, list[str]) for kind in found))


def _types(cls: type, key: str) -> Iterator[Any]:
    """Yield the type of a dotted field of a dataclass, if it has that field."""
    name, _, rest = key.partition(".")
    kind = get_type_hints(cls).get(name)
    if kind is not None and not rest:
        yield kind
    for part in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else [kind]:
        if rest and is_dataclass(part):
            yield from _types(part, rest)  # type: ignore[arg-type]


def quoted(value: str) -> str:
    """Return what was typed for a text with quotes around what Hydra would read otherwise, also in lists and sweeps.

    These are numbers, booleans, and characters that its grammar has other uses for, as in `~/my file (1).txt`. null
    stays null, and what has quotes already keeps them.
    """
    parts = split(value)
    if len(parts) > 1:
        return ",".join(map(quoted, parts))
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(quoted, split(value[1:-1])))}]" if value[1:-1].strip() else value
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return override("", value).removeprefix("=")
    return f"'{value.strip()}'" if isinstance(read, bool | int | float) else value


def split(value: str) -> list[str]:
    """Split at the commas that stand outside of quotes and brackets."""
    parts, depth, quote, start, i = [], 0, "", 0, 0
    while i < len(value):
        c = value[i]
        if quote:
            i += c == "\\"  # what follows is escaped
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(value[start:i])
            start = i + 1
        i += 1
    return [*parts, value[start:]]
