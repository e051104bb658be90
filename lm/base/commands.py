"""Build commands that users can paste into a shell, quoted for the shell and for Hydra's override grammar."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_NAME = re.compile(r"(?!.*\.\.)\w[\w.+=@ /-]*")  # valid values of name=: a path below outputs/

# Text that needs no quotes in Hydra's grammar, unless it looks like a number, boolean or null (OTHER_TYPES).
PLAIN = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/.%@+-]*")
OTHER_TYPES = re.compile(r"true|false|null|nan|inf|[0-9_]*[.]?[0-9_]*(e[+-]?[0-9_]+)?", re.IGNORECASE)


def shell(*words: object) -> str:
    """Return a command line that a shell splits into exactly these words."""
    return shlex.join(map(str, words))


def override(key: str, value: object) -> str:
    """Return `key=value`, quoted so that Hydra reads back exactly this number, boolean or text.

    In Hydra's quoted strings a backslash is literal except before a quote. OmegaConf reads `${` as an interpolation.
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
    return shell(python(), checkout_path("train.py"), *config_flags(sys.argv), *overrides)


def resume(directory: Path, overrides: Iterable[str], changes: Mapping[str, object]) -> str:
    """Return the command that resumes the run in `directory` with its original overrides and some changes to them.

    A job of a sweep is resumed as a single run. A run that is not in outputs/ of the current directory is named by
    hydra.run.dir instead of name.
    """
    horizon = ("trainer.max_",) if any(key.startswith("trainer.max_") for key in changes) else ()
    dropped = {"name", "sweep", "hydra.run.dir", *changes}
    remaining = []
    for word in overrides:
        key = re.split("[=@]", word.lstrip("+~"), maxsplit=1)[0]
        if key not in dropped and not key.startswith(("sweep.", *horizon)):
            remaining.append(word)
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - does not resolve links
    outputs = Path.cwd() / "outputs"
    name = str(directory.relative_to(outputs)) if directory.is_relative_to(outputs) else ""
    if RUN_NAME.fullmatch(name):
        location = override("name", name)
    else:
        location = override("hydra.run.dir", shortest_path(directory))
    return train([location, *remaining, *(override(key, value) for key, value in changes.items())])


def script(verb: str, *words: object) -> str:
    """Return the command that runs scripts/<verb>.py with these arguments, from the current directory."""
    return shell(python(), checkout_path(f"scripts/{verb}.py"), *words)


def tool(name: str, module: str, *words: object) -> str:
    """Return the command that runs a tool of this environment, as `python -m module` if it is not on the PATH."""
    return shell(name, *words) if _on_path(name) else shell(python(), "-m", module, *words)


def install(*requirements: str) -> str:
    """Return the command that installs packages into this environment; `.[name]` is an extra of this project."""
    packages = [checkout_path("") + r.removeprefix(".") if r.startswith(".[") else r for r in requirements]
    editable = ["-e"] if any(r.startswith(".[") for r in requirements) else []
    return shell(python(), "-m", "pip", "install", *editable, *packages)


def python() -> str:
    """Return the name of this interpreter for a command line: `python` if the PATH leads to it, otherwise its path."""
    return "python" if _on_path("python") else shortest_path(Path(sys.executable))


def checkout_path(name: str) -> str:
    """Return the path of a file in this checkout, as seen from the current directory."""
    return shortest_path(ROOT / name)


def shortest_path(path: Path) -> str:
    """Return a path relative to the current directory if it is below it, otherwise an absolute path."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a virtual environment's links to its base
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def config_flags(typed: Sequence[str]) -> list[str]:
    """Return Hydra's flags in `typed` that select the config directory or file, which the overrides may depend on."""
    names = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
    flags = []
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        if word.partition("=")[0] in names and Path(typed[0]).name == "train.py":
            flags += [word] if "=" in word else [word, following]
    return flags


def _on_path(name: str) -> bool:
    """Tell whether the PATH leads to this command in the environment of the running interpreter."""
    path = shutil.which(name)
    return path is not None and Path(path).absolute().parent == Path(sys.executable).absolute().parent
