"""Three of femtoGPT's synthetic corpora.

They come from known distributions, so the lowest possible loss of a model is known too.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from lm.base.checks import Check
from lm.data.corpus.base import CorpusConfig
from lm.data.corpus.text import Stream
from lm.data.download import Downloads


@dataclass
class GeneratedConfig(CorpusConfig):
    """Base class of synthetic corpora. A subclass implements its grammar in two methods.

    `generate` writes text: the same bytes on every machine and with every version of Python. `log_prob` returns the
    exact log-probability of a window of one or more characters from an endless text; -inf if the window is impossible.

    The entropies below are in nats per character, given the whole text before it. A model that sees only a window must
    first find out where in a line the window begins, so its loss is higher; `log_prob` gives the lowest possible loss.
    """

    lines: int = 8000  # lines of text to generate
    seed: int = 1  # seed of the generator: the same seed gives the same text everywhere

    def check(self, check: Check) -> None:
        check.at_least("lines", 1)

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        return {"train": [self.generate()]}

    def generate(self) -> str:
        raise NotImplementedError

    def log_prob(self, window: str) -> float:
        raise NotImplementedError

    def seeded_choice(self) -> Callable[[Sequence[Any]], Any]:
        """Return a function that picks an element of a sequence at random, seeded with `seed`.

        It uses only `Random.random`, the one generator whose numbers Python guarantees not to change.
        """
        random = Random(self.seed).random
        return lambda options: options[int(random() * len(options))]


def safe_log(probability: float) -> float:
    """Return the logarithm; -inf for 0."""
    return math.log(probability) if probability else -math.inf


@dataclass
class WordsConfig(GeneratedConfig):
    """One synthetic word of alternating consonants and vowels on each line, e.g. `gakebo;`.

    No letter occurs twice in a word. A word does not begin with the first letter of one of the last three words. It has
    four or six letters, with equal probability. The entropy is 1.2413. Tests spelling and a short memory; the lowest
    possible loss without that memory is 1.3085.
    """

    def generate(self) -> str:
        pick = self.seeded_choice()
        words: list[str] = []
        for _ in range(self.lines):
            taken = [previous[0] for previous in words[-3:]]
            word = pick([c for c in "bcdfghjk" if c not in taken])
            while len(word) < 4 or (len(word) == 4 and pick([True, False])) or len(word) == 5:
                word += pick([c for c in ("aeiou" if len(word) % 2 else "bcdfghjk") if c not in word])
            words.append(word)
        return "".join(word + ";\n" for word in words) + "\n"

    def log_prob(self, window: str) -> float:
        shapes, kinds = ("CVCV;\n", "CVCVCV;\n"), str.maketrans("bcdfghjkaeiou", "C" * 8 + "V" * 5)
        first, *lines = window.splitlines(keepends=True)
        initials = "".join(part[0] for part in lines)
        if set(window) - set("bcdfghjkaeiou;\n") or re.search(r"(.).{0,2}\1", initials):
            return -math.inf

        def letters(part: str) -> float:
            """Return the probability of the letters of a part of a word, which does not depend on their positions."""
            word = part.rstrip(";\n")
            vowels = sum(map(word.count, "aeiou"))
            return 1 / math.perm(8, len(word) - vowels) / math.perm(5, vowels) if len(set(word)) == len(word) else 0.0

        def line(part: str) -> float:
            """Return the probability of a line or its beginning. Its initial is one of five letters, not of eight."""
            return sum(shape.startswith(part.translate(kinds)) for shape in shapes) / 2 * letters(part) * 8 / 5

        # The window begins at any of the 6 + 8 characters of a short and a long line: at the initial, or after it.
        at = 2 / 14 * line(first) * (first[0] not in initials[:3])
        places = sum(shape.startswith(first.translate(kinds), i) for shape in shapes for i in range(1, len(shape)))
        start = 0.0
        for p, rest, seen in (at, "", first[0] + initials), (places / 14 * letters(first), first, initials):
            # The three initials before those seen are equally likely; only the last is not in the rest of its word.
            used = set(rest) & set("bcdfghjk")
            agree = (8 - len(used | set(seen[:3]))) * (7 - len(seen[:2])) * (6 - len(seen[:1]))
            start += p * agree / ((8 - len(used)) * 7 * 6)
        return safe_log(start) + sum(safe_log(line(part)) for part in lines)


@dataclass
class AdditionConfig(GeneratedConfig):
    """Sums of two numbers from 0 to 100, e.g. `13 + 29 = 42;`.

    The entropy is 0.6445. Tests arithmetic: a model that knows the format and the frequency of each sum, but cannot
    add, reaches 1.0017.
    """

    # share of the pairs of numbers that never occur in the text, in either order, so that they can be tested later
    keep_out: float = 0.0

    def check(self, check: Check) -> None:
        super().check(check)
        check.within("keep_out", 0, 1)

    def generate(self) -> str:
        pick, lines = self.seeded_choice(), self.tables(self.keep_out)[0]
        return "".join(pick(lines) for _ in range(self.lines))

    @staticmethod
    @lru_cache
    def kept_out_pairs(share: float) -> frozenset[tuple[int, int]]:
        """Return the pairs that do not occur in the text, in both orders.

        They are the same for every seed, and a larger share includes those of a smaller one.
        """
        random = Random(0).random
        order = sorted((random(), a, b) for a in range(101) for b in range(a, 101))
        pairs = [(a, b) for _, a, b in order[: round(share * len(order))]]
        return frozenset(pairs + [(b, a) for a, b in pairs])

    @classmethod
    @lru_cache
    def tables(cls, keep_out: float = 0.0) -> tuple[list[str], list[str]]:
        """Return all lines, and all non-empty endings of lines; both sorted."""
        out = cls.kept_out_pairs(keep_out)
        lines = [f"{a} + {b} = {a + b};\n" for a in range(101) for b in range(101) if (a, b) not in out]
        return sorted(lines), sorted(line[i:] for line in lines for i in range(len(line)))

    def log_prob(self, window: str) -> float:
        def share(table: list[str], beginning: str) -> float:
            return (bisect_left(table, beginning + "\x7f") - bisect_left(table, beginning)) / len(table)

        lines, endings = self.tables(self.keep_out)
        first, *rest = window.splitlines(keepends=True)
        return safe_log(share(endings, first)) + sum(safe_log(share(lines, part)) for part in rest)


@dataclass
class TenActionsConfig(GeneratedConfig):
    """Four to eight letters, an action, and its result, e.g. `fabcd4hij;`.

    Action 0 has no result, and action 9 has the result `z`. Actions 1 and 2 copy the first and the last three letters;
    actions 3 and 4 do the same with a to f written as g to l; actions 5 to 8 apply actions 1 to 4 to the line before.
    The entropy is 1.2750. Tests copying, mapping and looking back: a model that can do none of these reaches 1.6489,
    and each of the eight actions is worth 0.0467.
    """

    lines: int = 50000  # lines of text to generate; actions 5 to 8 need an earlier line and produce none without one

    def generate(self) -> str:
        pick = self.seeded_choice()
        text: list[str] = []
        previous: list[int] = []
        for _ in range(self.lines):
            data = [pick(range(6)) for _ in range(pick(range(4, 9)))]
            action = pick(range(10))
            if previous or not 5 <= action <= 8:
                text += (alphabet[i] for i, alphabet in self.line(action, data, previous))
                previous = data
        return "".join(text)

    @staticmethod
    def line(action: int, data: Sequence[int], previous: Sequence[int]) -> list[tuple[int, str]]:
        """Return each character of a line as its index in an alphabet, and that alphabet.

        The alphabet of a fixed character has only this character.
        """
        source = previous if action > 4 else data
        alphabet = "ghijkl" if action in (3, 4, 7, 8) else "abcdef"
        result = [(i, alphabet) for i in (source[:3] if action % 2 else source[-3:])]
        result = {0: [], 9: [(0, "z")]}.get(action, result)
        return [(i, "abcdef") for i in data] + [(0, str(action)), *result, (0, ";"), (0, "\n")]

    def log_prob(self, window: str) -> float:
        first, *lines = window.splitlines(keepends=True)
        data = [["abcdef".index(c) for c in re.findall("^[a-f]*", part)[0]] for part in lines]
        letters = {i: i for i in range(6)}  # keyed by index in the alphabet; indices from 6 on are letters not seen yet

        def reads(part: str, line: list[tuple[int, str]], known: dict[int, int]) -> float:
            """Return the probability that `line` reads `part`, and add the letters that this reveals to `known`.

            Each letter that was unknown before is one of six.
            """
            before = len(known)
            for c, (i, alphabet) in zip(part, line, strict=False):
                letter = alphabet.find(c)
                if letter < 0 or known.setdefault(i, letter) != letter:
                    return 0.0
            return 6.0 ** (before - len(known))

        def probability(previous: Sequence[int], i: int, known: dict[int, int]) -> float:
            """Return the probability of line i, or its beginning, after a line with the letters `previous`."""
            p, length, action = 6.0 ** -len(data[i]), len(data[i]), lines[i][len(data[i]) :][:1]
            if action.isdecimal() and 4 <= length <= 8:
                return p / 50 * reads(lines[i], self.line(int(action), data[i], previous), known)
            return 0.0 if action else p * max(0, min(5, 9 - length)) / 5  # the share of lengths that are possible

        start = 0.0
        for own in (range(6, 6 + length) for length in range(4, 9)):
            for line in (self.line(action, own, range(14, 22)) for action in range(10)):
                for offset in range(len(line)):
                    known = dict(letters)
                    p = reads(first, line[offset:], known)
                    start += p * probability(own, 0, known) if p and lines else p
        start /= 575  # the number of characters in these fifty lines
        return safe_log(start) + sum(safe_log(probability(data[i - 1], i, dict(letters))) for i in range(1, len(lines)))
