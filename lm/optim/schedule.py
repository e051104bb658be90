"""Learning-rate schedules: pure functions of (step, horizon), so that resuming a run needs no saved state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lm.base.checks import Check

# Functions from progress (0 to 1) to a factor that decays from 1 to 0.
DECAY_SHAPES = {
    "linear": lambda progress: 1 - progress,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}


@dataclass
class PlateauConfig:
    """Settings to lower the learning rate permanently, on top of any schedule, when val/loss has not improved.

    `lm/training/callbacks/plateau.py` checks after each validation, every trainer.val_every steps. If a run is resumed
    with another val_every, the learning rate may be lowered at other steps.
    """

    enabled: bool = False  # lower the learning rate permanently when val/loss has not improved
    factor: float = 0.5  # multiply the learning rate by this, each time
    patience: int = 500  # optimizer steps without improvement before that; early stopping then waits twice as long
    cooldown: int = 0  # optimizer steps after that before patience counts again
    min_factor: float = 0.01  # the product of all factors never falls below this
    min_delta: float = 0.0  # smallest decrease of val/loss that counts as an improvement, in nats

    def __post_init__(self) -> None:
        check = Check("schedule.plateau", self)
        check.require(0 < self.factor < 1, "factor", "be between 0 and 1, both excluded")
        check.at_least("patience", 1)
        check.at_least("cooldown", 0)
        check.require(0 <= self.min_factor <= 1, "min_factor", "be between 0 and 1")
        check.at_least("min_delta", 0)
        check.done()


@dataclass
class ScheduleConfig:
    """Base class of the settings of schedules: a linear warmup, then `factor_after_warmup`, which starts at 1."""

    warmup_steps: int = 100  # steps of linear warmup from 0 to the peak
    warmup_fraction: float | None = None  # warmup as a share of all steps; if set, warmup_steps is ignored
    # lower the learning rate when val/loss has stopped improving, on top of any schedule
    plateau: PlateauConfig = field(default_factory=PlateauConfig)

    def __post_init__(self) -> None:
        check = Check("schedule", self)
        check.at_least("warmup_steps", 0)
        if self.warmup_fraction is not None:
            check.within("warmup_fraction", 0, 1)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Check the fields that a subclass adds."""

    @property
    def warmup_key(self) -> str:
        """Return the name of the field that sets the length of the warmup."""
        return "warmup_steps" if self.warmup_fraction is None else "warmup_fraction"

    def warmup(self, horizon: int) -> int:
        """Return the number of warmup steps in a run of `horizon` steps.

        With warmup_fraction at least one step is left after the warmup.
        """
        if self.warmup_fraction is None:
            return self.warmup_steps
        return min(round(self.warmup_fraction * horizon), horizon - 1)

    def factor(self, step: int, horizon: int) -> float:
        """Return the learning rate as a share of the peak, after `step` of `horizon` updates.

        The warmup starts above zero, so that the first update has an effect, and the factor is 1 right after it.
        """
        warmup = self.warmup(horizon)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return self.factor_after_warmup(step, warmup, horizon)

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        """Return the factor after the warmup, for step >= warmup."""
        raise NotImplementedError


@dataclass
class ConstantConfig(ScheduleConfig):
    """A constant learning rate after the warmup."""

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return 1.0


@dataclass
class DecayConfig(ScheduleConfig):
    """Base class of schedules that decay to a minimum, `min_lr_ratio`, or never go below it."""

    min_lr_ratio: float = 0.0  # learning rate at the end, as a share of the peak

    def check(self, check: Check) -> None:
        check.require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "be between 0 and 1")

    def decay(self, shape: str, progress: float) -> float:
        """Return the factor of a decay from 1 to min_lr_ratio, while progress goes from 0 to 1."""
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * DECAY_SHAPES[shape](progress)


@dataclass
class LinearConfig(DecayConfig):
    """Linear decay to min_lr_ratio at the horizon."""

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return self.decay("linear", progress(step, warmup, horizon))


@dataclass
class CosineConfig(DecayConfig):
    """Decay along half a cosine from 1 to min_lr_ratio (Loshchilov and Hutter 2017, without restarts)."""

    min_lr_ratio: float = 0.1

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return self.decay("cosine", progress(step, warmup, horizon))


@dataclass
class WSDConfig(DecayConfig):
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM; the sqrt shape is from Hägele et al. 2024)."""

    decay_fraction: float = 0.2  # share of all steps in which the learning rate decays, at the end
    decay_shape: str = "linear"  # shape of the decay: linear | sqrt (1 - sqrt, steep at first) | cosine

    def check(self, check: Check) -> None:
        super().check(check)
        check.require(0 < self.decay_fraction <= 1, "decay_fraction", "be above 0 and at most 1")
        check.one_of("decay_shape", tuple(DECAY_SHAPES))
        if self.warmup_fraction is not None and 0 <= self.warmup_fraction < 1:
            room = f"leave room for schedule.decay_fraction={self.decay_fraction}: their sum can be at most 1"
            # tolerate rounding: 0.7 + 0.3 may be slightly above 1
            check.require(self.warmup_fraction + self.decay_fraction <= 1 + 1e-9, "warmup_fraction", room)

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        decay = max(1, round(self.decay_fraction * horizon))
        return self.decay(self.decay_shape, progress(step, max(warmup, horizon - decay), horizon))


@dataclass
class ExponentialConfig(DecayConfig):
    """Exponential decay: a constant ratio per step, chosen so that min_lr_ratio is reached at the horizon."""

    min_lr_ratio: float = 0.1

    def check(self, check: Check) -> None:
        check.require(
            0 < self.min_lr_ratio <= 1, "min_lr_ratio", "be above 0 and at most 1, as it decays exponentially"
        )

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return self.min_lr_ratio ** progress(step, warmup, horizon)


@dataclass
class StepConfig(DecayConfig):
    """Multiply the learning rate by `gamma` every `step_size` steps after the warmup, independent of the horizon."""

    # lowest learning rate, as a share of the peak; above 0, so that a long run keeps learning
    min_lr_ratio: float = 0.01
    step_size: int = 500  # steps between two drops of the learning rate
    gamma: float = 0.5  # multiply the learning rate by this at each drop

    def check(self, check: Check) -> None:
        super().check(check)
        check.at_least("step_size", 1)
        check.require(0 < self.gamma < 1, "gamma", "be between 0 and 1, both excluded")

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return max(self.min_lr_ratio, self.gamma ** ((step - warmup) // self.step_size))


@dataclass
class InverseSqrtConfig(DecayConfig):
    """The factor sqrt(warmup / step), independent of the horizon (Vaswani et al. 2017).

    Without a warmup it decays as after a warmup of one step.
    """

    def factor_after_warmup(self, step: int, warmup: int, horizon: int) -> float:
        return max(self.min_lr_ratio, math.sqrt(max(1, warmup) / max(1, step)))


def progress(step: int, start: int, end: int) -> float:
    """Return the progress of `step` from start (0) to end (1), limited to this range."""
    return min(1.0, max(0, step - start) / max(1, end - start))


SCHEDULES: list[type] = [
    CosineConfig,
    ConstantConfig,
    LinearConfig,
    WSDConfig,
    ExponentialConfig,
    StepConfig,
    InverseSqrtConfig,
]
