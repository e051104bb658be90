"""Gate one in a user's words: what was typed, what is wrong with it, the nearest thing that exists."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from lm.base import commands
from lm.base.checks import did_you_mean
from lm.base.console import protect_console
from lm.base.errors import UserError
from lm.config.aliases import alias
from lm.config.help import CONF, help_text
from lm.config.reference import help_for
from lm.config.schema import SCHEMAS, Config
from lm.config.typed import keep_typed
from lm.run.directory import Pruned
from lm.run.lock import Owned

USER_ERRORS = (HydraException, OmegaConfBaseException, UserError, OSError)


# What to install for a launcher, by how its name begins: they are no dependencies.
LAUNCHERS = {"joblib": ".[sweep]", "submitit": "hydra-submitit-launcher", "ray": "hydra-ray-launcher"}


class Refused(SystemExit):
    """A user's error, its cause, on the way out of a single run; Hydra adds words of its own to an Exception."""


def run(main: Callable[[], None]) -> None:
    """Run a @hydra.main function; what a user got wrong ends with one message and status 1, without a traceback.

    LM_TRACEBACK=1 or HYDRA_FULL_ERROR=1 shows the traceback too. Other errors always show theirs.
    """
    protect_console()
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own would copy every config twice first
        show_help([word for word in sys.argv[1:] if not word.startswith("-")])
    for typed in sys.argv[1:]:
        if re.match("--(?!config|cfg|info|package|experimental)[^=]*=", typed):
            print(f"error: {typed}: settings are typed without dashes, e.g. model.n_layer=8", file=sys.stderr)
            sys.exit(1)
    sys.argv[1:] = keep_typed(sys.argv[1:], Config, SCHEMAS)
    # Hydra takes flags before or after the overrides; people type -m in between as well
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda typed: typed not in ("-m", "--multirun"))
    asked = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, instead of printing its own words
    try:
        main()
    except (Refused, *USER_ERRORS) as raised:
        error = raised.__cause__ or raised if isinstance(raised, Refused) else raised
        if asked == "1" or os.environ.get("LM_TRACEBACK") == "1":
            raise error from None
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # between two jobs of a sweep
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = asked


def show_help(topics: list[str]) -> None:
    """Print the help on the topics, or the overview, and exit."""
    if not topics:
        print(help_text())
        sys.exit(0)

    try:
        print(help_for(topics))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


@contextmanager
def handle_job_errors() -> Iterator[None]:
    """Around the body of a @hydra.main function: a refused job leaves no directory behind.

    Alone it ends the process; in a sweep only the job fails.
    """
    hydra = HydraConfig.get()
    protect_console()  # once more: a launcher may have started this process
    try:
        yield
    except KeyboardInterrupt:  # before training, which has a handler of its own
        remove_empty_directory(Path(hydra.runtime.output_dir))
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if not isinstance(error, Owned):  # then the directory is another's
            remove_empty_directory(Path(hydra.runtime.output_dir))
        if hydra.mode == RunMode.MULTIRUN:
            print(f"error in job {hydra.job.num}: {explain(error)}", file=sys.stderr)
            raise
        raise Refused(1) from error
    except Pruned:
        raise
    except Exception:
        if hydra.mode == RunMode.MULTIRUN:  # which goes on, and would not show what nobody foresaw
            traceback.print_exc()
        raise


def remove_empty_directory(directory: Path) -> None:
    """Take back what Hydra made for a run that did not begin."""
    if not (directory / "config.yaml").exists():
        (directory / "train.log").unlink(missing_ok=True)
        with suppress(OSError, ValueError):  # not empty: then it is not ours to remove
            directory.rmdir()
            for folder in directory.relative_to(Path.cwd()).parents[:-1]:
                folder.rmdir()


def explain(error: BaseException) -> str:
    """One readable message for an error of Hydra's, OmegaConf's or ours."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for cause in chain:
        if isinstance(cause, MissingConfigException) and (
            "hydra/" in str(cause.missing_cfg_file) or cause.options is not None
        ):
            return unknown_option(cause)
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return bad_key(cause) + source_file(chain)
    if isinstance(error, HydraException):
        return hydra_message(str(error))
    return str(error)


def unknown_option(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file)
    if missing.startswith("hydra/"):
        group, _, option = missing.rpartition("/")
        plugin = option.partition("_")[0]
        if plugin in LAUNCHERS:
            return f"{group}={option} is not installed: {commands.install(LAUNCHERS[plugin])}"
        return f"{group}={option} is no option{did_you_mean(option, list(LAUNCHERS))}"
    group, _, option = missing.partition("/")
    files = (path.relative_to(CONF / group) for path in sorted((CONF / group).rglob("*.yaml")))
    options = [path.with_suffix("").as_posix() for path in files]
    family = [o for o in options if o.startswith(f"{option.partition('/')[0]}/")]
    shown = family or sorted({o if "/" not in o else f"{o.partition('/')[0]}/..." for o in options})
    hint = did_you_mean(option, options)
    return f"{group}={option}: there is no such option; {group} is one of {', '.join(shown)}{hint}"


def bad_key(error: OmegaConfBaseException) -> str:
    """A key that no schema has, or a value of the wrong type."""
    key, owner = str(error.full_key), error.object_type
    first = str(error.msg or error).split("\n")[0]
    if is_dataclass(owner) and re.match(r"Key '.*' not in ", first):
        return unknown_key(key, [field.name for field in fields(owner)])
    return f"{key}: {first[0].lower()}{first[1:]}"


def unknown_key(key: str, known: list[str]) -> str:
    """What to type instead of a dotted key whose last part is none of the `known` ones."""
    parent, dot, name = key.rpartition(".")
    hint = (
        alias(key)
        or find_key(parent, name)
        or did_you_mean(name, known, parent + dot)
        or "; there are " + ", ".join(known)
    )
    return f"unknown key {key}{hint}"


def find_key(group: str, name: str) -> str:
    """Where a key that stands in the wrong place belongs: corpus.path to corpus=text, lr to optimizer.lr."""
    for folder in [CONF / group] if group else sorted(path for path in CONF.iterdir() if path.is_dir()):
        having = []
        for option in sorted(folder.glob("*.yaml")):
            schema = (yaml.safe_load(option.read_text(encoding="utf-8")).get("defaults") or [None])[0]
            if (
                str(schema).endswith("Config")
                and name in ConfigStore.instance().load(f"{folder.name}/{schema}.yaml").node
            ):
                having.append(option.stem)
        if having:
            return f"; {group}={'|'.join(having)} has it" if group else f"; did you mean '{folder.name}.{name}'?"
    return ""


def source_file(chain: list[BaseException]) -> str:
    """Which file of conf/ the error stands in, when it was not typed."""
    match = re.search(r"In '([^']+)'", " ".join(map(str, chain)))
    return f" (in conf/{match[1]}.yaml)" if match else ""


def hydra_message(text: str) -> str:
    """Hydra's own words without its pointers to its documentation."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("See http")]
    if "No match in the defaults list" in text and (match := re.search(r"Could not override '([^']+)'", text)):
        return f"unknown group {match[1]}"
    if text.startswith(("LexerNoViableAlt", "token recognition", "mismatched input", "no viable", "extraneous")):
        return (
            f"a value has characters that Hydra takes for its grammar ({text.splitlines()[0]}); quote it inside the "
            "shell's quotes, e.g. 'corpus.path=\"my file (1).txt\"'"
        )
    if "missing EQUAL" in text and (match := re.search(r"override '([^']*)'", text)):
        return f"'{match[1]}' sets nothing; type key=value, e.g. model=small or optimizer.lr=1e-3"
    return "\n".join(lines)
