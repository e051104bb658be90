"""femtoGPT's two corpora of interleaved cycles. They are deterministic, except for the optional noise."""

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
def interleave(cycles: tuple[str, ...], size: int) -> str:
    """Return the first `size` characters of the endless text that takes one character of each cycle in turn."""
    return "".join(cycle[i % len(cycle)] for i in range(size // len(cycles) + 1) for cycle in cycles)[:size]


@dataclass
class SequenceConfig(GeneratedConfig):
    """Two interleaved cycles, `a@@b##c$$d%%e^^f@@` and so on. The text repeats after 40 steps and ignores the seed.

    The entropy is 0. Tests counting: a model that cannot tell which of the eight letters is next reaches 0.693.
    """

    lines: int = 2000  # steps of the sequence to generate
    cycles: ClassVar[tuple[str, ...]] = ("abcdefgh", "@#$%^", "@#$%^")
    phases: ClassVar[int] = 3 * 8 * 5

    def generate(self) -> str:
        return interleave(self.cycles, self.lines * len(self.cycles))

    def log_prob(self, window: str) -> float:
        text = interleave(self.cycles, self.phases + len(window) - 1)
        return safe_log(len(re.findall(f"(?={re.escape(window)})", text)) / self.phases)


@dataclass
class Sequence2Config(SequenceConfig):
    """Five interleaved cycles, one of them twice, with a line for each step, e.g. `adhmmt;`.

    The text repeats after 4620 lines. With `noise`, each character may be replaced by a random one of 64. The entropy
    is 0, or 0.0224 with `noise=0.002`, as in the original. Tests long periods, and whether a model ignores the noise.
    """

    noise: float = 0.0  # probability that a character is replaced by a random one
    cycles: ClassVar[tuple[str, ...]] = ("abc", "defg", "hijkl", "mnopqrs", "mnopqrs", "tuvwxyz0123", ";", "\n")
    phases: ClassVar[int] = 8 * 3 * 4 * 5 * 7 * 11
    noise_alphabet: ClassVar[str] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ;\n"

    def check(self, check: Check) -> None:
        super().check(check)
        check.within("noise", 0, 1)

    def generate(self) -> str:
        random = Random(self.seed).random
        alphabet = self.noise_alphabet
        return "".join(alphabet[int(random() * 64)] if random() < self.noise else c for c in super().generate())

    def log_prob(self, window: str) -> float:
        if not self.noise or set(window) - set(self.noise_alphabet):
            return super().log_prob(window)
        text = np.frombuffer(interleave(self.cycles, self.phases + len(window) - 1).encode(), dtype=np.uint8)
        right = np.zeros(self.phases, dtype=np.int32)  # number of unchanged characters, for each phase
        for i, c in enumerate(window.encode()):
            right += text[i : i + self.phases] == c
        scores = right * math.log(1 - self.noise * 63 / 64) + (len(window) - right) * math.log(self.noise / 64)
        return float(scores.max() + np.log(np.exp(scores - scores.max()).mean()))
