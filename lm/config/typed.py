"""Quote text values of the command line, which Hydra would otherwise parse as numbers, booleans or grammar."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lm.base.commands import override

OVERRIDE = re.compile(r"(\+{0,2})([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
PATHS_OF_HYDRA = re.compile(r"(--config-dir|--config-path|hydra\.run\.dir|hydra\.sweep\.dir)=(~.*)", re.DOTALL)
TEXT_OR_LIST = ("corpus.path", "corpus.val_path")  # fields of type Any that accept a path or a list of paths


def quote_text(argv: list[str], schema: type, groups: dict[str, list[type]]) -> list[str]:
    """Return the command line with quotes around text values where Hydra needs them, and with `~` expanded in paths.

    Hydra parses `1e3`, `true` and `1_000` as a number or a boolean, so that the config would hold `1000.0`, `True` and
    `1000`, and it rejects `~/x` and `my file (1).txt`. Such values are quoted if the field holds text. `schema` is the
    root config, and `groups` are the classes that a section can have.
    """
    return [_quote_word(word, schema, groups) for word in argv]


def _quote_word(word: str, schema: type, groups: dict[str, list[type]]) -> str:
    if match := PATHS_OF_HYDRA.fullmatch(word):
        return f"{match[1]}={Path(match[2]).expanduser()}"
    match = OVERRIDE.fullmatch(word)
    if match and _is_text(match[2], schema, groups):
        return f"{match[1]}{match[2]}={quote_value(match[3])}"
    return word


def _is_text(key: str, schema: type, groups: dict[str, list[type]]) -> bool:
    """Return True if a dotted key holds text, or a list of texts, in every class that has it."""
    group, _, rest = key.partition(".")
    classes, name = (groups[group], rest) if group in groups else ([schema], key)
    kinds = [kind for cls in classes for kind in _types(cls, name)]
    return key in TEXT_OR_LIST or (bool(kinds) and all(kind in (str, str | None, list[str]) for kind in kinds))


_type_hints = cache(get_type_hints)  # it evaluates every annotation, which takes a millisecond


def _types(cls: type, key: str) -> Iterator[Any]:
    """Yield the type of a dotted field of a dataclass, if it has the field."""
    name, _, rest = key.partition(".")
    kind = _type_hints(cls).get(name)
    if kind is not None and not rest:
        yield kind
    for part in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else [kind]:
        if rest and is_dataclass(part):
            yield from _types(part, rest)  # type: ignore[arg-type]


def quote_value(value: str) -> str:
    """Return a text value with quotes if Hydra would not read it as that text, also within lists and sweeps.

    This applies to numbers, booleans, and characters that Hydra's grammar reserves, as in `~/my file (1).txt`. null
    stays null, and a value that has quotes is returned unchanged.
    """
    parts = split_at_commas(value)
    if len(parts) > 1:
        return ",".join(map(quote_value, parts))
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(quote_value, split_at_commas(value[1:-1])))}]" if value[1:-1].strip() else value
    try:
        parsed = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return override("", value).removeprefix("=")
    return f"'{value.strip()}'" if isinstance(parsed, bool | int | float) else value


def split_at_commas(value: str) -> list[str]:
    """Split at the commas that are outside of quotes and brackets."""
    parts, depth, quote, start, i = [], 0, "", 0, 0
    while i < len(value):
        c = value[i]
        if quote:
            i += c == "\\"  # skip the escaped character
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
