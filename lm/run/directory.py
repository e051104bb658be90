"""The run directory: one config for life, and run.json, the record of what was done there."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from lm import __version__
from lm.base.errors import UserError
from lm.base.files import write_text
from lm.base.hardware import is_main_process
from lm.run import lock
from lm.run.changes import (
    CHANGEABLE_KEYS,
    FORKABLE_KEYS,
    changed_keys,
    effects,
    flatten,
    format_changes,
    restore_origin,
)

log = logging.getLogger("lm")


class Interrupted(BaseException):
    """The run was asked to stop, and has saved. `status` is what the process exits with: 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


@contextmanager
def interruptible() -> Iterator[None]:
    """Make signals that end a process raise Interrupted, so that whatever is prepared is cleaned up.

    Training has handlers of its own (lm/training/callbacks/signals.py). SIGHUP stays ignored under nohup.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)
    before = {signum: signal.signal(signum, stop) for signum in numbers}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Diverged(UserError):
    """A loss or gradient is infinite or nan: the run cannot go on."""


class Pruned(Exception):
    """A search has seen enough of the run (lm/training/callbacks/pruning.py)."""


@dataclass
class Run:
    directory: Path
    config: dict[str, Any]
    record: dict[str, Any]  # what run.json holds

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished"

    @contextmanager
    def session(self, step: int, **facts: Any) -> Iterator[None]:
        """Around the training that takes the run on from `step`; how it ends is recorded in run.json."""
        self.write("config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        command = shlex.join(["python", *sys.argv])
        session = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": command, "from_step": step}
        self.update(
            name=self.directory.name,
            status="running",
            **environment(),
            **facts,
            sessions=[*self.record.get("sessions", []), session],
        )
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # a full disk, which is the error perhaps
                status = {Interrupted: "stopped", Pruned: "pruned"}.get(type(error), "failed")
                self.update(status=status, error=str(error))
            raise
        self.update(status="finished", error=None)

    def update(self, **fields: Any) -> None:
        """Merge fields into run.json, which is always whole on disk."""
        self.record.update(fields)
        self.write("run.json", json.dumps(self.record, indent=2) + "\n")

    def require_text(self, digest: str) -> None:
        """Raises UserError when the run was trained on another text than the one with this digest."""
        if self.record.get("text", digest) != digest:
            raise UserError(
                f"{self.directory} was trained on another text than this corpus now holds; choose another name= (a run "
                "of an older version may need corpus.whole_documents=true, or its files named one by one with "
                "corpus.path)"
            )

    def write(self, name: str, text: str) -> None:
        """A file of the run, whole or not at all."""
        if is_main_process():
            write_text(self.directory / name, text)


def open_run(
    directory: Path, config: dict[str, Any], usual: dict[str, Any] | None = None, fork: Path | None = None
) -> Run:
    """The run in `directory`, to be started, continued, or forked from another's checkpoint; nothing is written yet.

    `usual` holds the defaults: what a run did whose version did not know a choice yet. Raises UserError, with the
    difference, when that one was trained with another config, FREE keys aside; of a fork's origin, FORKED keys. A
    directory without a checkpoint has nothing to lose and is started anew.
    """
    run = Run(directory, config, {})
    if has_begun(directory):
        run.record = read_record(directory / "run.json")
        old = read_config(directory / "config.yaml")
        run.config = config = restore_origin(config, old, directory)
        changes = changed_keys(old, config, usual or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(CHANGEABLE_KEYS)}:
            raise UserError(
                f"{directory} was trained with another config; to continue it, type what it was trained with, "
                f"or choose another name=\n{format_changes(refused)}"
            )
        if changes:
            log.info("continuing with changes:\n%s", "\n".join([format_changes(changes), *effects(changes)]))
            run.record["status"] = "changed"  # finished by its old config perhaps, but not by this one
    elif fork is not None:
        old = read_config(fork.parent.parent / "config.yaml")
        changes = changed_keys(old, config, usual or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(FORKABLE_KEYS)}:
            raise UserError(
                f"trainer.fork={fork} may go on with another schedule, rate, loss or horizon, and what may always "
                f"change; not with this (init_from= takes the weights alone):\n{format_changes(refused)}"
            )
        run.record["forked_from"] = str(fork)
    return run


def has_begun(directory: Path) -> bool:
    """Tell whether the directory holds a run that would be resumed."""
    return any(directory.glob("checkpoints/*.ckpt"))


def read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} is missing, which says how the run was trained")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def find_run(path: Path) -> Path | None:
    """Return the directory of the run that a checkpoint, or what was exported of it, is in."""
    return next((folder for folder in path.absolute().parents[:2] if (folder / "run.json").exists()), None)


def parses_special(directory: Path | None) -> bool:
    """Tell whether a run was trained with tokenizer.parse_special."""
    if directory is None or not (directory / "config.yaml").exists():
        return False
    return bool(flatten(read_config(directory / "config.yaml") or {}).get("tokenizer.parse_special"))


def read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); remove it to go on without its record") from error


def run_status(directory: Path, record: dict[str, Any]) -> str:
    """preparing | running | paused | killed, or how the record says that it ended."""
    said = record.get("status", "not begun")
    if living := lock.current_owner(directory):
        return "paused" if living.paused else "preparing" if said == "not begun" else "running"
    return "killed" if said == "running" else said


def environment() -> dict[str, Any]:
    """What a run depends on beside its config and text: code and versions."""
    names = ("torch", "lightning", "hydra-core", "omegaconf", "tokenizers", "numpy")
    versions = {"lm": __version__, "python": platform.python_version()} | {name: version(name) for name in names}
    return {"git_commit": git("rev-parse", "HEAD"), "git_diff": git_diff(), "versions": versions}


def git(*command: str) -> str | None:
    """What git says of this checkout; None outside git."""
    try:
        root = str(Path(__file__).parents[2])
        return subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def git_diff() -> str | None:
    """A hash of what differs from the commit in the files it knows; None where nothing does, and outside git."""
    diff = git("diff", "HEAD")
    return hashlib.sha256(diff.encode()).hexdigest()[:20] if diff else None
