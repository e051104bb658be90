"""Cases of the tasks: prompts for a model, and the answers that are right.

Cases are drawn from a fresh text of the synthetic corpus, so they depend on the seed alone. Prompts have at most PROMPT
characters, as in femtoGPT's log, whose models have a context of 64.
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
SEED = 1_000_003  # of the texts that cases are drawn from; no model should be trained on a text of this seed


@dataclass(frozen=True)
class Case:
    """A prompt and its right answer."""

    kind: str  # the group that the case counts in, a row of the table
    prompt: str
    answer: str  # the exact text that must follow; if many answers are right, an example of the greatest length


class Task:
    """A synthetic corpus and the questions about it."""

    corpus: type[CorpusConfig]
    kind = "kind"  # heading of the column of kinds
    temperature = 0.0  # greedy, except if many answers are right

    def make_cases(self, corpus: CorpusConfig, count: int, seed: int) -> list[Case]:
        """Draw `count` cases of each kind from the configured `corpus`."""
        raise NotImplementedError

    def judge(self, case: Case, text: str) -> list[tuple[str, bool]]:
        """Judge the text generated after a prompt: (kind, is it right) for each question that the case asks."""
        return [(case.kind, text.startswith(case.answer))]


ACTION = re.compile("([a-f]{4,8})([0-9])([a-z]*;\n)")


class TenActions(Task):
    """Lines up to their action; the result, the semicolon and the new line must follow. Each action is a kind."""

    corpus = TenActionsConfig
    kind = "action"

    def make_cases(self, corpus: CorpusConfig, count: int, seed: int) -> list[Case]:
        cases: list[Case] = []
        drawn: Counter[str] = Counter()
        for lines, action, answer in self.split_lines(20 * count + 200, seed):
            if drawn[action] < count:
                drawn[action] += 1
                cases.append(Case(action, lines[-PROMPT:], answer))
        assert set(drawn.values()) == {count} and len(drawn) == 10
        return sorted(cases, key=lambda case: case.kind)

    @staticmethod
    def split_lines(lines: int, seed: int) -> Iterator[tuple[str, str, str]]:
        """Split each line of a text, from the fifth on, into a prompt, its action, and its answer.

        The prompt consists of up to ten preceding lines and the line up to its action.
        """
        text = TenActionsConfig(lines=lines, seed=seed).generate().splitlines(keepends=True)
        for i, line in enumerate(text[4:], start=4):
            match = ACTION.fullmatch(line)
            assert match
            yield "".join(text[max(0, i - 10) : i]) + match[1] + match[2], match[2], match[3]


class Addition(Task):
    """Sums to be completed, after two complete sums. The kinds are pairs used in training, and pairs kept out of it."""

    corpus = AdditionConfig

    def make_cases(self, corpus: CorpusConfig, count: int, seed: int) -> list[Case]:
        assert isinstance(corpus, AdditionConfig)
        out = corpus.kept_out_pairs(corpus.keep_out)
        pick = replace(corpus, seed=seed).seeded_choice()
        known = [(a, b) for a in range(101) for b in range(101) if (a, b) not in out]

        def make_case(kind: str, pair: tuple[int, int]) -> Case:
            before = "".join(f"{a} + {b} = {a + b};\n" for a, b in (pick(known), pick(known)))
            return Case(kind, f"{before}{pair[0]} + {pair[1]} = ", f"{sum(pair)};\n")

        kinds = {"in training": known, "kept out": sorted(out)}
        return [
            make_case(kind, pair)
            for kind, pairs in kinds.items()
            if pairs
            for pair in self.sample_pairs(pairs, count, pick)
        ]

    @staticmethod
    def sample_pairs(pairs: list[tuple[int, int]], count: int, pick: Pick) -> list[tuple[int, int]]:
        """Return all pairs if there are at most `count`, otherwise `count` random ones."""
        return pairs if len(pairs) <= count else [pick(pairs) for _ in range(count)]


class Words(Task):
    """Ten words after five words of the corpus, at temperature 1 because many words are right.

    `spelling` counts the words that follow the spelling rules, `initial` the words whose initial differs from the
    initials of the last three words, and `valid` the words that do both.
    """

    corpus = WordsConfig
    temperature = 1.0
    words = 10

    def make_cases(self, corpus: CorpusConfig, count: int, seed: int) -> list[Case]:
        texts = WordsConfig(lines=5 * count, seed=seed).generate().splitlines(keepends=True)
        prompts = ["".join(texts[i : i + 5]) for i in range(0, 5 * count, 5)]
        return [Case("valid", prompt, "bababa;\n" * self.words) for prompt in prompts]

    def judge(self, case: Case, text: str) -> list[tuple[str, bool]]:
        initials = [line[0] for line in case.prompt.splitlines()]
        results: list[tuple[str, bool]] = []
        for line in text.split("\n")[:-1][: self.words]:  # what follows the last new line is not a whole word
            spelled = bool(re.fullmatch("([bcdfghjk][aeiou]){2,3};", line)) and len(set(line)) == len(line)
            new = line[:1] not in initials[-3:]
            results += [("spelling", spelled), ("initial", new), ("valid", spelled and new)]
            initials.append(line[:1])
        return results or [("valid", False)]


class Turns(Task):
    """Ten steps of the sequence, from a random place; the next two must follow."""

    corpus = SequenceConfig
    turns, lookback = 40, 10

    def make_cases(self, corpus: CorpusConfig, count: int, seed: int) -> list[Case]:
        assert isinstance(corpus, SequenceConfig)
        pick, width = replace(corpus, seed=seed).seeded_choice(), len(corpus.cycles)
        text = self.clean_text()
        cases = []
        for _ in range(count):
            start = width * pick(range(self.turns))
            end = start + width * self.lookback
            cases.append(Case("next two", text[start:end], text[end : end + 2 * width]))
        return cases

    def clean_text(self) -> str:
        """Return a text without noise that holds every case."""
        return SequenceConfig(lines=self.turns + self.lookback + 2).generate()


class Turns2(Turns):
    """Three lines of the sequence, from a random place; the next two must follow."""

    corpus = Sequence2Config
    turns, lookback = 4620, 3

    def clean_text(self) -> str:
        return Sequence2Config(lines=self.turns + self.lookback + 2).generate()


TASKS: dict[str, Task] = {
    "ten_actions": TenActions(),
    "addition": Addition(),
    "words": Words(),
    "sequence": Turns(),
    "sequence2": Turns2(),
}
