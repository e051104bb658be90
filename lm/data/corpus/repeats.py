"""Random letters that repeat: a text that only copying can predict, to see how induction heads form."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import ClassVar

from lm.data.corpus.generated import GeneratedConfig, safe_log


@dataclass
class RepeatsConfig(GeneratedConfig):
    """Lines of random letters, each written twice, e.g. `kqzbkqzb`.

    A line has 4 to 12 different letters, with equal probability, so that the distance of a copy varies. The entropy is
    1.5813. Tests copying: the second half of a line can be predicted only from the first (Olsson et al. 2022).
    """

    letters: ClassVar[str] = string.ascii_lowercase
    lengths: ClassVar[range] = range(4, 13)  # letters of a line, before they repeat

    def generate(self) -> str:
        pick = self.seeded_choice()
        lines = []
        for _ in range(self.lines):
            left, line = list(self.letters), ""
            for _ in range(pick(self.lengths)):
                line += left.pop(left.index(pick(left)))
            lines.append(line + line + "\n")
        return "".join(lines)

    def log_prob(self, window: str) -> float:
        first, *lines = window.splitlines(keepends=True)
        places = [(n, start) for n in self.lengths for start in range(2 * n + 1)]
        p = sum(self.part(first, n, start) for n, start in places) / len(places)
        return safe_log(p) + sum(
            safe_log(sum(self.part(line, n, 0) for n in self.lengths) / len(self.lengths)) for line in lines
        )

    def part(self, text: str, n: int, start: int) -> float:
        """Return the probability of `text` from character `start` of a line of n letters."""
        seen: dict[int, str] = {}  # letters by their place in the first half
        p = 1.0
        for i, c in enumerate(text, start):
            if i >= 2 * n or c not in self.letters:
                if i != 2 * n or c != "\n":
                    return 0.0
            elif i % n not in seen:
                if c in seen.values():
                    return 0.0
                p /= len(self.letters) - len(seen)
                seen[i % n] = c
            elif seen[i % n] != c:
                return 0.0
        return p
