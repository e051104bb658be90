"""Every key of the configuration with its type, default and meaning, for `--help` and for docs/configuration.md."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.config.help import CONF, describe
from lm.config.schema import SCHEMAS, Config

FIELD = re.compile(r"    (\w+): .*?(?:  # (.*))?")
PLAIN = {"str": "text", "bool": "true or false", "int": "integer", "float": "number", "list[str]": "list", "Any": "any"}
WIDTH = 118
MANY = 8  # options are not listed if there are this many


@dataclass
class Key:
    name: str  # dotted, as it is typed
    type: str
    default: str
    meaning: str
    options: list[str]  # of the group, that have this key; empty: all of them
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
    """Return the comment of each field of a dataclass: behind the field, above it, or that of its base class."""
    found: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            if line.startswith("    # "):
                above.append(line.removeprefix("    # "))
                continue
            if (match := FIELD.fullmatch(line)) and (said := match[2] or " ".join(above)):
                found[match[1]] = said
            above = []
    return found


def keys(group: str) -> list[Key]:
    """Return the keys of a group; "" stands for the keys at the top, such as `name` and `seed`.

    The default is that of the option that is used if none is chosen, e.g. model=tiny.
    """
    if not group:
        return list(_of_class(Config, "", {}, []))
    if group == "sweep":
        return list(_of_class(type(Config().sweep), "sweep.", {}, []))
    chosen, classes = _default_options().get(group, ""), _options_by_class(group)
    found: dict[tuple[str, str], Key] = {}
    # the class of the default option first: its defaults are what a user gets without choosing
    for cls in sorted(SCHEMAS[group], key=lambda cls: chosen not in classes.get(cls.__name__, [])):
        options = classes.get(cls.__name__, [])
        values = _values(group, chosen) if chosen in options else {}
        for key in _of_class(cls, f"{group}.", values, options):
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


def _of_class(cls: type, prefix: str, values: dict[str, Any], options: list[str]) -> Iterator[Key]:
    for part in fields(cls):
        if part.name in SCHEMAS or (not prefix and part.name == "sweep"):
            continue  # a group
        default = _default(part)
        if is_dataclass(default):
            yield from _of_class(type(default), f"{prefix}{part.name}.", values.get(part.name, {}), list(options))
            continue
        value = values.get(part.name, default)
        if str(value).startswith("${"):  # it follows another key
            value = default
        yield Key(prefix + part.name, _type(part), _written(value), meanings(cls).get(part.name, ""), list(options))


def _default(part: Field[Any]) -> Any:
    return part.default_factory() if part.default_factory is not MISSING else part.default


def _type(part: Field[Any]) -> str:
    names = [name.strip() for name in str(part.type).split("|")]
    return " or ".join("null" if name == "None" else PLAIN.get(name, name) for name in names)


def _written(value: Any) -> str:
    """Return a value as it is typed."""
    if isinstance(value, str) and value == value.strip() != "":
        return "" if value == "???" else value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _default_options() -> dict[str, str]:
    """Return the option of each group that conf/train.yaml chooses."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items() if name}


def _values(group: str, option: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))


def _paths(group: str) -> list[Path]:
    return sorted((CONF / group).rglob("*.yaml"))


def _name(path: Path, group: str) -> str:
    return path.relative_to(CONF / group).with_suffix("").as_posix()


@cache
def _options_by_class(group: str) -> dict[str, list[str]]:
    """Return the options of a group, by the name of the class that each extends."""
    found: dict[str, list[str]] = {}
    for path in _paths(group):
        base = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"][0]
        found.setdefault(base, []).append(_name(path, group))
    return found


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def help_on(topic: str) -> str:
    """Return the help on a group, an option (`optimizer=muon`) or keys (`optimizer.lr`, `lr`).

    Raises UserError, with the nearest topic, for what is none of them.
    """
    group, equals, option = topic.partition("=")
    if group not in groups():
        found = [key for name in ["", *SCHEMAS, "sweep"] for key in keys(name) if _matches(key.name, group)]
        if found:
            return "\n".join(_lines(found))
        known = [*groups(), *(key.name for name in ["", *SCHEMAS, "sweep"] for key in keys(name))]
        raise UserError(f"no help on {topic}: name a group or a key, e.g. --help optimizer{did_you_mean(group, known)}")
    names = [_name(path, group) for path in _paths(group)]
    if equals and option not in names:
        raise UserError(f"{group} has no option {option}{did_you_mean(option, names)}")
    if equals:
        path = CONF / group / f"{option}.yaml"
        return f"{topic}: {describe(path)}\n\n{path.read_text(encoding='utf-8').rstrip()}"
    lines = [f"{group}: {meanings(Config).get(group) or ABOUT[group]}", ""]
    shown = {name: f"  {group}={name}" + "  (default)" * (name == _default_options().get(group)) for name in names}
    width = min(44, max(map(len, shown.values())) + 2)
    for name, begin in shown.items():
        lines += _entry(begin, describe(CONF / group / f"{name}.yaml"), width)
    if group in SCHEMAS or group == "sweep":
        lines += ["", "Keys, with the values they have by default:", "", *_lines(keys(group))]
    return "\n".join(lines)


ABOUT = {"experiment": "a named combination of options and keys", "sweep": "several runs by one command"}


def _matches(name: str, topic: str) -> bool:
    return name == topic or name.startswith(f"{topic}.") or name.rpartition(".")[2] == topic


def _lines(rows: list[Key]) -> Iterator[str]:
    """Yield a line for each key, with more lines for a long meaning."""
    width = min(44, max(len(f"{key.name}={key.default}") for key in rows) + 4)
    for key in rows:
        yield from _entry(f"  {key.name}={key.default}", f"{key.explanation()} ({key.type})", width)


def _entry(begin: str, text: str, width: int) -> Iterator[str]:
    """Yield lines with `begin` at the left and `text` from column `width` on."""
    if len(begin) > width - 2:
        yield begin
        begin = ""
    yield from textwrap.wrap(text, WIDTH, initial_indent=begin.ljust(width), subsequent_indent=" " * width)


INTRO = """\
# Configuration

After reading this page you can find any setting, its default, and what it does. `make docs` writes the page from the
comments in the code. `python train.py --help optimizer` prints a part of it, `--help optimizer.lr` one key.

Set a key with `key=value`, choose an option of a group with `group=option`:

```
python train.py model=small optimizer=muon optimizer.lr=0.01 trainer.max_steps=5000
python train.py model=small --cfg job     # print the whole configuration, run nothing
```

The default of a key is the value it has if you choose nothing (`model=tiny`, `corpus=shakespeare`, ...). The files
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


def help_for(topics: list[str]) -> str:
    """Return what `--help` prints on topics. Raises UserError for what is none."""
    return "\n\n".join(map(help_on, topics))
