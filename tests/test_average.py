"""callbacks.average: the exponential moving average of the weights."""

import csv

import pytest
import torch
from conftest import config_of, equal, weights

from lm.model.growth import insert_layer
from lm.run import checkpoint

EMA = ("callbacks.average.enabled=true", "callbacks.average.decay=0.5")


def val(run):
    return [row["val/loss"] for row in csv.DictReader((run / "metrics.csv").open()) if row.get("val/loss")]


def average(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["lm"]["average"]


def test_it_is_the_average_that_its_formula_gives_and_training_does_not_see_it(nano):
    steps = [nano(f"trainer.max_steps={n}", "schedule=constant", name=f"plain{n}") for n in (1, 2, 3)]
    run = nano(*EMA, "trainer.max_steps=3", "schedule=constant", name="averaged")
    first = nano("trainer.max_steps=1", "optimizer.lr=1e-15", name="first")
    for key, made in average(run).items():
        expected = weights(first)[f"model.{key}"]
        for step, plain in enumerate(steps, start=1):
            stays = min(0.5, (step + 1) / (step + 10))
            expected = stays * expected + (1 - stays) * weights(plain)[f"model.{key}"]
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-5)
    assert equal(weights(run), weights(steps[-1]))


def test_validation_and_whoever_loads_it_see_the_average(nano):
    plain, run = nano(name="plain"), nano(*EMA, name="averaged")
    assert val(plain) != val(run)
    loaded = checkpoint.load(run / "checkpoints" / "last.ckpt").model
    for name, p in loaded.named_parameters():
        assert torch.equal(p, average(run)[name])


@pytest.mark.parametrize("typed", [[], ["model.tie_embeddings=true", "precision=bf16", "optimizer=muon"]])
def test_an_interrupted_run_goes_on_exactly(nano, typed):
    straight = nano(*EMA, *typed, "schedule=constant", name="straight")
    halted = nano(*EMA, *typed, "schedule=constant", "trainer.max_steps=8", name="halted")
    nano(*EMA, *typed, "schedule=constant", name="halted")
    assert equal(weights(straight), weights(halted)) and equal(average(straight), average(halted))
    assert val(straight) == val(halted)


@pytest.mark.parametrize("typed", [[], ["model.tie_embeddings=true"]])
def test_a_grown_run_keeps_it(nano, typed):
    run = nano(*EMA, *typed)
    data = insert_layer(checkpoint.read(run / "checkpoints" / "last.ckpt"), 1)
    grown, before = data["lm"]["average"], average(run)
    assert {f"model.{name}" for name in grown} == set(data["state_dict"]) - ({"model.head.weight"} if typed else set())
    assert torch.equal(grown["blocks.2.mlp.c_fc.weight"], before["blocks.1.mlp.c_fc.weight"])
    assert not grown["blocks.1.mlp.c_proj.weight"].any()


def test_a_decay_beyond_one_is_refused():
    with pytest.raises(ValueError, match="callbacks.average.decay=1.0 must be at least 0 and below 1"):
        config_of("callbacks.average.decay=1.0")
