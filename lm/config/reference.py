"""All keys of the configuration with type, default and meaning, for `--help` and for docs/configuration.md."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

import yaml

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.config.help import CONF, describe, option_names, option_schema, read_option
from lm.config.schema import SCHEMAS, Config

FIELD = re.compile(r"    (\w+): .*?(?:  # (.*))?")
PLAIN = {"str": "text", "bool": "true or false", "int": "integer", "float": "number", "list[str]": "list", "Any": "any"}
WIDTH = 118
MANY = 8  # a list of this many options or more is left out


@dataclass
class Key:
    """A key of the configuration, as the help prints it."""

    name: str  # dotted, as on the command line
    type: str
    default: str
    meaning: str
    options: list[str]  # the options of the group that have this key; empty if all have it
    others: dict[str, list[str]] = field(default_factory=dict)  # other defaults, and the options that have them

    def explanation(self) -> str:
        """Return the meaning, the defaults of other options, and which options have the key, if few do."""
        text = self.meaning
        for default, options in self.others.items():
            if len(options) < MANY:
                text += f"; {default} with {', '.join(sorted(options))}"
        return text + (f"; only {', '.join(self.options)}" if 0 < len(self.options) < MANY else "")


@cache
def meanings(cls: type) -> dict[str, str]:
    """Return the comment of each field of a dataclass: after the field, above it, or from its base class."""
    found: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            if line.startswith("    # "):
                above.append(line.removeprefix("    # "))
                continue
            if (match := FIELD.fullmatch(line)) and (text := match[2] or " ".join(above)):
                found[match[1]] = text
            above = []
    return found


def keys(group: str) -> list[Key]:
    """Return the keys of a group; "" means the keys at the top, such as `name` and `seed`.

    The defaults are those of the default option of the group, e.g. model=tiny.
    """
    if not group:
        return list(_keys_of_class(Config, "", {}, []))
    if group == "sweep":
        return list(_keys_of_class(type(Config().sweep), "sweep.", {}, []))
    default_option, classes = _default_options().get(group, ""), _options_by_class(group)
    found: dict[tuple[str, str], Key] = {}
    # the class of the default option first, because its defaults apply if the user chooses nothing
    for cls in sorted(SCHEMAS[group], key=lambda cls: default_option not in classes.get(cls.__name__, [])):
        options = classes.get(cls.__name__, [])
        values = read_option(group, default_option) if default_option in options else {}
        for key in _keys_of_class(cls, f"{group}.", values, options):
            same = found.setdefault((key.name, key.meaning), key)
            if same is key:
                continue
            same.options += options
            if same.default != key.default:
                same.others.setdefault(key.default, []).extend(options)
    everything = {option for options in classes.values() for option in options}
    for key in found.values():
        key.options = [] if set(key.options) == everything else sorted(key.options)
    return list(found.values())


def _keys_of_class(cls: type, prefix: str, values: dict[str, Any], options: list[str]) -> Iterator[Key]:
    for part in fields(cls):
        if part.name in SCHEMAS or (not prefix and part.name == "sweep"):
            continue  # a group
        default = _default(part)
        if is_dataclass(default):
            yield from _keys_of_class(type(default), f"{prefix}{part.name}.", values.get(part.name, {}), list(options))
            continue
        value = values.get(part.name, default)
        if str(value).startswith("${"):  # it is copied from another key
            value = default
        yield Key(
            prefix + part.name, _type(part), _format_value(value), meanings(cls).get(part.name, ""), list(options)
        )


def _default(part: Field[Any]) -> Any:
    return part.default_factory() if part.default_factory is not MISSING else part.default


def _type(part: Field[Any]) -> str:
    names = [name.strip() for name in str(part.type).split("|")]
    return " or ".join("null" if name == "None" else PLAIN.get(name, name) for name in names)


def _format_value(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, str) and value == value.strip() != "":
        return "" if value == "???" else value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _default_options() -> dict[str, str]:
    """Return the option of each group that conf/train.yaml chooses."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items() if name}


@cache
def _options_by_class(group: str) -> dict[str, list[str]]:
    """Return the options of a group by the name of the class that they extend."""
    found: dict[str, list[str]] = {}
    for name in option_names(group):
        found.setdefault(option_schema(group, name), []).append(name)
    return found


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def help_on(topic: str) -> str:
    """Return the help on a group, an option (`optimizer=muon`) or keys (`optimizer.lr`, `lr`).

    Raises UserError, with the nearest topic, if there is no such group, option or key.
    """
    group, equals, option = topic.partition("=")
    if group not in groups():
        found = [key for name in ["", *SCHEMAS, "sweep"] for key in keys(name) if _matches(key.name, group)]
        if found:
            return "\n".join(_lines(found))
        known = [*groups(), *(key.name for name in ["", *SCHEMAS, "sweep"] for key in keys(name))]
        raise UserError(f"no help on {topic}: give a group or a key, e.g. --help optimizer{did_you_mean(group, known)}")
    names = option_names(group)
    if equals and option not in names:
        raise UserError(f"{group} has no option {option}{did_you_mean(option, names)}")
    if equals:
        path = CONF / group / f"{option}.yaml"
        return f"{topic}: {describe(path)}\n\n{path.read_text(encoding='utf-8').rstrip()}"
    lines = [f"{group}: {meanings(Config).get(group) or ABOUT[group]}", ""]
    default_option = _default_options().get(group)
    starts = {name: f"  {group}={name}{'  (default)' if name == default_option else ''}" for name in names}
    width = min(44, max(map(len, starts.values())) + 2)
    for name, start in starts.items():
        lines += _entry(start, describe(CONF / group / f"{name}.yaml"), width)
    if group in SCHEMAS or group == "sweep":
        lines += ["", "Keys and their default values:", "", *_lines(keys(group))]
    return "\n".join(lines)


ABOUT = {"experiment": "a named combination of options and keys", "sweep": "several runs with one command"}


def _matches(name: str, topic: str) -> bool:
    return name == topic or name.startswith(f"{topic}.") or name.rpartition(".")[2] == topic


def _lines(rows: list[Key]) -> Iterator[str]:
    """Yield a line for each key, and more lines for a long meaning."""
    width = min(44, max(len(f"{key.name}={key.default}") for key in rows) + 4)
    for key in rows:
        yield from _entry(f"  {key.name}={key.default}", f"{key.explanation()} ({key.type})", width)


def _entry(start: str, text: str, width: int) -> Iterator[str]:
    """Yield lines with `start` at the left and `text` from column `width` on."""
    if len(start) > width - 2:
        yield start
        start = ""
    yield from textwrap.wrap(text, WIDTH, initial_indent=start.ljust(width), subsequent_indent=" " * width)


INTRO = """\
# Configuration

This page lists every setting with its default and meaning. `make docs` generates it from the comments in the code.
`python train.py --help optimizer` prints one section of it, `--help optimizer.lr` one key.

Set a key with `key=value`, and choose an option of a group with `group=option`:

```
python train.py model=small optimizer=muon optimizer.lr=0.01 trainer.max_steps=5000
python train.py model=small --cfg job     # print the whole configuration, run nothing
```

The default of a key is its value if you choose nothing (`model=tiny`, `corpus=shakespeare`, ...). The files
under `conf/` show what each option changes."""


def markdown() -> str:
    """Return docs/configuration.md."""
    lines = [INTRO]
    for group in ["", *[name for name in groups() if name in SCHEMAS or name == "sweep"]]:
        title = f"`{group}`: {meanings(Config)[group]}" if group else "At the top"
        lines += ["", f"## {title}", "", "| key | default | type | meaning |", "|---|---|---|---|"]
        for key in keys(group):
            cells = [f"`{key.name}`", f"`{key.default}`" if key.default else "", key.type, key.explanation()]
            lines.append("| " + " | ".join(re.sub(r"([|<])", r"\\\1", cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
