"""Learning-rate schedules: pure functions of (step, horizon), so that a run resumes anywhere without state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lm.check import Check


@dataclass
class ScheduleConfig:
    """What every schedule has: a linear warm-up, then the shape that `after` gives."""

    warmup_steps: int = 100

    def __post_init__(self) -> None:
        check = Check("schedule", self)
        check.at_least("warmup_steps", 0)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Range checks of the fields a schedule adds."""

    def factor(self, step: int, horizon: int) -> float:
        """The share of the peak rate for the update that follows `step` finished ones, of `horizon` in all.

        Warm-up starts above zero, so that the first update is not wasted, and reaches 1 at `warmup_steps`.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.after(min(1.0, (step - self.warmup_steps) / max(1, horizon - self.warmup_steps)))

    def after(self, progress: float) -> float:
        """The factor after warm-up, where `progress` runs from 0 to 1 at the horizon."""
        raise NotImplementedError


@dataclass
class ConstantConfig(ScheduleConfig):
    def after(self, progress: float) -> float:
        return 1.0


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from 1 down to the floor (Loshchilov and Hutter 2017, without restarts)."""

    min_lr_ratio: float = 0.1  # the floor, as a share of the peak

    def check(self, check: Check) -> None:
        check.that(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", "lie between 0 and 1")

    def after(self, progress: float) -> float:
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
