"""Health advice: each kind at its threshold and in a real run, and no advice for a healthy run."""

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


def kinds_given(health):
    return health.given


def health_after(norms=(), losses=None, facts=GOOD):
    """Return a Health that has seen these gradient norms, one per step; without `losses` the loss falls."""
    health = Health(facts)
    for i, norm in enumerate(norms):
        health.check_step(1 + i, losses[i] if losses else GUESS / (1 + i), norm)
    return health


# ---- before the first step


@pytest.mark.parametrize(
    ("kind", "silent", "warns"),
    [
        ("tokens", {"tokens": 500}, {"tokens": 499}),
        ("passes", {"tokens": 99_990, "train_tokens": 9999}, {"tokens": 99_991, "train_tokens": 9999}),
        ("passes", {"tokens": 999_999, "train_tokens": 10_000}, {"tokens": 999_999, "train_tokens": 9999}),
        ("passes", {"tokens": 10**6, "train_tokens": 5000, "dropout": True}, {"tokens": 10**6, "train_tokens": 5000}),
        ("validation", {"val_tokens": 1000}, {"val_tokens": 999}),
    ],
)
def test_checks_before_the_first_step(kind, silent, warns):
    assert Health(replace(GOOD, **silent)).check_start() == []
    health = Health(replace(GOOD, **warns))
    (advice,) = health.check_start()
    assert kinds_given(health) == {kind}
    assert advice.level == (logging.INFO if kind == "tokens" else logging.WARNING)


def test_a_trained_model_may_train_on_few_tokens():
    assert Health(replace(GOOD, tokens=499, new=False)).check_start() == []


def test_a_small_validation_text_gives_its_uncertainty():
    (advice,) = Health(replace(GOOD, val_tokens=100)).check_start()
    assert "only 100 tokens, so val/loss is uncertain by about 0.20 nats" in advice.text


# ---- the first loss


@pytest.mark.parametrize(("V", "excess"), [(65, 0.5), (148, 0.5), (2048, 0.1 * math.log(2048))])
def test_the_first_loss_may_exceed_ln_v_by_a_tenth_or_half_a_nat(V, excess):
    facts, guess = replace(GOOD, vocab_size=V), math.log(V)
    assert Health(facts).check_step(1, guess + excess - 1e-6, 1.0) == []
    (advice,) = Health(facts).check_step(1, guess + excess + 1e-6, 1.0)
    assert f"far above ln {V} = {guess:.2f}" in advice.text


def test_only_the_first_loss_of_untrained_weights_is_compared_with_ln_v():
    assert Health(replace(GOOD, new=False)).check_step(1, 50.0, 1.0) == []
    assert Health(GOOD).check_step(6, 50.0, 1.0) == []
    health = Health(GOOD)
    assert health.check_step(5, GUESS, 1.0) == [] and health.check_step(5, 50.0, 1.0) == []


# ---- a loss that does not fall


@pytest.mark.parametrize(
    ("loss", "step", "warmup", "warns"),
    [
        (3.919, 200, 100, False),  # 2 % of 4 are 0.08
        (3.921, 200, 100, True),
        (3.921, 199, 100, False),
        (3.921, 299, 300, False),  # still warming up
        (3.921, 300, 300, True),
    ],
)
def test_the_loss_must_fall_by_2_percent_in_200_steps_or_the_warmup(loss, step, warmup, warns):
    health = health_after([1.0] * 20, [4.0] + [loss] * 19, replace(GOOD, warmup_steps=warmup))
    assert bool(health.check_step(step, loss, 1.0)) is warns
    assert kinds_given(health) == ({"flat"} if warns else set())


def test_a_constant_loss_needs_a_higher_learning_rate_and_a_rising_loss_a_lower_one():
    still, risen = health_after([1.0] * 20, [4.0] + [4.079] * 19), health_after([1.0] * 20, [4.0] + [4.081] * 19)
    assert "try optimizer.lr=0.003 (now 0.001)" in still.check_step(200, 4.079, 1.0)[0].text
    assert "try optimizer.lr=0.0001 (now 0.001)" in risen.check_step(200, 4.081, 1.0)[0].text


def test_one_noisy_batch_gives_no_warning():
    health = health_after([1.0] * 20, [4.0] + [3.0] * 19)
    assert health.check_step(200, 5.0, 1.0) == []


def test_the_loss_of_a_trained_model_need_not_fall():
    health = health_after([1.0] * 20, [1.0] * 20, replace(GOOD, new=False))
    assert health.check_step(200, 1.0, 1.0) == []


# ---- gradients


@pytest.mark.parametrize(
    ("norm", "loss", "warns"), [(1.01e-7, 1.0, False), (0.99e-7, 1.0, True), (0.0, 1.0, True), (0.0, 0.009, False)]
)
def test_a_vanishing_gradient_gives_a_warning(norm, loss, warns):
    health = Health(GOOD)
    assert bool(health.check_step(1, loss, norm)) is warns
    assert kinds_given(health) == ({"dead"} if warns else set())


@pytest.mark.parametrize(
    ("seen", "norm", "warns"),
    [
        ([], 1000.0, False),
        ([], 1000.1, True),
        ([0.5] * 10, 50.0, False),
        ([0.5] * 10, 50.1, True),
        ([0.5] * 9, 50.1, False),  # too few for a median
        ([0.001] * 10, 0.99, False),  # more than 100 times the median, but below 1
        ([0.001] * 10, 1.01, True),
        ([0.5] * 10, math.inf, False),  # fp16 searching for its loss scale
        ([math.inf] * 5 + [0.5] * 9, 50.1, False),
        ([0.001] * 100 + [0.5] * 100, 50.0, False),  # the small norms are too old to count
    ],
)
def test_an_exploding_gradient_gives_a_warning(seen, norm, warns):
    health = health_after(seen)
    assert bool(health.check_step(150, GUESS, norm)) is warns
    assert kinds_given(health) == ({"explosion"} if warns else set())


def test_advice_for_an_exploding_gradient_suggests_clipping_only_if_it_is_off():
    (clipped,) = Health(GOOD).check_step(1, GUESS, 2000.0)
    assert clipped.text == (
        "train/grad_norm 2e+03 at step 1: try a lower optimizer.lr (now 0.001) or a longer schedule.warmup_steps "
        "(now 100 steps)"
    )
    facts = replace(GOOD, grad_clip=0.0, warmup_key="warmup_fraction")
    (free,) = Health(facts).check_step(1, GUESS, 2000.0)
    assert free.text.endswith("a longer schedule.warmup_fraction (now 100 steps), or optimizer.grad_clip=1")


def test_skipped_steps_are_reported_once():
    health = Health(GOOD)
    assert "1 optimizer step skipped up to step 7" in health.check_step(7, GUESS, 1.0, skipped=1)[0].text
    assert health.check_step(8, GUESS, 1.0, skipped=2) == []


# ---- validation


def validate(train, val):
    """Return the kinds of advice after a validation every 100 steps, each after ten log steps with one train/loss."""
    health = Health(GOOD)
    for i, (t, v) in enumerate(zip(train, val, strict=True)):
        for j in range(10):
            health.check_step(100 * i + 10 * (j + 1), t, 1.0)
        health.check_validation(100 * (i + 1), v)
    return kinds_given(health)


@pytest.mark.parametrize(
    ("train", "val", "warns"),
    [
        ([3, 2, 1], [2.0, 2.0401, 2.0401], True),
        ([3, 2, 1], [2.0, 2.0399, 2.0401], False),
        ([3, 2, 1], [2.0, 2.0401, 2.0399], False),
        ([3, 2, 1, 0.5], [2.0, 2.1, 2.0, 2.1], False),  # not in a row
        ([3, 3, 3], [2.0, 2.1, 2.2], False),  # train/loss does not fall: not overfitting
        ([3, 3.1, 3.2], [2.0, 2.1, 2.2], False),
        ([3, 2, 1], [2.0, 1.9, 1.8], False),
    ],
)
def test_overfitting_is_val_loss_rising_twice_while_train_loss_falls(train, val, warns):
    assert validate(train, val) == ({"overfit"} if warns else set())


def test_overfitting_advice_names_the_best_step_and_is_given_once():
    health = health_after([1.0] * 10, [3.0] * 10)
    assert health.check_validation(10, 2.0) == []
    for i in range(10):
        health.check_step(11 + i, 1.0, 1.0)
    assert health.check_validation(20, 2.5) == []
    (advice,) = health.check_validation(30, 2.5)
    assert "val/loss 2.500 at step 30 is 25% above its best (2.000 at step 10, kept in best.ckpt)" in advice.text
    assert health.check_validation(40, 3.0) == []  # given once


# ---- real runs

ENOUGH = (
    "corpus.lines=3000", "data.batch_size=32", "data.micro_batch_size=32", "trainer.max_steps=60",
    "trainer.val_every=20", "callbacks.sample.enabled=false",
)  # fmt: skip


@pytest.fixture
def advice(nano, caplog):
    """Return a function that runs a healthy nano run with further overrides and returns the lines of advice."""

    def run(*overrides, name="run"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "lm"):
            nano(*ENOUGH, *overrides, name=name)
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith(("warning ", "note "))]

    return run


@pytest.mark.slow
def test_a_healthy_run_gets_no_advice(advice):
    assert advice() == []


def test_few_tokens_per_parameter_give_a_note(advice):
    (line,) = advice("trainer.max_steps=10")
    assert (
        line.startswith("note      the run trains on 0.15 tokens per parameter")
        and "about 20 are compute-optimal (Chinchilla)" in line
    )


@pytest.mark.slow
def test_many_passes_and_a_small_validation_text_give_warnings(advice):
    many, validation = advice("corpus.lines=100")
    assert "passes over" in many and "memorize such a text; try model.dropout=0.1" in many
    assert "tokens, so val/loss is uncertain" in validation
    assert not any("passes" in line for line in advice("corpus.lines=100", "model.dropout=0.1", name="dropout"))


@pytest.mark.slow
def test_only_the_part_of_the_validation_text_that_is_used_counts(advice):
    (line,) = advice("trainer.val_batches=1")  # of 32 windows of 16
    assert "a validation uses only 512 tokens" in line


@pytest.mark.slow
def test_a_bad_initialization_gives_a_warning_at_the_first_step(advice, monkeypatch):
    from lm.model import GPT

    original = GPT.init_weights

    def init_large_head(self):
        original(self)
        self.head.weight.data.mul_(100)

    monkeypatch.setattr(GPT, "init_weights", init_large_head)
    first = advice()
    assert "at step 1 is far above ln 15 = 2.71" in first[0]


@pytest.mark.slow
def test_a_learning_rate_too_low_or_too_high_gives_a_warning(advice):
    long = ("data.batch_size=8", "data.micro_batch_size=8", "trainer.max_steps=201", "trainer.val_every=201")
    (low,) = advice("optimizer.lr=1e-9", *long, name="low")
    assert "train/loss does not fall: 2.7" in low and "try optimizer.lr=3e-09 (now 1e-09)" in low
    high = advice("optimizer.lr=30", "optimizer.weight_decay=0", *long, name="high")
    assert any("try optimizer.lr=3 (now 30)" in line for line in high)


@pytest.mark.slow
def test_frozen_weights_give_a_warning(advice, monkeypatch):
    original = LanguageModule.training_step
    monkeypatch.setattr(LanguageModule, "training_step", lambda *args: original(*args) * 0)
    (line,) = advice()
    assert "train/grad_norm 0 at step 1: the model learns nothing" in line


@pytest.mark.slow
def test_an_exploding_gradient_in_a_run_gives_a_warning(advice, monkeypatch):
    original = LanguageModule.training_step

    def step(self, *args):
        return original(self, *args) * (1e5 if self.trainer.global_step == 30 else 1)

    monkeypatch.setattr(LanguageModule, "training_step", step)
    (line,) = advice()
    assert "at step 31, " in line and "times its median: try a lower optimizer.lr (now 0.01)" in line


@pytest.mark.slow
def test_a_memorized_text_gives_a_warning(advice):
    lines = advice(
        "corpus.lines=60",
        "model.n_embd=64",
        "data.batch_size=8",
        "data.micro_batch_size=8",
        "trainer.max_steps=160",
        "trainer.val_every=20",
    )
    assert any("while train/loss falls: the model memorizes the text; try model.dropout=0.1" in x for x in lines)


@pytest.mark.slow
def test_runs_from_a_checkpoint_skip_the_checks_of_the_first_steps(advice, nano):
    parent = nano("trainer.max_steps=4", name="parent")
    calm = ("optimizer.lr=1e-9", "data.batch_size=8", "data.micro_batch_size=8", "trainer.val_every=300")
    assert advice(f"init_from={parent}", *calm, "trainer.max_steps=201", name="child") == []
    assert advice(f"init_from={parent}", *calm, "trainer.max_steps=210", name="child") == []


@pytest.mark.slow
def test_advice_can_be_disabled_and_does_not_change_the_run(advice, tmp_path):
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
