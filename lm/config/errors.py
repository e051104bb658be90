"""Turn errors of the configuration into messages: what was typed, what is wrong, and the nearest valid name."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

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
from lm.config.help import CONF, help_text, option_names, option_schema
from lm.config.reference import help_on
from lm.config.schema import SCHEMAS, Config
from lm.config.typed import quote_text
from lm.run.directory import Pruned
from lm.run.lock import RunLocked

USER_ERRORS = (HydraException, OmegaConfBaseException, UserError, OSError)

# The packages of the launchers, by the first part of their names; they are optional dependencies.
LAUNCHERS = {"joblib": ".[sweep]", "submitit": "hydra-submitit-launcher", "ray": "hydra-ray-launcher"}


class Refused(SystemExit):
    """Exit of a single run; `__cause__` is the user's error. To an Exception Hydra would add its own text."""


def run(main: Callable[[], None]) -> None:
    """Run a @hydra.main function and show errors that a user can fix as one message, with exit status 1.

    LM_TRACEBACK=1 or HYDRA_FULL_ERROR=1 shows the traceback too. Other errors always show their traceback.
    """
    protect_console()
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises the error instead of printing its own message
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own help would first copy every config twice
            print_help([word for word in sys.argv[1:] if not word.startswith("-")])
            sys.exit(0)
        sys.argv[1:] = prepare_arguments(sys.argv[1:])
        main()
    except (Refused, ValueError, *USER_ERRORS) as raised:
        if not isinstance(raised, (Refused, *USER_ERRORS)) and not raised_by_hydra(raised):
            raise
        error = raised.__cause__ or raised if isinstance(raised, Refused) else raised
        if full_error == "1" or os.environ.get("LM_TRACEBACK") == "1":
            raise error from None
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # between two jobs of a sweep
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = full_error


def raised_by_hydra(error: BaseException) -> bool:
    """Tell whether Hydra raised the error: for some malformed overrides, such as `=3`, it raises a plain ValueError."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").split(".")[0] in ("hydra", "omegaconf")


def print_help(topics: list[str]) -> None:
    """Print the help on the topics, or the overview if there are none. Raises UserError for an unknown topic."""
    print("\n\n".join(map(help_on, topics)) if topics else help_text())


def prepare_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments as Hydra reads them. Raises UserError for a setting with dashes."""
    for word in arguments:
        if re.match("--(?!config|cfg|info|package|experimental)[^=]*=", word):
            raise UserError(f"{word}: write settings without dashes, e.g. model.n_layer=8")
    # Hydra takes flags before or after the overrides; people type -m in between as well
    return sorted(quote_text(arguments, Config, SCHEMAS), key=lambda word: word not in ("-m", "--multirun"))


@contextmanager
def handle_job_errors() -> Iterator[None]:
    """Wrap the body of a @hydra.main function: remove the directory of a job that fails before it starts.

    A user's error ends the process of a single run; in a sweep only the job fails.
    """
    hydra = HydraConfig.get()
    protect_console()  # again, because a launcher may have started this process
    try:
        yield
    except KeyboardInterrupt:  # before training, which has its own handler
        remove_empty_directory(Path(hydra.runtime.output_dir))
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if not isinstance(error, RunLocked):  # else the directory belongs to another process
            remove_empty_directory(Path(hydra.runtime.output_dir))
        if hydra.mode == RunMode.MULTIRUN:
            print(f"error in job {hydra.job.num}: {explain(error)}", file=sys.stderr)
            raise
        raise Refused(1) from error
    except Pruned:
        raise
    except Exception:
        if hydra.mode == RunMode.MULTIRUN:  # a sweep continues and would not show the traceback
            traceback.print_exc()
        raise


def remove_empty_directory(directory: Path) -> None:
    """Remove the directory that Hydra created for a run that did not start."""
    if not (directory / "config.yaml").exists():
        (directory / "train.log").unlink(missing_ok=True)
        with suppress(OSError, ValueError):  # a directory with other files stays
            directory.rmdir()
            for folder in directory.relative_to(Path.cwd()).parents[:-1]:
                folder.rmdir()


def explain(error: BaseException) -> str:
    """Return a readable message for an error of Hydra, OmegaConf or this project."""
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
    """Return the message for an option that does not exist, with the options of its group."""
    missing = str(error.missing_cfg_file)
    if missing.startswith("hydra/"):
        group, _, option = missing.rpartition("/")
        plugin = option.partition("_")[0]
        if plugin in LAUNCHERS:
            return f"{group}={option} is not installed: {commands.install(LAUNCHERS[plugin])}"
        return f"{group}={option} is not an option{did_you_mean(option, list(LAUNCHERS))}"
    group, _, option = missing.partition("/")
    options = option_names(group)
    family = [o for o in options if o.startswith(f"{option.partition('/')[0]}/")]
    choices = family or sorted({o if "/" not in o else f"{o.partition('/')[0]}/..." for o in options})
    hint = did_you_mean(option, options)
    return f"{group}={option}: there is no such option; {group} is one of {', '.join(choices)}{hint}"


def bad_key(error: OmegaConfBaseException) -> str:
    """Return the message for a key that no schema has, or for a value of the wrong type."""
    key, owner = str(error.full_key), error.object_type
    first = str(error.msg or error).split("\n")[0]
    if is_dataclass(owner) and re.match(r"Key '.*' not in ", first):
        return unknown_key(key, [field.name for field in fields(owner)])
    return f"{key}: {first[0].lower()}{first[1:]}"


def unknown_key(key: str, known: list[str]) -> str:
    """Return the message for a dotted key whose last part is not one of the `known` keys."""
    parent, dot, name = key.rpartition(".")
    hint = (
        alias(key)
        or find_key(parent, name)
        or did_you_mean(name, known, parent + dot)
        or "; known keys: " + ", ".join(known)
    )
    return f"unknown key {key}{hint}"


def find_key(group: str, name: str) -> str:
    """Suggest where a misplaced key belongs: corpus.path needs corpus=text, and lr is optimizer.lr."""
    store = ConfigStore.instance()
    for folder in [group] if group else sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        options = [
            option
            for option in option_names(folder)
            if "/" not in option
            and (schema := option_schema(folder, option))
            and name in store.load(f"{folder}/{schema}.yaml").node
        ]
        if options:
            return f"; it needs {group}={'|'.join(options)}" if group else f"; did you mean '{folder}.{name}'?"
    return ""


def source_file(chain: list[BaseException]) -> str:
    """Return the file of conf/ that contains the error, or an empty string if it is on the command line."""
    match = re.search(r"In '([^']+)'", " ".join(map(str, chain)))
    return f" (in conf/{match[1]}.yaml)" if match else ""


def hydra_message(text: str) -> str:
    """Return Hydra's own message in plain words, or without the links to its documentation."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("See http")]
    if "No match in the defaults list" in text and (match := re.search(r"Could not override '([^']+)'", text)):
        return f"unknown group {match[1]}"
    if text.startswith(("LexerNoViableAlt", "token recognition", "mismatched input", "no viable", "extraneous")):
        return (
            f"a value contains characters that Hydra's grammar reserves ({text.splitlines()[0]}); quote it inside the "
            "shell's quotes, e.g. 'corpus.path=\"my file (1).txt\"'"
        )
    if "missing EQUAL" in text and (match := re.search(r"override '([^']*)'", text)):
        return f"'{match[1]}' is not a setting; use key=value, e.g. model=small or optimizer.lr=1e-3"
    return "\n".join(lines)
