"""Commands that people can paste: quoted for the shell, and for Hydra's grammar of overrides."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_NAME = re.compile(r"(?!.*\.\.)\w[\w.+=@ /-]*")  # what name= takes: a path below outputs/

# Text that Hydra's grammar reads as itself without quotes, as long as it looks like no number, boolean or null.
PLAIN = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/.%@+-]*")
OTHER_TYPES = re.compile(r"true|false|null|nan|inf|[0-9_]*[.]?[0-9_]*(e[+-]?[0-9_]+)?", re.IGNORECASE)


def shell(*words: object) -> str:
    """Return one line that a shell splits into exactly these words."""
    return shlex.join(map(str, words))


def override(key: str, value: object) -> str:
    """Return `key=value` so that Hydra gives the key this very number, boolean or text.

    Hydra's quoted strings take a backslash as itself, except before a quote; OmegaConf takes `${` as an interpolation.
    """
    text = str(value)
    if isinstance(value, bool | int | float):
        return f"{key}={text.lower()}"
    if PLAIN.fullmatch(text) and not OTHER_TYPES.fullmatch(text):
        return f"{key}={text}"
    text = re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", text)
    text = re.sub(r"(\\+)\Z", lambda m: 2 * m[1], re.sub(r"(\\*)'", lambda m: 2 * m[1] + r"\'", text))
    return f"{key}='{text}'"


def train(overrides: Iterable[str]) -> str:
    """Return the command that runs train.py with these overrides, from the current directory."""
    return shell(python(), find_executable("train.py"), *config_flags(sys.argv), *overrides)


def resume(directory: Path, overrides: Iterable[str], changes: Mapping[str, object]) -> str:
    """Return the command that resumes the run in `directory`, with the overrides as they were typed and some changed.

    A job of a sweep is resumed as a single run. A run that is not in outputs/ of the current directory needs
    hydra.run.dir.
    """
    horizon = ("trainer.max_",) if any(key.startswith("trainer.max_") for key in changes) else ()
    dropped = {"name", "sweep", "hydra.run.dir", *changes}
    kept = []
    for typed in overrides:
        key = re.split("[=@]", typed.lstrip("+~"), maxsplit=1)[0]
        if key not in dropped and not key.startswith(("sweep.", *horizon)):
            kept.append(typed)
    directory, outputs = Path(os.path.abspath(directory)), Path.cwd() / "outputs"  # noqa: PTH100 - links stay
    name = str(directory.relative_to(outputs)) if directory.is_relative_to(outputs) else ""
    place = override("name", name) if RUN_NAME.fullmatch(name) else override("hydra.run.dir", shortest_path(directory))
    return train([place, *kept, *(override(key, value) for key, value in changes.items())])


def script(verb: str, *words: object) -> str:
    """Return the command that runs scripts/<verb>.py with these words, from the current directory."""
    return shell(python(), find_executable(f"scripts/{verb}.py"), *words)


def tool(name: str, module: str, *words: object) -> str:
    """Return the command that runs a tool of this environment, as a module where a shell would not find its name."""
    return shell(name, *words) if _found(name) else shell(python(), "-m", module, *words)


def install(*requirements: str) -> str:
    """Return the command that installs packages into this environment; `.[name]` is an extra of this project."""
    found = [find_executable("") + r.removeprefix(".") if r.startswith(".[") else r for r in requirements]
    editable = ["-e"] if any(r.startswith(".[") for r in requirements) else []
    return shell(python(), "-m", "pip", "install", *editable, *found)


def python() -> str:
    """Return what to type for this interpreter: `python` where that is the one a shell finds."""
    return "python" if _found("python") else shortest_path(Path(sys.executable))


def find_executable(name: str) -> str:
    """Return the path of a file of this checkout, from the current directory."""
    return shortest_path(ROOT / name)


def shortest_path(path: Path) -> str:
    """Return the path as it is typed from the current directory: relative where it lies below, otherwise absolute."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would leave a virtual environment for its base
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def config_flags(typed: Sequence[str]) -> list[str]:
    """Return those of Hydra's flags that were typed and say where configs are: overrides may need them."""
    names = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
    found = []
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        if word.partition("=")[0] in names and Path(typed[0]).name == "train.py":
            found += [word] if "=" in word else [word, following]
    return found


def _found(name: str) -> bool:
    """Tell whether a shell finds this command in the environment of the running interpreter."""
    path = shutil.which(name)
    return path is not None and Path(path).absolute().parent == Path(sys.executable).absolute().parent
