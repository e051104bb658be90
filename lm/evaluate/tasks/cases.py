"""The tasks: texts that a model goes on from, and what is right behind them.

A case is drawn from a fresh text of the language, so a seed decides all of it. Prompts hold no more than PROMPT
characters, as in femtoGPT's log, whose models see 64.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm.data.corpus import AdditionConfig, CorpusConfig, Sequence2Config, SequenceConfig, TenActionsConfig, WordsConfig

Pick = Callable[[Sequence[Any]], Any]
PROMPT = 60  # characters
SEED = 1_000_003  # of the texts that cases are drawn from, which are so no text that a model was trained on


@dataclass(frozen=True)
class Case:
    kind: str  # the row of the table that it counts in
    prompt: str
    answer: str  # what must follow, to the character; where many answers are right, how long they can be


class Task:
    """One of the languages, and what is asked in it."""

    corpus: type[CorpusConfig]
    kind = "kind"  # what the rows of its table are called
    temperature = 0.0  # greedy, but where any right answer will do

    def cases(self, language: CorpusConfig, count: int, seed: int) -> list[Case]:
        """`count` cases of each kind, in the `language` as it is configured."""
        raise NotImplementedError

    def judge(self, case: Case, text: str) -> list[tuple[str, bool]]:
        """What of the text behind the prompt is right: one answer for each thing asked, by its kind."""
        return [(case.kind, text.startswith(case.answer))]


ACTION = re.compile("([a-f]{4,8})([0-9])([a-z]*;\n)")


class TenActions(Task):
    """A line up to its action; its result, the semicolon and the new line must follow. One kind for each action."""

    corpus = TenActionsConfig
    kind = "action"

    def cases(self, language: CorpusConfig, count: int, seed: int) -> list[Case]:
        found: list[Case] = []
        asked: Counter[str] = Counter()
        for lines, action, answer in self.walk(20 * count + 200, seed):
            if asked[action] < count:
                asked[action] += 1
                found.append(Case(action, lines[-PROMPT:], answer))
        assert set(asked.values()) == {count} and len(asked) == 10
        return sorted(found, key=lambda case: case.kind)

    @staticmethod
    def walk(lines: int, seed: int) -> Iterator[tuple[str, str, str]]:
        """From the fifth line on: up to ten lines before it and its beginning, its action, and its rest."""
        text = TenActionsConfig(lines=lines, seed=seed).generate().splitlines(keepends=True)
        for i, line in enumerate(text[4:], start=4):
            match = ACTION.fullmatch(line)
            assert match
            yield "".join(text[max(0, i - 10) : i]) + match[1] + match[2], match[2], match[3]


class Addition(Task):
    """Sums to be completed, behind two others. Two kinds: pairs of numbers that training knows, and those kept out."""

    corpus = AdditionConfig

    def cases(self, language: CorpusConfig, count: int, seed: int) -> list[Case]:
        assert isinstance(language, AdditionConfig)
        out = language.kept_out(language.keep_out)
        pick = replace(language, seed=seed).dice()
        known = [(a, b) for a in range(101) for b in range(101) if (a, b) not in out]

        def case(kind: str, pair: tuple[int, int]) -> Case:
            before = "".join(f"{a} + {b} = {a + b};\n" for a, b in (pick(known), pick(known)))
            return Case(kind, f"{before}{pair[0]} + {pair[1]} = ", f"{sum(pair)};\n")

        kinds = {"in training": known, "kept out": sorted(out)}
        return [case(kind, pair) for kind, pairs in kinds.items() if pairs for pair in self.drawn(pairs, count, pick)]

    @staticmethod
    def drawn(pairs: list[tuple[int, int]], count: int, pick: Pick) -> list[tuple[int, int]]:
        """All of them where there are no more than `count`, else so many."""
        return pairs if len(pairs) <= count else [pick(pairs) for _ in range(count)]


class Words(Task):
    """Ten words behind five of the language's own, at temperature 1, as there are many right ones.

    Two kinds: whether a word is spelt rightly, and whether its initial is none of the last three words'; `valid` is
    both at once.
    """

    corpus = WordsConfig
    temperature = 1.0
    words = 10

    def cases(self, language: CorpusConfig, count: int, seed: int) -> list[Case]:
        texts = WordsConfig(lines=5 * count, seed=seed).generate().splitlines(keepends=True)
        prompts = ["".join(texts[i : i + 5]) for i in range(0, 5 * count, 5)]
        return [Case("valid", prompt, "bababa;\n" * self.words) for prompt in prompts]

    def judge(self, case: Case, text: str) -> list[tuple[str, bool]]:
        before = [line[0] for line in case.prompt.splitlines()]
        found: list[tuple[str, bool]] = []
        for line in text.split("\n")[:-1][: self.words]:  # behind the last new line is no whole word
            spelt = bool(re.fullmatch("([bcdfghjk][aeiou]){2,3};", line)) and len(set(line)) == len(line)
            new = line[:1] not in before[-3:]
            found += [("spelling", spelt), ("initial", new), ("valid", spelt and new)]
            before.append(line[:1])
        return found or [("valid", False)]


class Turns(Task):
    """Ten turns of the wheels, anywhere; the next two must follow."""

    corpus = SequenceConfig
    turns, lookback = 40, 10

    def cases(self, language: CorpusConfig, count: int, seed: int) -> list[Case]:
        assert isinstance(language, SequenceConfig)
        pick, width = replace(language, seed=seed).dice(), len(language.wheels)
        text = self.clean(language)
        found = []
        for _ in range(count):
            start = width * pick(range(self.turns))
            end = start + width * self.lookback
            found.append(Case("next two", text[start:end], text[end : end + 2 * width]))
        return found

    def clean(self, language: SequenceConfig) -> str:
        return SequenceConfig(lines=self.turns + self.lookback + 2).generate()


class Turns2(Turns):
    """Three lines of the wheels, anywhere; the next two must follow."""

    corpus = Sequence2Config
    turns, lookback = 4620, 3

    def clean(self, language: SequenceConfig) -> str:
        return Sequence2Config(lines=self.turns + self.lookback + 2).generate()


TASKS: dict[str, Task] = {
    "ten_actions": TenActions(), "addition": Addition(), "words": Words(), "sequence": Turns(),
    "sequence2": Turns2(),
}  # fmt: skip
