"""Ask a model the cases of a task, by our strict procedure or by that of femtoGPT's log, and compute success rates."""

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
PASS = {"strict": 0.95, "log": 0.7}  # success rate that every kind must reach (strict) or exceed (log)
PROCEDURES = tuple(PASS)


@dataclass(frozen=True)
class Rate:
    """The success rate of one kind of cases."""

    kind: str
    right: int
    asked: int

    @property
    def rate(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.right, self.asked)


def wilson_interval(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % confidence interval of a success rate (Wilson 1927).

    Unlike the normal approximation, it is accurate for rates near 0 and 1.
    """
    p, n = right / asked, asked
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def score_task(
    model: GPT,
    tokenizer: Tokenizer,
    task: str,
    corpus: CorpusConfig | None = None,
    procedure: str = "strict",
    count: int = 100,
    seed: int = SEED,
) -> list[Rate]:
    """Return the success rate of each kind, from `count` cases of each kind (with the procedure `log`: in total).

    `corpus` is the corpus that the model was trained on. If it is None or does not belong to the task, the task's own
    corpus is used with its default settings. Raises UserError for a procedure that the task does not have, and for a
    tokenizer that cannot encode the corpus.
    """
    definition = TASKS[task]
    if not isinstance(corpus, definition.corpus):
        corpus = definition.corpus()
    if procedure == "log":
        return score_as_in_log(model, tokenizer, task, count, seed)
    cases = definition.make_cases(corpus, count, seed)
    sampling = Sampling(definition.temperature)
    length = max(len(tokenizer.encode(case.answer)) for case in cases)
    texts = generate_answers(model, tokenizer, cases, sampling, seed, length)
    return count_right(cases, texts, definition.judge)


def score_as_in_log(model: GPT, tokenizer: Tokenizer, task: str, count: int, seed: int) -> list[Rate]:
    """Score the task `ten_actions` by the procedure of femtoGPT's log.

    The prompts end in successive lines of a fresh text, from the fifth line on. The model writes 100 tokens at
    femtoGPT's temperature 0.5. A case is right if its complete line occurs anywhere in the prompt and the answer
    together.
    """
    if task != "ten_actions":
        raise UserError(f"--procedure log is defined for --task ten_actions only, not for {task}; use strict")
    cases, whole_lines = [], {}
    for text, action, rest in TenActions.split_lines(count + 200, seed):
        case = Case(action, text[-PROMPT:], rest)
        whole_lines[case.prompt] = text[text.rfind("\n") + 1 :] + rest
        cases.append(case)
        if len(cases) == count:
            break
    texts = generate_answers(model, tokenizer, cases, FemtoGPTSampling(0.5), seed, 100)
    rates = count_right(cases, texts, lambda case, text: [(case.kind, whole_lines[case.prompt] in case.prompt + text)])
    return sorted(rates, key=lambda rate: rate.kind)


class FemtoGPTSampling(Sampling):
    """Sampling with femtoGPT's meaning of temperature.

    The random number is drawn from [0, temperature) and looked up in the cumulative probabilities of the tokens,
    beginning with the most probable one.
    """

    def choose(self, logits: Tensor, u: Tensor, seen: Tensor | None = None) -> Tensor:
        ordered, ids = logits.double().softmax(-1).sort(descending=True)
        place = torch.searchsorted(ordered.cumsum(-1), (self.temperature * u)[:, None], right=True)
        return ids.gather(-1, place.clamp(max=ids.size(-1) - 1)).squeeze(-1)


def generate_answers(
    model: GPT, tokenizer: Tokenizer, cases: Sequence[Case], sampling: Sampling, seed: int, length: int
) -> list[str]:
    """Return the `length` tokens of text that the model writes after each prompt.

    Each case is drawn with its own random numbers.
    """
    request = GenerationRequest(length, sampling, seed=seed)
    texts: list[str] = []
    for start in range(0, len(cases), BATCH):
        prompts = [case.prompt for case in cases[start : start + BATCH]]
        numbers = range(start, start + len(prompts))
        texts += [c.text for c in complete(model, tokenizer, prompts, request, numbers=numbers)]
    return texts


def count_right(
    cases: Sequence[Case], texts: Sequence[str], judge: Callable[[Case, str], list[tuple[str, bool]]]
) -> list[Rate]:
    """Judge the text of each case, and return the success rate of each kind."""
    results: dict[str, list[bool]] = defaultdict(list)
    for case, text in zip(cases, texts, strict=True):
        for kind, right in judge(case, text):
            results[kind].append(right)
    return [Rate(kind, sum(right), len(right)) for kind, right in results.items()]


def has_passed(rates: Sequence[Rate], procedure: str) -> bool:
    """Tell whether every kind reaches the success rate that the procedure requires."""
    lowest = min(rate.rate for rate in rates)
    return lowest > PASS["log"] if procedure == "log" else lowest >= PASS["strict"]
