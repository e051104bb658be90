"""The settings of the training loop, and the Lightning trainer they describe.

Only this module converts optimizer steps into Lightning's units.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.hardware import keep_freed_memory

if TYPE_CHECKING:  # importing Lightning takes a second, and Hydra imports the configs at every tab completion
    import lightning as L
    from lightning.pytorch.loggers import Logger

LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "bf16_true": "bf16-true"}


@dataclass(frozen=True)
class Every:
    """An interval in optimizer steps or in seconds."""

    FORMS: ClassVar = "a number of steps (at least 1), or a time such as 10min, 90s or 1h"

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, value: Any) -> Every | None:
        """Parse a number of steps or a time such as 10min. Returns None if `value` is neither."""
        if type(value) is int:
            return cls(steps=value) if value >= 1 else None
        time = re.fullmatch(r"([\d.]+) ?(s|min|h)", value) if isinstance(value, str) else None
        try:
            seconds = float(time[1]) * {"s": 1, "min": 60, "h": 3600}[time[2]] if time else 0.0
        except ValueError:  # such as 1.2.3
            return None
        return cls(seconds=seconds) if seconds > 0 else None

    def due(self, step: int, elapsed: Callable[[float], bool]) -> bool:
        """Return True if `step` is a multiple of the interval or, for an interval of time, if the time has passed.

        `elapsed` takes a number of seconds and returns True if they have passed since the last action.
        """
        return step % self.steps == 0 if self.steps else elapsed(self.seconds or 0.0)


@dataclass
class TrainerConfig:
    """Settings of the training loop. Intervals are in optimizer steps.

    The horizon is given by one of max_steps, max_epochs and max_tokens; with none of them it is 2000 steps.
    """

    max_steps: int | None = None  # optimizer steps to train; with none of max_steps, max_epochs and max_tokens: 2000
    max_epochs: float | None = None  # passes over the training text, instead of max_steps; fractions are allowed
    max_tokens: int | None = None  # tokens to train on, instead of max_steps
    accelerator: str = "auto"  # auto | cpu | gpu | cuda | mps
    devices: int = 1  # devices to train on
    val_every: int = 250  # validate every this many optimizer steps
    # validate on at most this many batches, spread evenly over the text; null: on all of it
    val_batches: int | None = 200
    save_every: Any = 250  # save a checkpoint every this many optimizer steps, or after a time: 10min, 90s, 1h
    log_every: int = 10  # log metrics every this many optimizer steps
    on_nonfinite: str = "stop"  # when the loss or a gradient is not finite: stop | skip (leave out the step)
    max_skipped: int = 20  # with on_nonfinite=skip: stop after more than this many skipped steps in a row
    compile: bool = False  # compile the model with torch.compile: faster on GPUs, after about a minute of compiling
    # use torch's deterministic kernels only, on GPUs too: slower, and an error where there is none
    deterministic: bool = False
    # continue from this checkpoint of another run, at its step, with another schedule or horizon
    fork: str | None = None
    check_memory: bool = True  # refuse to start what would not fit the device's memory (see scripts/memory.py)
    # peak bf16 TFLOP/s of one device without sparsity, for perf/mfu; null: looked up by the card's name
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        check = Check("trainer", self)
        given = [key for key in ("max_steps", "max_epochs", "max_tokens") if getattr(self, key) is not None]
        for key in given:
            check.above(key, 0)
        if len(given) > 1:
            other = f"trainer.{given[0]}={getattr(self, given[0])}"
            check.require(False, given[1], f"be null while {other} is set: give only one horizon")
        check.one_of("on_nonfinite", ("stop", "skip"))
        for key in ("devices", "val_every", "val_batches", "log_every", "max_skipped"):
            check.at_least(key, 1)
        check.require(Every.parse(self.save_every) is not None, "save_every", f"be {Every.FORMS}")
        check.above("peak_tflops", 0)
        check.done()

    @property
    def save_interval(self) -> Every:
        every = Every.parse(self.save_every)
        assert every is not None  # checked in __post_init__
        return every

    @property
    def skip_limit(self) -> int:
        """Number of steps in a row that may be skipped; 0 means that the first one ends the run."""
        return self.max_skipped if self.on_nonfinite == "skip" else 0

    def horizon(self, windows: int, batch_size: int, block_size: int, done: int = 0) -> int:
        """Return the number of optimizer steps of the whole run, for a training text of `windows` windows.

        Raises UserError when it is less than the `done` steps that the run has made already.
        """
        if self.max_epochs is not None:
            steps = max(1, math.floor(self.max_epochs * windows / batch_size))
        elif self.max_tokens is not None:
            steps = max(1, self.max_tokens // (batch_size * block_size))
        else:
            steps = 2000 if self.max_steps is None else self.max_steps
        if steps < done:
            raise UserError(
                f"the run has done {done} steps already, but the new horizon is {steps} steps: choose a longer one"
            )
        return steps

    def prepare(self, model: nn.Module, device: str) -> None:
        """Configure the process, and compile the model in place, before training."""
        if device == "cpu":
            keep_freed_memory()
        if self.compile:
            torch.compiler.reset()  # free what an earlier job of a sweep compiled
            model.compile()  # not torch.compile(model), which would rename the weights

    def build(
        self,
        device: str,
        precision: str,
        horizon: int,
        accumulate: int,
        callbacks: list[L.Callback],
        loggers: list[Logger],
        directory: Path,
    ) -> L.Trainer:
        """Build the Lightning trainer of a run that ends after `horizon` optimizer steps."""
        import lightning as L

        silence_lightning()
        trainer = L.Trainer(
            accelerator=device,
            devices=[torch.cuda.current_device()] if device == "cuda" and self.devices == 1 else self.devices,
            precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
            deterministic=self.deterministic,
            max_epochs=-1,  # one endless epoch: TrainBatches handles epochs, the trainer counts steps
            max_steps=horizon,
            accumulate_grad_batches=accumulate,
            val_check_interval=self.val_every * accumulate,  # Lightning counts micro-batches here
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=directory,
        )
        # Lightning's SIGTERM handler would end the process with status 0, before callbacks/signals.py installs ours
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        return trainer


def select_gpu(job: int) -> None:
    """Make this process use one of several GPUs. The jobs of a parallel sweep use them in turn."""
    if count := torch.cuda.device_count():
        torch.cuda.set_device(job % count)


def silence_lightning() -> None:
    """Silence Lightning's tips and, by their wording, warnings that are of no use to the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # a memory map does not need any
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own call into torch
        ".*torch.jit.script_method.* is deprecated.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*callbacks used to create the checkpoint need to be provided.*",  # each may be switched on and off
    ):
        warnings.filterwarnings("ignore", message)
