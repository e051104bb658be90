"""The judges are tested with independent oracles, and with a model that knows only the format."""

import csv
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import equal, run_script, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.data.corpus import AdditionConfig, TenActionsConfig, WordsConfig
from lm.data.tokenizer.plain import Bytes, Chars
from lm.evaluate.tasks import TASKS, Rate, score_task, scoring, wilson_interval
from lm.evaluate.tasks.cases import Case
from lm.evaluate.tasks.scoring import FemtoGPTSampling, count_right, has_passed
from lm.model import GPT, GPTConfig

ROOT = Path(__file__).parents[1]


# ---- independent oracles


def result(prompt):
    """Return the right answer to a prompt of ten_actions."""
    *_, before, line = prompt.split("\n")
    data, action = line[:-1], int(line[-1])
    previous = re.findall("[a-f]+", before)[0]
    source = previous if action in (5, 6, 7, 8) else data
    letters = source[:3] if action in (1, 3, 5, 7) else source[-3:]
    if action in (3, 4, 7, 8):
        letters = letters.translate(str.maketrans("abcdef", "ghijkl"))
    return {0: "", 9: "z"}.get(action, letters) + ";\n"


def guess(prompt):
    """Return an answer of the right format with random letters."""
    action = int(prompt[-1])
    letters = "ghijkl" if action in (3, 4, 7, 8) else "abcdef"
    return {0: "", 9: "z"}.get(action, "".join(random.choices(letters, k=3))) + ";\n"


def add(prompt):
    a, b = map(int, re.findall(r"(\d+) \+ (\d+) = $", prompt)[0])
    return f"{a + b};\n"


def words(prompt):
    initials, text = [line[0] for line in prompt.splitlines()], ""
    for _ in range(12):
        first = next(c for c in "bcdfghjk" if c not in initials[-3:])
        rest = [c for c in "bcdfghjk" if c != first]
        text += f"{first}a{rest[0]}e{rest[1]}i;\n"
        initials.append(first)
    return text


def turn(prompt):
    letters, marks = "abcdefgh", "@#$%^"
    letter, mark = letters.index(prompt[-3]), marks.index(prompt[-1])
    return "".join(letters[(letter + n) % 8] + 2 * marks[(mark + n) % 5] for n in (1, 2))


def turn2(prompt):
    wheels = ("abc", "defg", "hijkl", "mnopqrs", "mnopqrs", "tuvwxyz0123")
    last = prompt.splitlines()[-1]
    return "".join(
        "".join(w[(w.index(c) + n) % len(w)] for w, c in zip(wheels, last, strict=False)) + ";\n" for n in (1, 2)
    )


ORACLES = {"ten_actions": result, "addition": add, "words": words, "sequence": turn, "sequence2": turn2}


def set_answers(monkeypatch, oracle):
    """Replace the model by a function of the prompt."""

    def generate_answers(model, tokenizer, cases, *_):
        return [oracle(case.prompt) for case in cases]

    monkeypatch.setattr(scoring, "generate_answers", generate_answers)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_pass(task, monkeypatch):
    set_answers(monkeypatch, ORACLES[task])
    found = score_task(None, Bytes([]), task)
    assert found and all(rate.right == rate.asked >= 100 for rate in found) and has_passed(found, "strict")


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_with_one_wrong_character_is_wrong(task, monkeypatch):
    set_answers(monkeypatch, lambda prompt: "x" + ORACLES[task](prompt)[1:])
    assert not has_passed(score_task(None, Bytes([]), task), "strict")


def test_guessing_solves_two_of_ten_actions_with_a_hundred_cases_each(monkeypatch):
    random.seed(0)
    set_answers(monkeypatch, guess)
    found = score_task(None, Bytes([]), "ten_actions")
    assert [(rate.kind, rate.asked) for rate in found] == [(str(i), 100) for i in range(10)]
    assert all(rate.right == 100 if rate.kind in "09" else rate.right <= 5 for rate in found)


def test_the_procedure_of_the_log_asks_a_hundred_successive_lines(monkeypatch):
    text = TenActionsConfig(lines=400, seed=77).generate().splitlines()
    seen = []
    set_answers(monkeypatch, lambda prompt: seen.append(prompt) or result(prompt) + "abcd0;\n")
    found = score_task(None, Bytes([]), "ten_actions", procedure="log", seed=77)
    assert len(seen) == sum(rate.asked for rate in found) == 100 and has_passed(found, "log")
    for i, prompt in enumerate(seen, start=4):
        beginning = re.match("[a-f]+[0-9]", text[i])[0]
        assert len(prompt) <= 60 and prompt == "\n".join([*text[max(0, i - 10) : i], beginning])[-60:]
    assert {rate.kind: rate.asked for rate in found} == Counter(re.match("[a-f]+([0-9])", t)[1] for t in text[4:104])
    set_answers(monkeypatch, lambda prompt: "x" * 50 + "\n")
    assert not any(rate.right for rate in score_task(None, Bytes([]), "ten_actions", procedure="log", seed=77))


def test_the_log_requires_more_than_70_percent_and_we_require_95():
    def rates(right):
        return [Rate("0", 100, 100), Rate("1", right, 100)]

    assert not has_passed(rates(70), "log") and has_passed(rates(71), "log")
    assert not has_passed(rates(94), "strict") and has_passed(rates(95), "strict")


def test_femtogpt_temperature_cuts_the_cumulative_probabilities():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(30_000, -1)
    u = torch.from_numpy(np.random.default_rng(0).random(30_000))
    share = torch.bincount(FemtoGPTSampling(0.6).choose(logits, u), minlength=3) / 30_000
    torch.testing.assert_close(share, torch.tensor([0.0, 5 / 6, 1 / 6]), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),  # Newcombe (1998), table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_wilson_interval_agrees_with_published_values(right, asked, low, high):
    assert wilson_interval(right, asked) == pytest.approx((low, high), abs=6e-5)
    assert wilson_interval(asked - right, asked) == pytest.approx((1 - high, 1 - low), abs=6e-5)


@pytest.mark.parametrize("task", TASKS)
def test_cases_depend_on_the_seed_alone_and_fit_small_contexts(task):
    corpus = TASKS[task].corpus()
    cases = TASKS[task].make_cases(corpus, 50, 5)
    assert cases == TASKS[task].make_cases(corpus, 50, 5)
    assert task == "sequence" or cases != TASKS[task].make_cases(corpus, 50, 6)
    assert all(0 < len(case.prompt) <= 60 for case in cases)


def test_words_are_judged_one_by_one():
    case = Case("valid", "baba;\ncaca;\ndada;\nfafa;\ngaga;\n", "")
    text = "hobi;\nbobi;\ngike;\ncabacu;\nbadefi;\nx"
    assert TASKS["words"].judge(case, text) == [
        ("spelling", True), ("initial", True), ("valid", True),  # h
        ("spelling", False), ("initial", True), ("valid", False),  # b twice
        ("spelling", True), ("initial", False), ("valid", False),  # g, h, b were the last three
        ("spelling", False), ("initial", True), ("valid", False),  # a twice
        ("spelling", True), ("initial", False), ("valid", False),  # b
    ]  # fmt: skip
    assert TASKS["words"].judge(case, "ba") == [("valid", False)]


# ---- sums kept out of training


def test_kept_out_pairs_never_occur_in_a_text():
    out = AdditionConfig.kept_out_pairs(0.1)
    assert len({frozenset(pair) for pair in out}) == 515  # of 5151
    assert all((b, a) in out for a, b in out) and out < AdditionConfig.kept_out_pairs(0.2)
    seen = set()
    for seed in (1, 2):
        text = AdditionConfig(lines=60_000, seed=seed, keep_out=0.1).generate()
        seen |= {(int(a), int(b)) for a, b in re.findall(r"(\d+) \+ (\d+)", text)}
    assert not seen & out and len(seen) > 101 * 101 - len(out) - 30


def test_the_probability_of_sums_with_kept_out_pairs_equals_that_of_counting():
    corpus = AdditionConfig(keep_out=0.4)
    lines = [
        f"{a} + {b} = {a + b};\n" for a in range(101) for b in range(101) if (a, b) not in corpus.kept_out_pairs(0.4)
    ]

    def begins(rest):
        if not rest:
            return 1.0
        hits = (
            1.0 if line.startswith(rest) else begins(rest[len(line) :]) if rest.startswith(line) else 0.0
            for line in lines
        )
        return sum(hits) / len(lines)

    text = AdditionConfig(lines=40, seed=3, keep_out=0.4).generate()
    for start in (0, 5, 100, 211):
        window = text[start : start + 22]
        whole = sum(
            1.0 if line[i:].startswith(window) else begins(window[len(line) - i :])
            for line in lines
            for i in range(len(line))
            if line[i:].startswith(window) or window.startswith(line[i:])
        )
        assert corpus.log_prob(window) == pytest.approx(math.log(whole / sum(map(len, lines))), abs=1e-9)
    kept = sorted(corpus.kept_out_pairs(0.4))[7]
    assert corpus.log_prob(f"\n{kept[0]} + {kept[1]} = ") == -math.inf


def test_kept_out_sums_are_a_kind_of_their_own():
    corpus = AdditionConfig(keep_out=0.1)
    cases = TASKS["addition"].make_cases(corpus, 200, 1)
    assert Counter(case.kind for case in cases) == {"in training": 200, "kept out": 200}
    for case in cases:
        *before, asked = [tuple(map(int, re.findall(r"\d+", line)[:2])) for line in case.prompt.split("\n")]
        assert (asked in corpus.kept_out_pairs(0.1)) == (case.kind == "kept out") and case.answer == f"{sum(asked)};\n"
        assert not set(before) & corpus.kept_out_pairs(0.1)
    everything = TASKS["addition"].make_cases(corpus, 5000, 1)
    assert {c.prompt.split("\n")[-1] for c in everything if c.kind == "kept out"} == {
        f"{a} + {b} = " for a, b in corpus.kept_out_pairs(0.1)
    }
    assert {case.kind for case in TASKS["addition"].make_cases(AdditionConfig(), 10, 1)} == {"in training"}


# ---- answers of a model


class Fixed(GPT):
    """A model that greedily writes the text `ids` after any prompt of `width` tokens."""

    def __init__(self, ids, width, vocab_size):
        super().__init__(GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=256), vocab_size)
        self.ids, self.width = ids, width
        self.eval()

    def features(self, ids, documents=None, cache=None):
        start = cache.length
        cache.length += ids.size(1)
        at = torch.arange(start, cache.length) - self.width + 1
        return at[None, :, None].expand(len(ids), -1, 1)

    def logits(self, x):
        ids = torch.tensor(self.ids)[x[..., 0].clamp(0, len(self.ids) - 1)]
        return torch.nn.functional.one_hot(ids, self.vocab_size).float()


def test_answers_come_from_the_real_decoder():
    tokenizer = Bytes([])
    cases = TASKS["ten_actions"].make_cases(TenActionsConfig(), 20, 6)
    wide = Counter(case.kind for case in cases if len(case.prompt) == 60)
    assert wide["0"] > 15 and wide["9"] > 15
    for text, kind in {";\n": "0", "z;\n": "9"}.items():
        parrot = Fixed(tokenizer.encode(text).tolist(), 60, tokenizer.vocab_size)
        found = score_task(parrot, tokenizer, "ten_actions", count=20, seed=6)
        assert {rate.kind: rate.right for rate in found if rate.right} == {kind: wide[kind]}


def test_each_case_has_its_own_random_numbers(monkeypatch):
    torch.manual_seed(0)
    chars = Chars("".join(sorted(set(WordsConfig().generate()))), [])
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=32), chars.vocab_size).eval()
    cases = [Case("valid", "baba;\n", "")] * 5
    texts = scoring.generate_answers(model, chars, cases, scoring.Sampling(1.0), 0, 6)
    assert len(set(texts)) == 5 and texts[:2] == scoring.generate_answers(
        model, chars, cases[:2], scoring.Sampling(1.0), 0, 6
    )


def test_a_task_that_cannot_be_asked_is_refused():
    chars = Chars("abc", [])
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=32), 3).eval()
    with pytest.raises(ValueError, match="the character vocabulary lacks"):
        score_task(model, chars, "ten_actions", count=1)
    with pytest.raises(ValueError, match="--procedure log is defined for --task ten_actions only, not for words"):
        score_task(model, chars, "words", procedure="log")


def test_rates_are_counted_by_kind():
    cases = [Case("a", "", "1"), Case("b", "", "1"), Case("a", "", "1")]
    found = count_right(cases, ["1", "2", "3"], TASKS["sequence"].judge)
    assert found == [Rate("a", 1, 2), Rate("b", 0, 1)]


# ---- during training


@pytest.mark.slow
def test_asking_a_task_during_training_does_not_change_the_weights(nano):
    run = nano(
        "callbacks.task.name=words", "callbacks.task.every=5", "callbacks.task.cases=3", "logger.tensorboard=true"
    )
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    asked = {int(row["step"]): row for row in rows if row["task/rate"]}
    assert sorted(asked) == [5, 10, 12] and all(
        0 <= float(r["task/least"]) <= float(r["task/rate"]) <= 1 for r in asked.values()
    )
    events = EventAccumulator(str(run)).Reload()
    assert {"task/rate", "task/least", "task/words/valid"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("task/rate")] == [5, 10, 12]
    assert equal(weights(run), weights(nano(name="unasked")))


def test_an_unknown_task_is_refused(nano):
    with pytest.raises(Exception, match="callbacks.task.name=wrods must be one of .*; did you mean 'words'"):
        nano("callbacks.task.name=wrods")


@pytest.mark.slow
def test_the_script_prints_a_table_of_kinds(nano):
    run = nano("callbacks.task.name=words")

    def evaluate(*args):
        return run_script("evaluate", run, *args)

    done = evaluate("--task", "words", "--cases", 10)
    assert done.returncode == 0 and "not passed: every kind needs at least 95 % right" in done.stdout
    found = json.loads(evaluate("--task", "words", "--cases", 10, "--json").stdout)
    assert found["passed"] is False and {rate["kind"] for rate in found["rates"]} >= {"valid"}
    for args, message in {
        ("--task", "ten_actions"): "the character vocabulary lacks",
        ("--task", "words", "--procedure", "log"): "--procedure log is defined for --task ten_actions only",
        ("--task", "words", "--cases", 0): "--cases=0 must be at least 1",
        ("--task", "words", "--corpus", "verdict"): "--task words uses a text of its own",
    }.items():
        done = evaluate(*args)
        assert done.returncode == 1 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
