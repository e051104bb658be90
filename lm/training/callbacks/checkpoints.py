"""Saving, pausing and stopping. (Lightning's ModelCheckpoint saves before the validation that falls on the same step,
which a continued run then misses, and writes the same state once for every name.)"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch.utils._pytree import tree_map_only

from lm.base.errors import UserError
from lm.base.files import replacing
from lm.run import checkpoint, lock
from lm.run.directory import Interrupted
from lm.training.callbacks.config import CheckpointConfig
from lm.training.callbacks.metrics import StepMetrics
from lm.training.callbacks.signals import SignalHandler
from lm.training.trainer import Every

log = logging.getLogger("lm")


class Checkpoints(Checkpoint):
    """Keeps checkpoints/{last,best,step_000250,...}.ckpt: one file is written per save, the names are hard links.

    All saves fall between two optimizer steps, after the validation of that step; so do the pauses and the end that
    signals ask for (lm/run/lock.py). best.ckpt has the lowest val/loss of all validations; last.ckpt is never older
    than it.
    """

    def __init__(self, config: CheckpointConfig, directory: Path, val_every: int, save_every: Every) -> None:
        self.keep_last, self.directory, self.folder = config.keep_last, directory, directory / "checkpoints"
        self.val_every, self.save_every = val_every, save_every
        self.io = AtomicIO(config.background)
        self.requests = SignalHandler()
        self.best: dict[str, float] = {}  # val/loss and step of best.ckpt

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        trainer.strategy.checkpoint_io = self.io
        self.requests.listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if (path := self.folder / "best.ckpt").exists():  # which may be younger than the checkpoint that we go on from
            try:
                checkpoint.verify(path)
                data = checkpoint.read(path)
                self.best = {"val/loss": data["lm"]["metrics"]["val/loss"], "step": data["global_step"]}
            except UserError as error:
                log.warning("%s: the best of the validations from here on takes its place", error)
        self.saved = time.monotonic()

    # ---- when

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        validates = step % self.val_every == 0 or step >= pl_module.horizon
        if pl_module.stepped and not validates:  # else on_validation_end does
            self._between_steps(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        step, loss = trainer.global_step, pl_module.latest["val/loss"]
        better = loss < self.best.get("val/loss", float("inf"))
        if better:
            self.best = {"val/loss": loss, "step": step}
        self._between_steps(trainer, pl_module, better)

    def _between_steps(self, trainer: L.Trainer, pl_module: Any, better: bool = False) -> None:
        self._wait(trainer)
        agreed = self._agreed(trainer)
        stop, asked = agreed(self.requests.stop is not None), agreed(self.requests.save)
        due = self.save_every.due(trainer.global_step, lambda seconds: agreed(time.monotonic() - self.saved >= seconds))
        names = [f"step_{trainer.global_step:06d}.ckpt"] if due and self.keep_last else []
        names += ["best.ckpt"] if better else []
        # with best.ckpt, which otherwise a run that goes on from an older last.ckpt could not have made yet
        names += ["last.ckpt"] if due or better or asked or stop or trainer.should_stop else []
        if names:
            self._save(trainer, pl_module, names)
        if asked:
            self.requests.save = False
            log.info("saved at step %d", trainer.global_step)
        if stop:
            self.io.join()
            raise Interrupted(self.requests.stop or signal.SIGTERM)

    @staticmethod
    def _agreed(trainer: L.Trainer) -> Callable[[bool], bool]:
        """All devices do what one of them was told to."""
        if trainer.world_size == 1:
            return bool
        return lambda told: trainer.strategy.reduce_boolean_decision(told, all=False)

    def _wait(self, trainer: L.Trainer) -> None:
        """Here while the run is paused, and nothing else is asked of it."""
        if not self.requests.paused:
            return
        StepMetrics.pause(trainer)
        log.info("paused after step %d", trainer.global_step)
        lock.set_paused(self.directory, paused=True)
        while self.requests.paused and not self.requests.save and self.requests.stop is None:
            time.sleep(0.1)
        if not self.requests.paused:
            lock.set_paused(self.directory, paused=False)
            log.info("going on")

    # ---- what

    def _save(self, trainer: L.Trainer, pl_module: Any, names: list[str]) -> None:
        pl_module.require_finite()
        for logger in trainer.loggers:
            logger.save()  # a continued run takes for granted the curve up to its checkpoint
        first, *others = [self.folder / name for name in names]

        def then() -> None:
            for name in others:  # last.ckpt comes last: best.ckpt is then there
                link(first, name)
            steps = sorted(self.folder.glob("step_*.ckpt"), key=lambda path: int(path.stem.removeprefix("step_")))
            for old in steps[: max(0, len(steps) - self.keep_last)]:
                old.unlink()

        trainer.save_checkpoint(first, weights_only=False, storage_options=then)
        self.saved = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.io.join()

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        self.requests.forget()


class AtomicIO(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and hold nothing but plain values and tensors.

    In the `background` a copy of the state is written while training goes on, and never a second before the first is
    on the disk; what went wrong is raised at the next save, or `join`.
    """

    def __init__(self, background: bool) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1) if background else None
        self.pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """`storage_options` is what to do when the file is there."""
        self.join()

        def work() -> None:
            checkpoint.write(checkpoint_, Path(path))
            storage_options()

        if self.pool is None:
            return work()
        checkpoint_ = tree_map_only(torch.Tensor, lambda t: t.detach().to("cpu", copy=True), checkpoint_)
        self.pending = self.pool.submit(work)

    def join(self) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def link(source: Path, name: Path) -> None:
    """Make `name` stand for the content of `source`, in one atomic step."""
    with replacing(name) as aside:
        try:
            os.link(source, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, aside)
