"""How a model is examined: strictly, and as femtoGPT's log did it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.data.corpus import CorpusConfig
from lm.data.tokenizer import Tokenizer
from lm.evaluate.tasks.cases import PROMPT, SEED, TASKS, Case, TenActions
from lm.generate import GenerationRequest, Sampling, complete
from lm.model import GPT

BATCH = 128  # prompts at a time
PASS = {"strict": 0.95, "log": 0.7}  # what every kind must reach, or exceed: the log wants more than 70 %
PROCEDURES = tuple(PASS)


@dataclass(frozen=True)
class Rate:
    kind: str
    right: int
    asked: int

    @property
    def rate(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.asked)


def wilson(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Where a rate lies with 95 % certainty (Wilson 1927): unlike the usual interval, right for rates near 0 and 1."""
    p, n = right / asked, asked
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def score_task(
    model: GPT,
    tokenizer: Tokenizer,
    task: str,
    language: CorpusConfig | None = None,
    procedure: str = "strict",
    count: int = 100,
    seed: int = SEED,
) -> list[Rate]:
    """Rates by kind, in order. `count` cases of each kind, or with the procedure `log` in all.

    `language` is the corpus that the model was trained on; of another kind, or None, the task's own with its defaults.
    Raises UserError for a procedure that the task has not, and for a tokenizer that cannot spell the language.
    """
    asked = TASKS[task]
    if not isinstance(language, asked.corpus):
        language = asked.corpus()
    if procedure == "log":
        return as_the_log(model, tokenizer, task, count, seed)
    cases = asked.cases(language, count, seed)
    sampling = Sampling(asked.temperature)
    length = max(len(tokenizer.encode(case.answer)) for case in cases)
    return score_rates(cases, answers(model, tokenizer, cases, sampling, seed, length), asked.judge)


def as_the_log(model: GPT, tokenizer: Tokenizer, task: str, count: int, seed: int) -> list[Rate]:
    """femtoGPT's own procedure, for the one task that it had one for: successive lines of a fresh text from the fifth
    on, drawn at its temperature 0.5, 100 tokens; right when the line is anywhere in prompt and answer together."""
    if task != "ten_actions":
        raise UserError(f"--procedure log: femtoGPT's log has one for ten_actions only, and none for {task}")
    cases, whole = [], {}
    for text, action, rest in TenActions.walk(count + 200, seed):
        case = Case(action, text[-PROMPT:], rest)
        whole[case.prompt] = text[text.rfind("\n") + 1 :] + rest
        cases.append(case)
        if len(cases) == count:
            break
    texts = answers(model, tokenizer, cases, Dice(0.5), seed, 100)
    return sorted(
        score_rates(cases, texts, lambda case, text: [(case.kind, whole[case.prompt] in case.prompt + text)]),
        key=lambda rate: rate.kind,
    )


class Dice(Sampling):
    """What femtoGPT calls temperature: a die in [0, temperature) among the probabilities, the highest first."""

    def choose(self, logits: Tensor, u: Tensor, seen: Tensor | None = None) -> Tensor:
        ordered, ids = logits.double().softmax(-1).sort(descending=True)
        place = torch.searchsorted(ordered.cumsum(-1), (self.temperature * u)[:, None], right=True)
        return ids.gather(-1, place.clamp(max=ids.size(-1) - 1)).squeeze(-1)


def answers(
    model: GPT, tokenizer: Tokenizer, cases: Sequence[Case], sampling: Sampling, seed: int, length: int
) -> list[str]:
    """What the model writes behind each prompt, `length` tokens, each with random numbers of its own."""
    wanted = GenerationRequest(length, sampling, seed=seed)
    texts: list[str] = []
    for start in range(0, len(cases), BATCH):
        prompts = [case.prompt for case in cases[start : start + BATCH]]
        numbers = range(start, start + len(prompts))
        texts += [c.text for c in complete(model, tokenizer, prompts, wanted, numbers=numbers)]
    return texts


def score_rates(
    cases: Sequence[Case], texts: Sequence[str], judge: Callable[[Case, str], list[tuple[str, bool]]]
) -> list[Rate]:
    found: dict[str, list[bool]] = defaultdict(list)
    for case, text in zip(cases, texts, strict=True):
        for kind, right in judge(case, text):
            found[kind].append(right)
    return [Rate(kind, sum(right), len(right)) for kind, right in found.items()]


def passed(found: Sequence[Rate], procedure: str) -> bool:
    least = min(rate.rate for rate in found)
    return least > PASS["log"] if procedure == "log" else least >= PASS["strict"]
