"""femtoGPT's two languages of wheels that turn: nothing in them is left to chance but what is spoilt."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import ClassVar

import numpy as np

from lm.base.checks import Check
from lm.data.corpus.generated import GeneratedConfig, safe_log


@lru_cache(maxsize=8)
def turn(wheels: tuple[str, ...], size: int) -> str:
    """The first characters of their text, which has no end."""
    return "".join(wheel[i % len(wheel)] for i in range(size // len(wheels) + 1) for wheel in wheels)[:size]


@dataclass
class SequenceConfig(GeneratedConfig):
    """Two wheels that turn, `a@@b##c$$d%%e^^f@@` and so on; it repeats after 40 steps, and has no use for a seed.

    Entropy 0. Probes counting: who cannot tell which of the eight letters is next gets to 0.693.
    """

    lines: int = 2000  # steps of the sequence to generate
    wheels: ClassVar[tuple[str, ...]] = ("abcdefgh", "@#$%^", "@#$%^")
    phases: ClassVar[int] = 3 * 8 * 5

    def generate(self) -> str:
        return turn(self.wheels, self.lines * len(self.wheels))

    def log_prob(self, window: str) -> float:
        text = turn(self.wheels, self.phases + len(window) - 1)
        return safe_log(len(re.findall(f"(?={re.escape(window)})", text)) / self.phases)


@dataclass
class Sequence2Config(SequenceConfig):
    """Five wheels that turn, one of them seen twice, a line a step, e.g. `adhmmt;`; it repeats after 4620 lines.

    Each character may be spoilt: replaced by any of 64. Entropy 0; 0.0224 with `noise=0.002`, the original's. Probes
    long periods, and whether a model looks past what is spoilt.
    """

    noise: float = 0.0  # probability that a character is replaced by a random one
    wheels: ClassVar[tuple[str, ...]] = ("abc", "defg", "hijkl", "mnopqrs", "mnopqrs", "tuvwxyz0123", ";", "\n")
    phases: ClassVar[int] = 8 * 3 * 4 * 5 * 7 * 11
    spoilt: ClassVar[str] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ;\n"

    def check(self, check: Check) -> None:
        super().check(check)
        check.within("noise", 0, 1)

    def generate(self) -> str:
        random = Random(self.seed).random
        return "".join(self.spoilt[int(random() * 64)] if random() < self.noise else c for c in super().generate())

    def log_prob(self, window: str) -> float:
        if not self.noise or set(window) - set(self.spoilt):
            return super().log_prob(window)
        text = np.frombuffer(turn(self.wheels, self.phases + len(window) - 1).encode(), dtype=np.uint8)
        right = np.zeros(self.phases, dtype=np.int32)  # characters that are as they should be
        for i, c in enumerate(window.encode()):
            right += text[i : i + self.phases] == c
        scores = right * math.log(1 - self.noise * 63 / 64) + (len(window) - right) * math.log(self.noise / 64)
        return float(scores.max() + np.log(np.exp(scores - scores.max()).mean()))
