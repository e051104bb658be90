"""Save checkpoints, and pause and stop a run.

Lightning's ModelCheckpoint saves before the validation of the same step, which a resumed run then misses, and writes
the same state once for each file name.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch.utils._pytree import tree_map_only

from lm.base.errors import UserError
from lm.base.files import atomic_replace
from lm.run import checkpoint, lock
from lm.run.directory import Interrupted
from lm.run.integrity import verify
from lm.training.callbacks.config import CheckpointConfig
from lm.training.callbacks.metrics import StepMetrics
from lm.training.callbacks.signals import SignalHandler
from lm.training.trainer import Every

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class Checkpoints(Checkpoint):
    """Write checkpoints/{last,best,step_000250,...}.ckpt: one file per save; its further names are hard links.

    A run is saved, paused and stopped between two optimizer steps only, after the validation of that step if there is
    one. Signals ask for it (lm/run/lock.py). best.ckpt has the lowest val/loss of all validations; last.ckpt is never
    older than it.
    """

    def __init__(self, config: CheckpointConfig, directory: Path, val_every: int, save_every: Every) -> None:
        self.keep_last, self.directory, self.folder = config.keep_last, directory, directory / "checkpoints"
        self.val_every, self.save_every = val_every, save_every
        self.io = AtomicIO(config.background)
        self.signals = SignalHandler()
        self.best: dict[str, float] = {}  # val/loss and step of best.ckpt

    def setup(self, trainer: L.Trainer, pl_module: LanguageModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = self.io
        self.signals.install()

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        if (path := self.folder / "best.ckpt").exists():  # may be newer than the resumed checkpoint
            try:
                verify(path)
                data = checkpoint.read(path)
                self.best = {"val/loss": data["lm"]["metrics"]["val/loss"], "step": data["global_step"]}
            except UserError as error:
                log.warning("%s; it will be replaced by the best of the following validations", error)
        self.saved = time.monotonic()

    # ---- when to save

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        step = trainer.global_step
        validates = step % self.val_every == 0 or step >= pl_module.horizon
        if pl_module.stepped and not validates:  # otherwise on_validation_end saves
            self._between_steps(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        step, loss = trainer.global_step, pl_module.latest["val/loss"]
        better = loss < self.best.get("val/loss", float("inf"))
        if better:
            self.best = {"val/loss": loss, "step": step}
        self._between_steps(trainer, pl_module, better)

    def _between_steps(self, trainer: L.Trainer, pl_module: LanguageModule, better: bool = False) -> None:
        self._wait_while_paused(trainer)
        any_device = self._any_device(trainer)
        stop, save = any_device(self.signals.stop is not None), any_device(self.signals.save)
        due = self.save_every.due(
            trainer.global_step, lambda seconds: any_device(time.monotonic() - self.saved >= seconds)
        )
        names = [f"step_{trainer.global_step:06d}.ckpt"] if due and self.keep_last else []
        names += ["best.ckpt"] if better else []
        # also with best.ckpt, so that last.ckpt is never older than it
        names += ["last.ckpt"] if due or better or save or stop or trainer.should_stop else []
        if names:
            self._save(trainer, pl_module, names)
        if save:
            self.signals.save = False
            log.info("saved a checkpoint at step %d", trainer.global_step)
        if stop:
            self.io.join()
            raise Interrupted(self.signals.stop or signal.SIGTERM)

    @staticmethod
    def _any_device(trainer: L.Trainer) -> Callable[[bool], bool]:
        """Return a function that is True on all devices if its argument is True on one of them."""
        if trainer.world_size == 1:
            return bool
        return lambda value: trainer.strategy.reduce_boolean_decision(value, all=False)

    def _wait_while_paused(self, trainer: L.Trainer) -> None:
        """Block while the run is paused, until it is resumed or has to save or stop."""
        if not self.signals.paused:
            return
        StepMetrics.pause(trainer)
        log.info("paused after step %d", trainer.global_step)
        lock.set_paused(self.directory, paused=True)
        while self.signals.paused and not self.signals.save and self.signals.stop is None:
            time.sleep(0.1)
        if not self.signals.paused:
            lock.set_paused(self.directory, paused=False)
            log.info("resumed")

    # ---- how to save

    def _save(self, trainer: L.Trainer, pl_module: LanguageModule, names: list[str]) -> None:
        pl_module.require_finite()
        for logger in trainer.loggers:
            logger.save()  # a resumed run needs all metrics up to its checkpoint
        first, *others = [self.folder / name for name in names]

        def link_and_prune() -> None:
            for name in others:  # last.ckpt is the last of them, so that best.ckpt exists by then
                link(first, name)
            steps = sorted(self.folder.glob("step_*.ckpt"), key=lambda path: int(path.stem.removeprefix("step_")))
            for old in steps[: max(0, len(steps) - self.keep_last)]:
                old.unlink()

        trainer.save_checkpoint(first, weights_only=False, storage_options=link_and_prune)
        self.saved = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        self.io.join()

    def teardown(self, trainer: L.Trainer, pl_module: LanguageModule, stage: str) -> None:
        self.signals.uninstall()


class AtomicIO(TorchCheckpointIO):
    """Write checkpoints atomically, and load them without executing code from the file.

    With `background`, a copy of the state is written while training continues. A save waits until the one before is on
    the disk. An error in the background is raised at the next save or at `join`.
    """

    def __init__(self, background: bool) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1) if background else None
        self.pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; `storage_options` is a function to call when the file is complete."""
        self.join()

        def work() -> None:
            checkpoint.write(checkpoint_, Path(path))
            storage_options()

        if self.pool is None:
            return work()
        checkpoint_ = tree_map_only(torch.Tensor, lambda t: t.detach().to("cpu", copy=True), checkpoint_)
        self.pending = self.pool.submit(work)

    def join(self) -> None:
        """Wait for the save in the background. Raises the error of a save that failed."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def link(source: Path, name: Path) -> None:
    """Make the file `name` have the content of `source`, atomically."""
    with atomic_replace(name) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
