"""Check the value ranges of a config section and report all problems at once, by config key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lm.base.errors import UserError


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Return `; did you mean 'x'?` for the known word closest to `word`, or an empty string if none is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""


class Check:
    """Collect the problems of one config section; `done` raises them as one UserError.

    >>> check = Check("model", config)
    >>> check.at_least("n_layer", 1)
    >>> check.done()
    """

    def __init__(self, section: str, config: Any) -> None:
        self.section, self.config = section, config
        self.problems: list[str] = []

    def require(self, ok: bool, key: str, rule: str) -> None:
        """Unless `ok`, add the problem `section.key=value must {rule}`."""
        if not ok:
            self.problems.append(f"{self.section}.{key}={getattr(self.config, key)} must {rule}")

    def one_of(self, key: str, allowed: Sequence[str]) -> None:
        """Require one of the allowed words."""
        value = str(getattr(self.config, key))
        self.require(value in allowed, key, f"be one of {', '.join(allowed)}{did_you_mean(value, allowed)}")

    def at_least(self, key: str, low: float) -> None:
        """Require None or a finite value >= low."""
        value = getattr(self.config, key)
        self.require(value is None or low <= value < math.inf, key, f"be at least {low}")

    def above(self, key: str, low: float) -> None:
        """Require None or a finite value > low."""
        value = getattr(self.config, key)
        self.require(value is None or low < value < math.inf, key, f"be above {low}")

    def within(self, key: str, low: float, high: float) -> None:
        """Require low <= value < high, the range of dropout probabilities and momenta."""
        self.require(low <= getattr(self.config, key) < high, key, f"be at least {low} and below {high}")

    def done(self) -> None:
        """Raises UserError with one line per problem, if there are any."""
        if self.problems:
            raise UserError("\n".join(self.problems))
