"""The run directory: config.yaml, the one config of the run, and run.json, the record of its sessions."""

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
from lm.base.signals import handle_ending_signals
from lm.run import lock
from lm.run.changes import (
    CHANGEABLE_KEYS,
    FORKABLE_KEYS,
    describe_effects,
    find_changes,
    flatten,
    format_changes,
    restore_origin,
)

log = logging.getLogger("lm")


class Interrupted(BaseException):
    """The run was asked to stop and has saved a checkpoint.

    `status` is the exit status of the process: 128 + the number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted inside the block when the process is asked to end, so that cleanup runs.

    Training installs its own handlers (lm/training/callbacks/signals.py).
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    with handle_ending_signals(stop):
        yield


class Diverged(UserError):
    """A loss or gradient is infinite or NaN, so the run cannot continue."""


class Pruned(Exception):
    """A search has stopped the run early (lm/training/callbacks/pruning.py)."""


@dataclass
class Run:
    """A run directory with its config and record."""

    directory: Path
    config: dict[str, Any]
    record: dict[str, Any]  # the content of run.json

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished"

    @contextmanager
    def session(self, step: int, **facts: Any) -> Iterator[None]:
        """Record a session in run.json: training inside the block starts at `step`, and its outcome is recorded."""
        self.write("config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        command = shlex.join(["python", *sys.argv])
        session = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": command, "from_step": step}
        self.update(
            name=self.directory.name,
            status="running",
            **collect_environment(),
            **facts,
            sessions=[*self.record.get("sessions", []), session],
        )
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # the disk may be full, which may also be the error itself
                status = {Interrupted: "stopped", Pruned: "pruned"}.get(type(error), "failed")
                self.update(status=status, error=str(error))
            raise
        self.update(status="finished", error=None)

    def update(self, **fields: Any) -> None:
        """Merge fields into run.json, which is replaced atomically."""
        self.record.update(fields)
        self.write("run.json", json.dumps(self.record, indent=2) + "\n")

    def require_text(self, digest: str) -> None:
        """Raises UserError if the run was trained on a text with a different digest."""
        if self.record.get("text", digest) != digest:
            raise UserError(
                f"{self.directory} was trained on a different text than this corpus now contains; choose another name= "
                "(a run started by an older version may need corpus.whole_documents=true, or every file listed in "
                "corpus.path)"
            )

    def write(self, name: str, text: str) -> None:
        """Write a file of the run atomically, on rank 0 only."""
        if is_main_process():
            write_text(self.directory / name, text)


def open_run(
    directory: Path, config: dict[str, Any], defaults: dict[str, Any] | None = None, fork: Path | None = None
) -> Run:
    """Return the run in `directory`, to be started, resumed, or forked from another run's checkpoint.

    Nothing is written yet. A directory without a checkpoint is started from scratch. `defaults` gives the values of
    keys that did not exist in the version that started the run. Raises UserError, with the differences, if the run was
    trained with another config (except CHANGEABLE_KEYS), or if a fork differs from its origin (except FORKABLE_KEYS).
    """
    run = Run(directory, config, {})
    if has_begun(directory):
        run.record = read_record(directory / "run.json")
        old = read_config(directory / "config.yaml")
        run.config = config = restore_origin(config, old, directory)
        changes = find_changes(old, config, defaults or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(CHANGEABLE_KEYS)}:
            raise UserError(
                f"{directory} was trained with a different config; to resume it, use the values it was trained with, "
                f"or choose another name=\n{format_changes(refused)}"
            )
        if changes:
            log.info("resuming with changes:\n%s", "\n".join([format_changes(changes), *describe_effects(changes)]))
            run.record["status"] = "changed"  # it may be finished under its old config, but not under this one
    elif fork is not None:
        old = read_config(fork.parent.parent / "config.yaml")
        changes = find_changes(old, config, defaults or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(FORKABLE_KEYS)}:
            raise UserError(
                f"trainer.fork={fork}: a fork may change the schedule, learning rate, loss, number of steps and all "
                "that may change on resuming, but not the keys below. To start a new run from the weights alone, use "
                f"init_from=\n{format_changes(refused)}"
            )
        run.record["forked_from"] = str(fork)
    return run


def has_begun(directory: Path) -> bool:
    """Tell whether the directory holds a run that would be resumed."""
    return any(directory.glob("checkpoints/*.ckpt"))


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run. Raises UserError if it is missing."""
    if not path.exists():
        raise UserError(f"{path} is missing; it contains the config that the run was trained with")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def find_run(path: Path) -> Path | None:
    """Return the run directory that contains a checkpoint or an exported model, or None."""
    return next((folder for folder in path.absolute().parents[:2] if (folder / "run.json").exists()), None)


def parses_special(directory: Path | None) -> bool:
    """Tell whether a run was trained with tokenizer.parse_special."""
    if directory is None or not (directory / "config.yaml").exists():
        return False
    return bool(flatten(read_config(directory / "config.yaml") or {}).get("tokenizer.parse_special"))


def read_record(path: Path) -> dict[str, Any]:
    """Read a run.json; a missing one is an empty record. Raises UserError if it is corrupted."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is corrupted ({error}); remove it to continue without the record") from error


def run_status(directory: Path, record: dict[str, Any]) -> str:
    """Return the status of a run: preparing, running, paused, killed, or the status in its record, e.g. finished."""
    recorded = record.get("status", "not begun")
    owner = lock.current_owner(directory)
    if owner is None:
        return "killed" if recorded == "running" else recorded
    if owner.paused:
        return "paused"
    return "preparing" if recorded == "not begun" else "running"


def collect_environment() -> dict[str, Any]:
    """Return the facts that a run depends on besides its config and text: commit, uncommitted changes, versions."""
    names = ("torch", "lightning", "hydra-core", "omegaconf", "tokenizers", "numpy")
    versions = {"lm": __version__, "python": platform.python_version()} | {name: version(name) for name in names}
    return {"git_commit": run_git("rev-parse", "HEAD"), "git_diff": git_diff(), "versions": versions}


def run_git(*command: str) -> str | None:
    """Return the output of a git command in this checkout, or None outside a git repository."""
    try:
        root = str(Path(__file__).parents[2])
        return subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def git_diff() -> str | None:
    """Return a hash of the uncommitted changes to tracked files, or None if there are none or outside git."""
    diff = run_git("diff", "HEAD")
    return hashlib.sha256(diff.encode()).hexdigest()[:20] if diff else None
