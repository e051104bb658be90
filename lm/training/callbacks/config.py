"""Settings of the callbacks, which build the list of callbacks.

Hydra imports this module at every tab completion, and importing Lightning takes a second. So the callback classes are
imported when they are built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.data.corpus import CorpusConfig
from lm.evaluate.tasks import TASKS
from lm.generate import GenerationRequest, Sampling
from lm.sweep.config import SweepConfig
from lm.training.observers import guard
from lm.training.trainer import TrainerConfig

if TYPE_CHECKING:
    import lightning as L


@dataclass
class SampleConfig:
    """Settings of the samples written during training. Prompts that the tokenizer cannot encode are left out."""

    enabled: bool = True  # write samples to samples.md and TensorBoard
    every: int = 500  # write samples every this many optimizer steps, and at the end
    # texts to continue; those that the tokenizer cannot encode are left out
    prompts: list[str] = field(default_factory=lambda: ["\n"])
    max_new_tokens: int = 100  # length of each sample in tokens
    # divide logits by this: below 1 more predictable, above 1 more varied; 0: always the likeliest token
    temperature: float = 0.8
    top_k: int | None = 50  # choose among the k likeliest tokens only; null: all

    def __post_init__(self) -> None:
        check = Check("callbacks.sample", self)
        check.at_least("every", 1)
        valid = bool(self.prompts) and all(self.prompts)
        check.require(valid, "prompts", "hold at least one prompt, none of them empty")
        check.done()
        try:
            self.request(seed=0)
        except UserError as error:
            raise UserError(f"callbacks.sample.{error}") from error

    def request(self, seed: int) -> GenerationRequest:
        """Return the settings for text generation."""
        sampling = Sampling(self.temperature, self.top_k)
        return GenerationRequest(self.max_new_tokens, sampling, seed=seed, parse_special=True)


@dataclass
class CheckpointConfig:
    """Settings of the checkpoints. When they are saved is set by `trainer.save_every`."""

    keep_last: int = 2  # number of step_*.ckpt files to keep in addition to last.ckpt and best.ckpt
    # write checkpoints while training continues, from a copy of weights and optimizer state in memory
    background: bool = False

    def __post_init__(self) -> None:
        check = Check("callbacks.checkpoint", self)
        check.at_least("keep_last", 0)
        check.done()


@dataclass
class EarlyStoppingConfig:
    """Settings of early stopping: a small corpus is soon memorized, and then val/loss rises."""

    enabled: bool = True  # stop when val/loss has stopped improving
    patience: int = 1000  # optimizer steps without improvement before that
    min_delta: float = 0.0  # smallest decrease of val/loss that counts as an improvement, in nats

    def __post_init__(self) -> None:
        check = Check("callbacks.early_stopping", self)
        check.at_least("patience", 1)
        check.at_least("min_delta", 0)
        check.done()


@dataclass
class AverageConfig:
    """Settings of the exponential moving average of the weights."""

    # keep an exponential moving average of the weights, and validate, sample and load it instead of them
    enabled: bool = False
    decay: float = 0.999  # decay of the average at each optimizer step

    def __post_init__(self) -> None:
        check = Check("callbacks.average", self)
        check.within("decay", 0, 1)
        check.done()


@dataclass
class HealthConfig:
    """Settings of the warnings about a run's metrics (`lm/training/health.py`). They never change the run."""

    enabled: bool = True  # warn, with a remedy, when the figures of a run look wrong; never changes the run


@dataclass
class TaskConfig:
    """Settings of the scores on a task of a synthetic corpus (`lm/evaluate/tasks`), logged during training."""

    # task to score the model on during training: ten_actions | addition | words | sequence | sequence2; null: none
    name: str | None = None
    every: int = 500  # score every this many optimizer steps
    cases: int = 20  # test cases of each kind

    def __post_init__(self) -> None:
        check = Check("callbacks.task", self)
        if self.name is not None:
            check.one_of("name", tuple(TASKS))
        check.at_least("every", 1)
        check.at_least("cases", 1)
        check.done()


@dataclass
class CallbacksConfig:
    """Settings of all callbacks."""

    sample: SampleConfig = field(default_factory=SampleConfig)  # samples during training
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)  # checkpoints
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)  # early stopping
    health: HealthConfig = field(default_factory=HealthConfig)  # warnings about a run's figures
    average: AverageConfig = field(default_factory=AverageConfig)  # moving average of the weights
    task: TaskConfig = field(default_factory=TaskConfig)  # scores on a task of a synthetic corpus

    def build(
        self,
        directory: Path,
        trainer: TrainerConfig,
        peak: float | None,
        new: bool = True,
        sweep: SweepConfig | None = None,
        language: CorpusConfig | None = None,
    ) -> list[L.Callback]:
        """Return the callbacks in the order in which they are called. Those that only observe the run cannot end it.

        `peak` is the peak FLOP/s of one device, `new` is True for untrained weights, and `language` is the corpus that
        a task is about.
        """
        from lm.training.callbacks.average import Average
        from lm.training.callbacks.checkpoints import Checkpoints
        from lm.training.callbacks.health import HealthChecks
        from lm.training.callbacks.metrics import StepMetrics
        from lm.training.callbacks.plateau import Plateau
        from lm.training.callbacks.progress import Progress
        from lm.training.callbacks.samples import Samples
        from lm.training.callbacks.stopping import EarlyStopping

        callbacks: list[L.Callback] = [StepMetrics(trainer.log_every, peak)]  # first, because it measures time
        callbacks.append(guard(Progress(), "the progress display"))
        if self.average.enabled:  # before the callbacks that use the weights
            callbacks.append(Average(self.average))
        if self.health.enabled:
            callbacks.append(guard(HealthChecks(trainer.log_every, new), "the health check"))
        callbacks.append(Plateau(trainer.val_every))  # its settings are in the module's schedule
        if self.early_stopping.enabled:
            callbacks.append(EarlyStopping(self.early_stopping))
        if self.sample.enabled:
            callbacks.append(guard(Samples(self.sample, directory), "sampling"))
        if self.task.name:
            from lm.training.callbacks.tasks import TaskScores

            callbacks.append(guard(TaskScores(self.task, language), f"callbacks.task.name={self.task.name}"))
        if sweep and sweep.trial is not None and sweep.pruner != "none":
            from lm.training.callbacks.pruning import Pruning

            callbacks.append(Pruning(sweep, directory, trainer.val_every))
        return [*callbacks, Checkpoints(self.checkpoint, directory, trainer.val_every, trainer.save_interval)]
