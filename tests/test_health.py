"""Advice: each kind at its threshold, by a real run that earns it, and none for a run that does well."""

import csv
import logging
import math
from dataclasses import replace

import pytest
import torch

from lm.training.health import Facts, Health
from lm.training.module import LanguageModule

GOOD = Facts(
    parameters=1000, vocab_size=65, tokens=20_000, train_tokens=10_000, val_tokens=5000, dropout=False,
    warmup_steps=100, lr=1e-3, grad_clip=1.0,
)  # fmt: skip
GUESS = math.log(65)


def kinds(health):
    return health.told


def fed(norms=(), losses=None, facts=GOOD):
    """A Health that has seen these norms, a step each, with a loss that falls unless it is given."""
    health = Health(facts)
    for i, norm in enumerate(norms):
        health.step(1 + i, losses[i] if losses else GUESS / (1 + i), norm)
    return health


# ---- at the beginning


@pytest.mark.parametrize(
    ("kind", "quiet", "loud"),
    [
        ("tokens", {"tokens": 500}, {"tokens": 499}),
        ("passes", {"tokens": 99_990, "train_tokens": 9999}, {"tokens": 99_991, "train_tokens": 9999}),
        ("passes", {"tokens": 999_999, "train_tokens": 10_000}, {"tokens": 999_999, "train_tokens": 9999}),
        ("passes", {"tokens": 10**6, "train_tokens": 5000, "dropout": True}, {"tokens": 10**6, "train_tokens": 5000}),
        ("validation", {"val_tokens": 1000}, {"val_tokens": 999}),
    ],
)
def test_what_is_wrong_before_the_first_step(kind, quiet, loud):
    assert Health(replace(GOOD, **quiet)).beginning() == []
    health = Health(replace(GOOD, **loud))
    (advice,) = health.beginning()
    assert kinds(health) == {kind}
    assert advice.level == (logging.INFO if kind == "tokens" else logging.WARNING)


def test_a_trained_model_needs_few_tokens():
    assert Health(replace(GOOD, tokens=499, new=False)).beginning() == []


def test_a_tiny_validation_says_how_uncertain_it_is():
    (advice,) = Health(replace(GOOD, val_tokens=100)).beginning()
    assert "100 tokens only: val/loss is uncertain by about 0.20 nats" in advice.text


# ---- the first loss


@pytest.mark.parametrize(("V", "excess"), [(65, 0.5), (148, 0.5), (2048, 0.1 * math.log(2048))])
def test_the_first_loss_may_lie_a_tenth_or_half_a_nat_above_ln_v(V, excess):
    facts, guess = replace(GOOD, vocab_size=V), math.log(V)
    assert Health(facts).step(1, guess + excess - 1e-6, 1.0) == []
    (advice,) = Health(facts).step(1, guess + excess + 1e-6, 1.0)
    assert f"far above ln {V} = {guess:.2f}" in advice.text


def test_only_the_first_loss_of_new_weights_is_held_against_ln_v():
    assert Health(replace(GOOD, new=False)).step(1, 50.0, 1.0) == []
    assert Health(GOOD).step(6, 50.0, 1.0) == []
    health = Health(GOOD)
    assert health.step(5, GUESS, 1.0) == [] and health.step(5, 50.0, 1.0) == []


# ---- a loss that does not fall


@pytest.mark.parametrize(
    ("loss", "step", "warmup", "loud"),
    [
        (3.919, 200, 100, False),  # 2 % of 4 are 0.08
        (3.921, 200, 100, True),
        (3.921, 199, 100, False),
        (3.921, 299, 300, False),  # still warming up
        (3.921, 300, 300, True),
    ],
)
def test_a_loss_must_fall_by_a_fiftieth_in_200_steps_or_the_warm_up(loss, step, warmup, loud):
    health = fed([1.0] * 20, [4.0] + [loss] * 19, replace(GOOD, warmup_steps=warmup))
    assert bool(health.step(step, loss, 1.0)) is loud
    assert kinds(health) == ({"flat"} if loud else set())


def test_the_cure_for_a_loss_that_stands_is_a_higher_rate_and_for_one_that_rose_a_lower():
    still, risen = fed([1.0] * 20, [4.0] + [4.079] * 19), fed([1.0] * 20, [4.0] + [4.081] * 19)
    assert "try optimizer.lr=0.003 (now 0.001)" in still.step(200, 4.079, 1.0)[0].text
    assert "try optimizer.lr=0.0001 (now 0.001)" in risen.step(200, 4.081, 1.0)[0].text


def test_one_noisy_batch_is_no_verdict():
    health = fed([1.0] * 20, [4.0] + [3.0] * 19)
    assert health.step(200, 5.0, 1.0) == []


def test_a_trained_model_need_not_fall():
    health = fed([1.0] * 20, [1.0] * 20, replace(GOOD, new=False))
    assert health.step(200, 1.0, 1.0) == []


# ---- gradients


@pytest.mark.parametrize(
    ("norm", "loss", "loud"), [(1.01e-7, 1.0, False), (0.99e-7, 1.0, True), (0.0, 1.0, True), (0.0, 0.009, False)]
)
def test_a_gradient_of_nothing(norm, loss, loud):
    health = Health(GOOD)
    assert bool(health.step(1, loss, norm)) is loud
    assert kinds(health) == ({"dead"} if loud else set())


@pytest.mark.parametrize(
    ("seen", "norm", "loud"),
    [
        ([], 1000.0, False),
        ([], 1000.1, True),
        ([0.5] * 10, 50.0, False),
        ([0.5] * 10, 50.1, True),
        ([0.5] * 9, 50.1, False),  # too few for a median
        ([0.001] * 10, 0.99, False),  # a hundred times its median and more, and still harmless
        ([0.001] * 10, 1.01, True),
        ([0.5] * 10, math.inf, False),  # fp16 looking for its scale
        ([math.inf] * 5 + [0.5] * 9, 50.1, False),
        ([0.001] * 100 + [0.5] * 100, 50.0, False),  # long ago
    ],
)
def test_a_gradient_that_explodes(seen, norm, loud):
    health = fed(seen)
    assert bool(health.step(150, GUESS, norm)) is loud
    assert kinds(health) == ({"explosion"} if loud else set())


def test_the_cure_for_an_explosion_names_what_is_not_yet_done():
    (clipped,) = Health(GOOD).step(1, GUESS, 2000.0)
    assert clipped.text == (
        "train/grad_norm 2e+03 at step 1: try a lower optimizer.lr (now 0.001) or a longer schedule.warmup_steps "
        "(now 100 steps)"
    )
    facts = replace(GOOD, grad_clip=0.0, warmup_key="warmup_fraction")
    (free,) = Health(facts).step(1, GUESS, 2000.0)
    assert free.text.endswith("a longer schedule.warmup_fraction (now 100 steps), or optimizer.grad_clip=1")


def test_skipped_steps_are_told_once():
    health = Health(GOOD)
    assert "1 optimizer step left out by step 7" in health.step(7, GUESS, 1.0, skipped=1)[0].text
    assert health.step(8, GUESS, 1.0, skipped=2) == []


# ---- validation


def validate(train, val):
    """Health after a validation every 100 steps, each with ten log steps of the same train/loss before it."""
    health = Health(GOOD)
    for i, (t, v) in enumerate(zip(train, val, strict=True)):
        for j in range(10):
            health.step(100 * i + 10 * (j + 1), t, 1.0)
        health.validation(100 * (i + 1), v)
    return kinds(health)


@pytest.mark.parametrize(
    ("train", "val", "loud"),
    [
        ([3, 2, 1], [2.0, 2.0401, 2.0401], True),
        ([3, 2, 1], [2.0, 2.0399, 2.0401], False),
        ([3, 2, 1], [2.0, 2.0401, 2.0399], False),
        ([3, 2, 1, 0.5], [2.0, 2.1, 2.0, 2.1], False),  # not in a row
        ([3, 3, 3], [2.0, 2.1, 2.2], False),  # both got worse, or stand: another illness
        ([3, 3.1, 3.2], [2.0, 2.1, 2.2], False),
        ([3, 2, 1], [2.0, 1.9, 1.8], False),
    ],
)
def test_overfitting_is_val_rising_twice_while_train_falls(train, val, loud):
    assert validate(train, val) == ({"overfit"} if loud else set())


def test_overfitting_says_when_the_best_was():
    health = fed([1.0] * 10, [3.0] * 10)
    assert health.validation(10, 2.0) == []
    for i in range(10):
        health.step(11 + i, 1.0, 1.0)
    assert health.validation(20, 2.5) == []
    (advice,) = health.validation(30, 2.5)
    assert "val/loss 2.500 at step 30 is 25% above its best (2.000 at step 10, kept in best.ckpt)" in advice.text
    assert health.validation(40, 3.0) == []  # said once


# ---- real runs

ENOUGH = (
    "corpus.lines=3000", "data.batch_size=32", "data.micro_batch_size=32", "trainer.max_steps=60",
    "trainer.val_every=20", "callbacks.sample.enabled=false",
)  # fmt: skip


@pytest.fixture
def advice(nano, caplog):
    """advice("key=value", ...): the lines of advice of a nano run, made from a healthy one."""

    def run(*overrides, name="run"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "lm"):
            nano(*ENOUGH, *overrides, name=name)
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith(("warning ", "note "))]

    return run


def test_a_healthy_run_gets_no_advice(advice):
    assert advice() == []


def test_few_tokens_for_many_parameters(advice):
    (line,) = advice("trainer.max_steps=10")
    assert (
        line.startswith("note      the run sees 0.15 tokens for each parameter") and "at about 20 (Chinchilla)" in line
    )


def test_many_passes_and_a_small_validation(advice):
    learnt, few = advice("corpus.lines=100")
    assert "passes over" in learnt and "by heart; try model.dropout=0.1" in learnt
    assert "tokens only: val/loss is uncertain" in few
    assert not any("passes" in line for line in advice("corpus.lines=100", "model.dropout=0.1", name="dropout"))


def test_the_part_of_the_validation_text_that_is_looked_at_counts(advice):
    (line,) = advice("trainer.val_batches=1")  # of 32 windows of 16
    assert "a validation looks at 512 tokens only" in line


def test_a_bad_initialisation_shows_in_the_first_loss(advice, monkeypatch):
    from lm.model import GPT

    original = GPT.init_weights

    def loud(self):
        original(self)
        self.head.weight.data.mul_(100)

    monkeypatch.setattr(GPT, "init_weights", loud)
    first = advice()
    assert "at step 1 is far above ln 15 = 2.71" in first[0]


def test_a_rate_too_low_and_one_too_high(advice):
    long = ("data.batch_size=8", "data.micro_batch_size=8", "trainer.max_steps=201", "trainer.val_every=201")
    (low,) = advice("optimizer.lr=1e-9", *long, name="low")
    assert "train/loss does not fall: 2.7" in low and "try optimizer.lr=3e-09 (now 1e-09)" in low
    high = advice("optimizer.lr=30", "optimizer.weight_decay=0", *long, name="high")
    assert any("try optimizer.lr=3 (now 30)" in line for line in high)


def test_frozen_weights_have_no_gradient(advice, monkeypatch):
    original = LanguageModule.training_step
    monkeypatch.setattr(LanguageModule, "training_step", lambda *args: original(*args) * 0)
    (line,) = advice()
    assert "train/grad_norm 0 at step 1: nothing is learnt" in line


def test_a_gradient_explodes(advice, monkeypatch):
    original = LanguageModule.training_step

    def step(self, *args):
        return original(self, *args) * (1e5 if self.trainer.global_step == 30 else 1)

    monkeypatch.setattr(LanguageModule, "training_step", step)
    (line,) = advice()
    assert "at step 31, " in line and "times its median: try a lower optimizer.lr (now 0.01)" in line


def test_a_text_is_learnt_by_heart(advice):
    lines = advice(
        "corpus.lines=60",
        "model.n_embd=64",
        "data.batch_size=8",
        "data.micro_batch_size=8",
        "trainer.max_steps=160",
        "trainer.val_every=20",
    )
    assert any("while train/loss falls: the text is being learnt by heart; try model.dropout=0.1" in x for x in lines)


def test_weights_that_come_from_elsewhere_are_not_held_against_a_beginning(advice, nano):
    parent = nano("trainer.max_steps=4", name="parent")
    calm = ("optimizer.lr=1e-9", "data.batch_size=8", "data.micro_batch_size=8", "trainer.val_every=300")
    assert advice(f"init_from={parent}", *calm, "trainer.max_steps=201", name="child") == []
    assert advice(f"init_from={parent}", *calm, "trainer.max_steps=210", name="child") == []


def test_advice_can_be_turned_off_and_changes_nothing(advice, tmp_path):
    settings = ("corpus.lines=100", "model.dropout=0.1")
    assert advice(*settings, name="with") and not advice(*settings, "callbacks.health.enabled=false", name="without")
    weights = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    ]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    curves = [
        [
            {k: v for k, v in row.items() if not k.startswith("perf/")}
            for row in csv.DictReader((tmp_path / name / "metrics.csv").open())
        ]
        for name in ("with", "without")
    ]
    assert curves[0] == curves[1]
