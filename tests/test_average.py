"""callbacks.average: the exponential moving average of the weights."""

import csv

import pytest
import torch
from helpers import config_of, equal, weights

from lm.model.growth import insert_layer
from lm.run import checkpoint

EMA = ("callbacks.average.enabled=true", "callbacks.average.decay=0.5")


def val_losses(run):
    return [row["val/loss"] for row in csv.DictReader((run / "metrics.csv").open()) if row.get("val/loss")]


def average(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["lm"]["average"]


def test_the_average_follows_its_formula_and_training_does_not_use_it(nano):
    steps = [nano(f"trainer.max_steps={n}", "schedule=constant", name=f"plain{n}") for n in (1, 2, 3)]
    run = nano(*EMA, "trainer.max_steps=3", "schedule=constant", name="averaged")
    first = nano("trainer.max_steps=1", "optimizer.lr=1e-15", name="first")
    for key, averaged in average(run).items():
        expected = weights(first)[f"model.{key}"]
        for step, plain in enumerate(steps, start=1):
            decay = min(0.5, (step + 1) / (step + 10))
            expected = decay * expected + (1 - decay) * weights(plain)[f"model.{key}"]
        torch.testing.assert_close(averaged, expected, atol=1e-6, rtol=1e-5)
    assert equal(weights(run), weights(steps[-1]))


def test_validation_and_loaded_checkpoints_use_the_average(nano):
    plain, run = nano(name="plain"), nano(*EMA, name="averaged")
    assert val_losses(plain) != val_losses(run)
    loaded = checkpoint.load(run / "checkpoints" / "last.ckpt").model
    for name, p in loaded.named_parameters():
        assert torch.equal(p, average(run)[name])


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("overrides", [[], ["model.tie_embeddings=true", "precision=bf16", "optimizer=muon"]])
def test_a_resumed_run_equals_an_uninterrupted_one(nano, overrides):
    straight = nano(*EMA, *overrides, "schedule=constant", name="straight")
    halted = nano(*EMA, *overrides, "schedule=constant", "trainer.max_steps=8", name="halted")
    nano(*EMA, *overrides, "schedule=constant", name="halted")
    assert equal(weights(straight), weights(halted)) and equal(average(straight), average(halted))
    assert val_losses(straight) == val_losses(halted)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], ["model.tie_embeddings=true"]])
def test_insert_layer_keeps_the_average(nano, overrides):
    run = nano(*EMA, *overrides)
    data = insert_layer(checkpoint.read(run / "checkpoints" / "last.ckpt"), 1)
    grown, before = data["lm"]["average"], average(run)
    assert {f"model.{name}" for name in grown} == set(data["state_dict"]) - (
        {"model.head.weight"} if overrides else set()
    )
    assert torch.equal(grown["blocks.2.mlp.c_fc.weight"], before["blocks.1.mlp.c_fc.weight"])
    assert not grown["blocks.1.mlp.c_proj.weight"].any()


def test_a_decay_of_one_or_more_is_refused():
    with pytest.raises(ValueError, match="callbacks.average.decay=1.0 must be at least 0 and below 1"):
        config_of("callbacks.average.decay=1.0")
