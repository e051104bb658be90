"""Gate two: the ranges of a config section, all broken ones told at once, by the key a user types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lm.base.errors import UserError


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """`; did you mean 'x'?` for the known word closest to `word`, or nothing when none is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""


class Check:
    """Collects what is wrong with one section of the config; `done` raises it as one UserError.

    >>> check = Check("model", config)
    >>> check.at_least("n_layer", 1)
    >>> check.done()
    """

    def __init__(self, section: str, config: Any) -> None:
        self.section, self.config = section, config
        self.problems: list[str] = []

    def that(self, ok: bool, key: str, rule: str) -> None:
        """Unless `ok`, note that `section.key=value` breaks `rule`, which reads on from 'must'."""
        if not ok:
            self.problems.append(f"{self.section}.{key}={getattr(self.config, key)} must {rule}")

    def one_of(self, key: str, allowed: Sequence[str]) -> None:
        value = str(getattr(self.config, key))
        self.that(value in allowed, key, f"be one of {', '.join(allowed)}{did_you_mean(value, allowed)}")

    def at_least(self, key: str, low: float) -> None:
        value = getattr(self.config, key)
        self.that(value is None or low <= value < math.inf, key, f"be at least {low}")

    def above(self, key: str, low: float) -> None:
        value = getattr(self.config, key)
        self.that(value is None or low < value < math.inf, key, f"be above {low}")

    def within(self, key: str, low: float, high: float) -> None:
        """low <= value < high: what probabilities of dropping and momenta need."""
        self.that(low <= getattr(self.config, key) < high, key, f"be at least {low} and below {high}")

    def done(self) -> None:
        if self.problems:
            raise UserError("\n".join(self.problems))
