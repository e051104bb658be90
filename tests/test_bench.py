"""Benchmarks and ablations: the tasks they run and the rows they return, not the speeds they measure."""

import json
import math
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from helpers import ROOT

from benchmarks.ablation import steps_to
from benchmarks.cost import optimizer
from benchmarks.peer import loss_curve, peer, summarize_curve
from benchmarks.speed import step
from benchmarks.suite import BENCHES
from benchmarks.timing import time_alternately
from lm.config import CONF, load_option
from lm.model import GPT, GPTConfig

NANO = "model.n_layer=1 model.n_head=2 model.n_embd=16 model.block_size=8 data.batch_size=2 precision=fp32"


def test_tasks_take_turns_and_warm_up_turns_are_not_counted():
    seen: list[str] = []
    ms = time_alternately({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=3, warm_up=2)
    assert seen == ["a", "b"] * 5
    assert {name: len(times) for name, times in ms.items()} == {"a": 3, "b": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed", [NANO, f"{NANO} data.micro_batch_size=1", f"{NANO} precision=bf16_true optimizer=muon"]
)
def test_step_measures_each_configuration(typed):
    args = Namespace(device="cpu", overrides=[typed], vocab=32, repeats=3)
    (row,) = step(args)
    assert row["ms"] > 0 and row["tokens/s"] == pytest.approx(16 / row["ms"] * 1e3, abs=1)
    shape = load_option("model", "tiny", n_layer=1, n_head=2, n_embd=16, block_size=8)
    assert row["parameters"] == GPT(shape, 32).num_params


@pytest.mark.slow
def test_every_optimizer_is_timed():
    rows = optimizer(Namespace(device="cpu", overrides=[NANO], vocab=32, repeats=2))
    assert {row["optimizer"] for row in rows} == {path.stem for path in (CONF / "optimizer").glob("*.yaml")}
    assert min(row["times the fastest"] for row in rows) == 1


def test_the_first_time_a_curve_reaches_a_loss_is_found():
    row = summarize_curve("x", [(0.0, 4.0), (1.5, 2.0), (3.0, 1.8), (4.0, 1.9)], 1.88)
    assert row["s to 1.88"] == 3.0 and row["seconds in all"] == 4.0
    assert summarize_curve("x", [(1.0, 2.0)], 1.88)["s to 1.88"] is None
    assert steps_to({10: 3.0, 20: 2.0, 30: 1.0}, 1.5) == 25.0
    assert steps_to({10: 1.0}, 1.5) == 10 and steps_to({10: 2.0}, 1.5) is None


def test_a_comparison_with_nanogpt_needs_a_checkout_of_it(tmp_path):
    for bench in (peer, loss_curve):
        with pytest.raises(ValueError, match="needs --against DIR, a checkout of nanoGPT"):
            bench(Namespace(against=None, overrides=[], dir="data"))
        with pytest.raises(ValueError, match="is not a checkout of nanoGPT"):
            bench(Namespace(against=tmp_path, overrides=[], dir="data", repeats=1))


@pytest.mark.slow
def test_with_json_the_script_prints_only_json():
    command = [sys.executable, "scripts/bench.py", "step", NANO, "--repeats", "2", "--json", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["rows"][0]["overrides"] == NANO and found["torch"] == torch.__version__
    assert all(bench.__doc__ for bench, _ in BENCHES.values())
    wrong = subprocess.run([*command[:3], "model.n_layrs=2"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: unknown key model.n_layrs")


# ---- model options that the speedruns use


def test_unit_init_starts_at_a_loss_of_ln_v_with_unit_embeddings():
    torch.manual_seed(0)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=16, init="unit", tie_embeddings=False, norm_embd=True)
    model = GPT(config, 50)
    ids = torch.randint(50, (4, 16))
    assert torch.equal(model(ids), torch.zeros(4, 16, 50))
    assert model(ids, None, ids)[0].item() == pytest.approx(math.log(50), rel=1e-6)
    assert model.wte.weight.std().item() == pytest.approx(1, rel=0.05)
    assert model.blocks[0].mlp.c_fc.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    with pytest.raises(ValueError, match="model.tie_embeddings=True must be false with model.init=unit"):
        GPTConfig(init="unit")


def test_norm_embd_makes_the_model_invariant_to_the_scale_of_the_embeddings():
    torch.manual_seed(0)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
    normed, plain = GPT(GPTConfig(**shape, norm_embd=True), 20), GPT(GPTConfig(**shape), 20)
    ids = torch.randint(20, (1, 8))
    for model, same in ((normed, True), (plain, False)):
        before = model.features(ids)
        with torch.no_grad():
            model.wte.weight.mul_(3)
            model.wpe.weight.mul_(3)
        assert torch.allclose(before, model.features(ids), atol=1e-4) is same
