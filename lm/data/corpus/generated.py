"""Three of femtoGPT's made-up languages. Their laws are known, so one can say how far from the best a model is."""

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
    """A language knows its grammar twice: `generate` writes text, the same bytes on every machine and for ever, and
    `log_prob` is exact about windows of such text without end, of one character or more; -inf for impossible ones.

    The entropy rates below are in nats per character, with all that came before in view. A model that sees a window
    must first find out where in a line it begins, and loses more; how much at least, `log_prob` tells.
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

    def dice(self) -> Callable[[Sequence[Any]], Any]:
        """Picks one of a sequence, by the one stream of random numbers that Python promises never to change."""
        random = Random(self.seed).random
        return lambda options: options[int(random() * len(options))]


def safe_log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


@dataclass
class WordsConfig(GeneratedConfig):
    """One made-up word of alternating consonants and vowels a line, e.g. `gakebo;`.

    No letter occurs twice in a word, a first letter is none of the last three words', a word has four or six letters
    with equal chance. Entropy 1.2413. Probes spelling and a short memory: without the latter 1.3085 is the best.
    """

    def generate(self) -> str:
        pick = self.dice()
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
            """Whatever their places in a word: what has not been seen of it makes no difference."""
            word = part.rstrip(";\n")
            vowels = sum(map(word.count, "aeiou"))
            return 1 / math.perm(8, len(word) - vowels) / math.perm(5, vowels) if len(set(word)) == len(word) else 0.0

        def line(part: str) -> float:
            """A line or its beginning. The initial is one of five letters, not of eight."""
            return sum(shape.startswith(part.translate(kinds)) for shape in shapes) / 2 * letters(part) * 8 / 5

        # The window begins at any of the 6 + 8 characters of a short and a long line: at the initial, or behind it.
        at = 2 / 14 * line(first) * (first[0] not in initials[:3])
        places = sum(shape.startswith(first.translate(kinds), i) for shape in shapes for i in range(1, len(shape)))
        start = 0.0
        for p, rest, seen in (at, "", first[0] + initials), (places / 14 * letters(first), first, initials):
            # All three initials before those seen are equally likely, if only the last is not in the rest of its word.
            used = set(rest) & set("bcdfghjk")
            agree = (8 - len(used | set(seen[:3]))) * (7 - len(seen[:2])) * (6 - len(seen[:1]))
            start += p * agree / ((8 - len(used)) * 7 * 6)
        return safe_log(start) + sum(safe_log(line(part)) for part in lines)


@dataclass
class AdditionConfig(GeneratedConfig):
    """Sums of two numbers from 0 to 100, e.g. `13 + 29 = 42;`.

    Entropy 0.6445. Probes arithmetic: who knows the format and which sums are frequent, but cannot add, gets to 1.0017.
    """

    # share of the pairs of numbers that occur nowhere in the text, in neither order, to test with later
    keep_out: float = 0.0

    def check(self, check: Check) -> None:
        super().check(check)
        check.within("keep_out", 0, 1)

    def generate(self) -> str:
        pick, lines = self.dice(), self.tables(self.keep_out)[0]
        return "".join(pick(lines) for _ in range(self.lines))

    @staticmethod
    @lru_cache
    def kept_out(share: float) -> frozenset[tuple[int, int]]:
        """The pairs, in both orders: the same for every seed, and more of them with a larger share."""
        random = Random(0).random
        order = sorted((random(), a, b) for a in range(101) for b in range(a, 101))
        chosen = [(a, b) for _, a, b in order[: round(share * len(order))]]
        return frozenset(chosen + [(b, a) for a, b in chosen])

    @classmethod
    @lru_cache
    def tables(cls, keep_out: float = 0.0) -> tuple[list[str], list[str]]:
        """All lines, and all their endings that begin at one of their characters; both sorted."""
        out = cls.kept_out(keep_out)
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
    """Four to eight letters, an action, and what it results in, e.g. `fabcd4hij;`.

    0 results in nothing, 9 in `z`; 1 and 2 in the first and the last three letters, 3 and 4 in the same with a to f
    written as g to l, 5 to 8 in those of the line before. Entropy 1.2750. Probes copying, mapping and looking back:
    who can do none of these gets to 1.6489, and each of the eight actions is worth 0.0467.
    """

    lines: int = 50000  # lines of text to generate; actions 5 to 8 need an earlier line and produce none without one

    def generate(self) -> str:
        pick = self.dice()
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
        """Each character as its place in an alphabet, which may be of a single character."""
        source = previous if action > 4 else data
        alphabet = "ghijkl" if action in (3, 4, 7, 8) else "abcdef"
        result = [(i, alphabet) for i in (source[:3] if action % 2 else source[-3:])]
        result = {0: [], 9: [(0, "z")]}.get(action, result)
        return [(i, "abcdef") for i in data] + [(0, str(action)), *result, (0, ";"), (0, "\n")]

    def log_prob(self, window: str) -> float:
        first, *lines = window.splitlines(keepends=True)
        data = [["abcdef".index(c) for c in re.findall("^[a-f]*", part)[0]] for part in lines]
        letters = {i: i for i in range(6)}  # by place in the alphabet; from 6 on they are letters not seen yet

        def reads(part: str, line: list[tuple[int, str]], known: dict[int, int]) -> float:
            """Adds to `known` what `part` tells about the letters not seen before, each one of six."""
            before = len(known)
            for c, (i, alphabet) in zip(part, line, strict=False):
                letter = alphabet.find(c)
                if letter < 0 or known.setdefault(i, letter) != letter:
                    return 0.0
            return 6.0 ** (before - len(known))

        def behind(previous: Sequence[int], i: int, known: dict[int, int]) -> float:
            """Line i or its beginning, behind one with the letters `previous`."""
            p, length, action = 6.0 ** -len(data[i]), len(data[i]), lines[i][len(data[i]) :][:1]
            if action.isdecimal() and 4 <= length <= 8:
                return p / 50 * reads(lines[i], self.line(int(action), data[i], previous), known)
            return 0.0 if action else p * max(0, min(5, 9 - length)) / 5  # of five lengths

        start = 0.0
        for own in (range(6, 6 + length) for length in range(4, 9)):
            for line in (self.line(action, own, range(14, 22)) for action in range(10)):
                for offset in range(len(line)):
                    known = dict(letters)
                    p = reads(first, line[offset:], known)
                    start += p * behind(own, 0, known) if p and lines else p
        start /= 575  # characters in these fifty lines
        return safe_log(start) + sum(safe_log(behind(data[i - 1], i, dict(letters))) for i in range(1, len(lines)))
