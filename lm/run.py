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
from typing import Any

import yaml

from lm import __version__, owner
from lm.files import write_text
from lm.hardware import is_main_process

log = logging.getLogger("lm")

# What may change when a run goes on: how long, on which hardware, and what is shown or kept of it.
FREE = (
    "name", "init_from", "device", "attention.", "callbacks.", "logger.", "trainer.max_", "trainer.accelerator",
    "trainer.devices", "trainer.log_every", "trainer.save_every", "trainer.val_every", "trainer.peak_tflops",
    "trainer.on_nonfinite", "trainer.check_memory", "trainer.deterministic", "trainer.fork", "data.micro_batch_size",
    "data.num_workers", "data.root",
    "data.offline", "data.mirror",
    "corpus.licence", "corpus.path", "corpus.val_path", "corpus.train.urls", "corpus.val.urls", "corpus.test.urls",
    "corpus.whole_documents",
)  # fmt: skip


# What a fork may have otherwise than the run that it leaves, which holds all else of it.
FORKED = (*FREE, "schedule.", "loss.", "trainer.", "optimizer.lr", "optimizer.grad_clip")

# What a change of FREE keys does to the rest of a run, where it does something.
EFFECTS = {
    "data.micro_batch_size trainer.devices": "the same batches in other portions: sums round otherwise, dropout falls "
    "otherwise",
    "device trainer.accelerator attention. trainer.deterministic": "other kernels, which round otherwise",
    "trainer.val_every": "early stopping, a plateau and best.ckpt see other validations",
}


class Interrupted(BaseException):
    """The run was asked to stop, and has saved. `status` is what the process exits with: 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


class Pruned(Exception):
    """A search has seen enough of the run (lm/callbacks/pruning.py)."""


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
        """Raises ValueError when the run was trained on another text than the one with this digest."""
        if self.record.get("text", digest) != digest:
            raise ValueError(
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

    `usual` holds the defaults: what a run did whose version did not know a choice yet. Raises ValueError, with the
    difference, when that one was trained with another config, FREE keys aside; of a fork's origin, FORKED keys. A
    directory without a checkpoint has nothing to lose and is started anew.
    """
    run = Run(directory, config, {})
    if any(directory.glob("checkpoints/*.ckpt")):
        run.record = read_record(directory / "run.json")
        old = read_config(directory / "config.yaml")
        if old.get("tokenizer") == {"kind": "InitFrom"}:  # where it began is history, typed again or not
            run.config = config = config | {"tokenizer": old["tokenizer"], "init_from": old["init_from"]}
        changes = difference(old, config, usual or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(FREE)}:
            raise ValueError(
                f"{directory} was trained with another config; to continue it, type what it was trained with, "
                f"or choose another name=\n{table(refused)}"
            )
        if changes:
            log.info("continuing with changes:\n%s", "\n".join([table(changes), *effects(changes)]))
            run.record["status"] = "changed"  # finished by its old config perhaps, but not by this one
    elif fork is not None:
        old = read_config(fork.parent.parent / "config.yaml")
        changes = difference(old, config, usual or {})
        if refused := {key: pair for key, pair in changes.items() if not key.startswith(FORKED)}:
            raise ValueError(
                f"trainer.fork={fork} may go on with another schedule, rate, loss or horizon, and what may always "
                f"change; not with this (init_from= takes the weights alone):\n{table(refused)}"
            )
        run.record["forked_from"] = str(fork)
    return run


def effects(changes: dict[str, Any]) -> list[str]:
    return [
        f"  {', '.join(changed)}: {effect}"
        for keys, effect in EFFECTS.items()
        if (changed := [key for key in changes if key.startswith(tuple(keys.split()))])
    ]


def read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"{path} is missing, which says how the run was trained")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to go on without its record") from error


def state(directory: Path, record: dict[str, Any]) -> str:
    """preparing | running | paused | killed, or how the record says that it ended."""
    said = record.get("status", "not begun")
    if living := owner.living(directory):
        return "paused" if living.paused else "preparing" if said == "not begun" else "running"
    return "killed" if said == "running" else said


def environment() -> dict[str, Any]:
    """What a run depends on beside its config and text: code and versions."""
    names = ("torch", "lightning", "hydra-core", "omegaconf", "tokenizers", "numpy")
    versions = {"lm": __version__, "python": platform.python_version()} | {name: version(name) for name in names}
    return {"git_commit": git("rev-parse", "HEAD"), "git_diff": git_diff(), "versions": versions}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'n_layer': 4}} -> {'model.n_layer': 4}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def difference(old: dict[str, Any], new: dict[str, Any], usual: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (old value, new value), of every key in which two configs differ."""
    b = flatten(new)
    a = {key: value for key, value in flatten(usual).items() if key in b} | flatten(old)
    return {key: (a.get(key), b.get(key)) for key in (a | b) if a.get(key) != b.get(key)}


def table(changes: dict[str, tuple[Any, Any]]) -> str:
    rows = [(key, f"was {old}", f"now {new}") for key, (old, new) in changes.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def git(*command: str) -> str | None:
    """What git says of this checkout; None outside git."""
    try:
        root = str(Path(__file__).parents[1])
        return subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def git_diff() -> str | None:
    """A hash of what differs from the commit in the files it knows; None where nothing does, and outside git."""
    diff = git("diff", "HEAD")
    return hashlib.sha256(diff.encode()).hexdigest()[:20] if diff else None
