"""Saving and stopping. (Lightning's ModelCheckpoint saves before the validation that falls on the same step, which a
continued run then misses, and writes the same state once for every name.)"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import rich
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from lm import checkpoint
from lm.callbacks import CheckpointConfig
from lm.files import replacing
from lm.run import Interrupted

log = logging.getLogger("lm")


class Checkpoints(Checkpoint):
    """Keeps checkpoints/{last,best,step_000250,...}.ckpt: one file is written per save, the names are hard links.

    All saves fall between two optimizer steps, after the validation of that step. SIGINT (Ctrl-C) and SIGTERM save at
    the end of the step at hand and raise Interrupted; a second one ends the process at once.
    """

    def __init__(self, config: CheckpointConfig, directory: Path, val_every: int, save_every: int) -> None:
        self.keep_last, self.folder = config.keep_last, directory / "checkpoints"
        self.val_every, self.save_every = val_every, save_every
        self.best: dict[str, float] = {}  # val/loss and step of best.ckpt
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        trainer.strategy.checkpoint_io = AtomicIO()

    # ---- when

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        validates = step % self.val_every == 0 or step >= pl_module.horizon
        if pl_module.stepped and not validates:  # else on_validation_end saves
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        step, loss = trainer.global_step, pl_module.latest["val/loss"]
        better = loss < self.best.get("val/loss", float("inf"))
        if better:
            self.best = {"val/loss": loss, "step": step}
        self._save(trainer, pl_module, better)

    # ---- what

    def _save(self, trainer: L.Trainer, pl_module: Any, better: bool = False) -> None:
        step, interrupted = trainer.global_step, self.signal is not None
        if trainer.world_size > 1:  # all devices stop at the same step, whichever was told
            interrupted = trainer.strategy.reduce_boolean_decision(interrupted, all=False)
        due = step % self.save_every == 0
        names = [f"step_{step:06d}.ckpt"] if due and self.keep_last else []
        names += ["best.ckpt"] if better else []
        names += ["last.ckpt"] if due or interrupted or trainer.should_stop else []
        if names:
            pl_module.require_finite()
            trainer.save_checkpoint(self.folder / names[0], weights_only=False)
            if trainer.is_global_zero:
                for name in names[1:]:  # last.ckpt comes last: what it says of best.ckpt is then true
                    link(self.folder / names[0], self.folder / name)
                steps = sorted(self.folder.glob("step_*.ckpt"), key=lambda path: int(path.stem.removeprefix("step_")))
                for old in steps[: max(0, len(steps) - self.keep_last)]:
                    old.unlink()
        if interrupted:
            raise Interrupted(self.signal or signal.SIGTERM)

    # ---- signals

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.handlers[signum] = signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            rich.get_console().show_cursor()
            os._exit(128 + signum)
        self.signal = signum
        log.info("%s: saving at the end of this step; once more ends at once", signal.Signals(signum).name)

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)
        self.handlers = {}


class AtomicIO(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and hold nothing but plain values and tensors."""

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoint.write(checkpoint_, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def link(source: Path, name: Path) -> None:
    """Make `name` stand for the content of `source`, in one atomic step."""
    with replacing(name) as aside:
        try:
            os.link(source, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, aside)
