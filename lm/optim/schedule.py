"""Learning-rate schedules: pure functions of (step, horizon), so that a run resumes anywhere without state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lm.base.checks import Check

# From 1 to 0 while progress goes from 0 to 1.
SHAPES = {
    "linear": lambda progress: 1 - progress,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}


@dataclass
class PlateauConfig:
    """Lower the learning rate for good, on top of any schedule, when val/loss has not improved.

    `lm/training/callbacks/plateau.py` looks every trainer.val_every steps, so a run that is resumed with another
    val_every may be lowered at other steps.
    """

    enabled: bool = False  # lower the learning rate for good when val/loss has not improved
    factor: float = 0.5  # multiply the learning rate by this, each time
    patience: int = 500  # optimizer steps without improvement before that; early stopping then waits twice as long
    cooldown: int = 0  # optimizer steps after that before patience counts again
    min_factor: float = 0.01  # the product of all factors never falls below this
    min_delta: float = 0.0  # smallest decrease of val/loss that counts as an improvement, in nats

    def __post_init__(self) -> None:
        check = Check("schedule.plateau", self)
        check.that(0 < self.factor < 1, "factor", "lie between 0 and 1, both excluded")
        check.at_least("patience", 1)
        check.at_least("cooldown", 0)
        check.that(0 <= self.min_factor <= 1, "min_factor", "lie between 0 and 1")
        check.at_least("min_delta", 0)
        check.done()


@dataclass
class ScheduleConfig:
    """What every schedule has: a linear warm-up, then what `after` gives, which begins at 1."""

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
        """Range checks of the fields a schedule adds."""

    @property
    def warmup_key(self) -> str:
        """The field that decides how long the warm-up is."""
        return "warmup_steps" if self.warmup_fraction is None else "warmup_fraction"

    def warmup(self, horizon: int) -> int:
        """Steps of warm-up in a run of `horizon` steps. As a fraction it always leaves the peak one step at least."""
        if self.warmup_fraction is None:
            return self.warmup_steps
        return min(round(self.warmup_fraction * horizon), horizon - 1)

    def factor(self, step: int, horizon: int) -> float:
        """The share of the peak rate for the update that follows `step` finished ones, of `horizon` in all.

        Warm-up starts above zero, so that the first update is not wasted, and reaches 1 when it has lasted `warmup`.
        """
        warmup = self.warmup(horizon)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return self.after(step, warmup, horizon)

    def after(self, step: int, warmup: int, horizon: int) -> float:
        """The factor from the end of warm-up on: step >= warmup."""
        raise NotImplementedError


@dataclass
class ConstantConfig(ScheduleConfig):
    def after(self, step: int, warmup: int, horizon: int) -> float:
        return 1.0


@dataclass
class FallingConfig(ScheduleConfig):
    """A schedule with a floor, which its rate reaches in time or never goes below."""

    min_lr_ratio: float = 0.0  # learning rate at the end, as a share of the peak

    def check(self, check: Check) -> None:
        check.that(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "lie between 0 and 1")

    def fall(self, shape: str, progress: float) -> float:
        """From 1 to the floor while progress goes from 0 to 1."""
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * SHAPES[shape](progress)


@dataclass
class LinearConfig(FallingConfig):
    def after(self, step: int, warmup: int, horizon: int) -> float:
        return self.fall("linear", share(step, warmup, horizon))


@dataclass
class CosineConfig(FallingConfig):
    """Half a cosine from 1 down to the floor (Loshchilov and Hutter 2017, without restarts)."""

    min_lr_ratio: float = 0.1

    def after(self, step: int, warmup: int, horizon: int) -> float:
        return self.fall("cosine", share(step, warmup, horizon))


@dataclass
class WSDConfig(FallingConfig):
    """Warm-up, stable, decay (Hu et al. 2024, MiniCPM; the sqrt shape: Hägele et al. 2024)."""

    decay_fraction: float = 0.2  # share of all steps in which the learning rate decays, at the end
    decay_shape: str = "linear"  # shape of the decay: linear | sqrt (1 - sqrt, steep at first) | cosine

    def check(self, check: Check) -> None:
        super().check(check)
        check.that(0 < self.decay_fraction <= 1, "decay_fraction", "lie above 0 and be at most 1")
        check.one_of("decay_shape", tuple(SHAPES))
        if self.warmup_fraction is not None and 0 <= self.warmup_fraction < 1:
            room = f"leave room for schedule.decay_fraction={self.decay_fraction}: together they are at most 1"
            # 0.7 + 0.3 may come out a hair above 1
            check.that(self.warmup_fraction + self.decay_fraction <= 1 + 1e-9, "warmup_fraction", room)

    def after(self, step: int, warmup: int, horizon: int) -> float:
        decay = max(1, round(self.decay_fraction * horizon))
        return self.fall(self.decay_shape, share(step, max(warmup, horizon - decay), horizon))


@dataclass
class ExponentialConfig(FallingConfig):
    """The same ratio from each step to the next, so that the floor is reached at the horizon."""

    min_lr_ratio: float = 0.1

    def check(self, check: Check) -> None:
        check.that(0 < self.min_lr_ratio <= 1, "min_lr_ratio", "lie above 0 and be at most 1: no ratio leads to 0")

    def after(self, step: int, warmup: int, horizon: int) -> float:
        return self.min_lr_ratio ** share(step, warmup, horizon)


@dataclass
class StepConfig(FallingConfig):
    """Times `gamma` every `step_size` steps from the end of warm-up, whatever the horizon."""

    # lowest learning rate, as a share of the peak; above 0, so that a long run keeps learning
    min_lr_ratio: float = 0.01
    step_size: int = 500  # steps between two drops of the learning rate
    gamma: float = 0.5  # multiply the learning rate by this at each drop

    def check(self, check: Check) -> None:
        super().check(check)
        check.at_least("step_size", 1)
        check.that(0 < self.gamma < 1, "gamma", "lie between 0 and 1, both excluded")

    def after(self, step: int, warmup: int, horizon: int) -> float:
        return max(self.min_lr_ratio, self.gamma ** ((step - warmup) // self.step_size))


@dataclass
class InverseSqrtConfig(FallingConfig):
    """sqrt(warmup / step), whatever the horizon (Vaswani et al. 2017).

    Without a warm-up it falls as after one of a single step.
    """

    def after(self, step: int, warmup: int, horizon: int) -> float:
        return max(self.min_lr_ratio, math.sqrt(max(1, warmup) / max(1, step)))


def share(step: int, start: int, end: int) -> float:
    """How far `step` is from start (0) to end (1), where it stays on either side."""
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
