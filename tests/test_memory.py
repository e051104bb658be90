"""Memory estimates, compared with the bytes that autograd saves and the peak of the allocator."""

import json
import random
import re
import subprocess

import pytest
import torch
from helpers import config_of, run_script

from benchmarks.memory import GRID, lab_formula, measure_memory
from lm.experiment.capacity import advice, estimate_for, memory_setup, require_memory
from lm.memory import Network, estimate, largest_micro_batch, saved_by_kind, ways_to_fit
from lm.optim import AdamWConfig

BASE = ["precision=fp32", "attention=sdpa", "model=tiny", "data.batch_size=8", "device=cpu"]
CHOICES = {
    "precision": ["fp32", "bf16"],
    "attention": ["manual", "sdpa"],
    "optimizer": ["adamw", "adamw_8bit"],
    "model.n_layer": [1, 2, 5],
    "model.n_embd": [64, 128, 192],
    "model.n_head": [2, 4],
    "model.n_kv_head": ["null", 1, 2],
    "model.block_size": [32, 64, 160],
    "model.position": ["learned", "sinusoidal", "rope", "none"],
    "model.norm": ["layernorm", "rmsnorm"],
    "model.norm_gain": ["true", "false"],
    "model.bias_norm": ["null", "false"],
    "model.mlp": ["gelu", "gelu_tanh", "relu", "relu2", "swiglu"],
    "model.mlp_ratio": [2, 4],
    "model.qk_norm": ["true", "false"],
    "model.tie_embeddings": ["true", "false"],
    "model.logit_softcap": ["null", 15],
    "model.vocab_multiple": [1, 64],
    "model.window": ["null", 20],
    "model.dropout": [0, 0, 0.1],
    "model.dropout_mlp": [0, 0.1],
    "model.bias": ["true", "false"],
    "model.recompute_every": [0, 0, 1, 2],
    "data.micro_batch_size": [2, 4, 8],
}


def relative_errors(overrides: list[str], vocab: int) -> tuple[float | None, float]:
    """Return the relative errors of the saved bytes and of the peak."""
    config = config_of(*BASE, *overrides)
    saved, peak = measure_memory(config, vocab, "cpu")
    needed = estimate_for(config, vocab, "cpu")
    estimated = sum(saved_by_kind(Network(config.model, memory_setup(config, vocab, "cpu")).operations()).values())
    return (None if saved is None else estimated / saved - 1), needed.tensors / peak - 1


@pytest.mark.parametrize("seed", [pytest.param(i, marks=[pytest.mark.slow] * (i >= 1)) for i in range(14)])
def test_estimates_of_random_configurations_are_within_ten_percent(seed):
    rng = random.Random(seed)
    chosen = {key: rng.choice(values) for key, values in CHOICES.items()}
    if chosen["model.norm_gain"] == "false":
        chosen["model.bias_norm"] = "false"
    overrides = [f"{key}={value}" for key, value in chosen.items()]
    saved, peak = relative_errors(overrides, rng.choice([65, 500, 3000]))
    assert saved is None or abs(saved) < 0.1, overrides
    assert abs(peak) < 0.1, overrides


@pytest.mark.slow
@pytest.mark.parametrize("overrides", GRID)
def test_estimates_of_the_grid_in_the_docs_are_within_ten_percent(overrides):
    # Two sequences instead of eight where a CPU that emulates bf16 would take minutes.
    smaller = ["data.batch_size=2"] if re.search("model=(small|medium) .*bf16|model=medium", overrides) else []
    saved, peak = relative_errors([*overrides.split(), *smaller], 50257 if "lab" in overrides else 2048)
    assert saved is None or abs(saved) < 0.1
    assert abs(peak) < 0.1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "overrides",
    ["model=small", "model=small precision=bf16", "model=large precision=bf16 data.batch_size=4",
     "model=large precision=bf16 data.batch_size=4 model.recompute_every=1", "model=medium attention=manual"],
)  # fmt: skip
def test_estimates_for_a_gpu_are_within_ten_percent(overrides):
    config = config_of(*BASE[:-1], *overrides.split(), "device=cuda")
    _, peak = measure_memory(config, 50257, "cuda")
    assert abs(estimate_for(config, 50257, "cuda").tensors / peak - 1) < 0.1


def test_the_parts_of_an_estimate_add_up():
    config = config_of(*BASE)
    needed = estimate_for(config, 1000, "cpu")
    parts = needed.weights + needed.gradients + needed.optimizer + sum(needed.activations.values()) + needed.working
    assert needed.tensors == parts
    assert needed.total == parts + needed.overhead
    assert needed.full_gradients == needed.weights - 2 * 4 * 128 * 16  # all except the rotary tables


def test_memory_grows_with_the_micro_batch_but_not_with_accumulation():
    def total(*overrides: str) -> int:
        return estimate_for(config_of(*BASE, *overrides), 1000, "cpu").total

    assert total("data.batch_size=16") > total("data.batch_size=8") > total("data.micro_batch_size=4")
    twice = total("data.batch_size=16", "data.micro_batch_size=4")
    assert twice == total("data.batch_size=64", "data.micro_batch_size=4")
    # the gradients of the previous micro-batch are in memory
    assert (
        twice
        == total("data.micro_batch_size=4", "data.batch_size=4")
        + estimate_for(config_of(*BASE), 1000, "cpu").full_gradients
    )


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("name", "gib"), [("nano", 1.99), ("small", 4.48), ("medium", 14.54), ("large", 19.68), ("xlarge", 36.5)]
)
def test_the_formula_of_the_lab_gives_the_figures_of_the_lab(name, gib):
    config = config_of(f"model=lab/{name}", "data.batch_size=4", "precision=fp32", "attention=manual")
    assert lab_formula(config, 50257) / 2**30 == pytest.approx(gib, abs=0.01 if gib < 30 else 0.05)


@pytest.mark.slow
def test_the_largest_micro_batch_fits_and_the_next_does_not():
    config = config_of(*BASE)
    setting, optimizer = memory_setup(config, 1000, "cpu"), AdamWConfig()

    def total(micro: int) -> int:
        from dataclasses import replace

        return estimate(config.model, replace(setting, micro_batch=micro), optimizer).total

    capacity = 3_000_000_000
    best = largest_micro_batch(config.model, setting, optimizer, capacity)
    assert total(best) <= capacity < total(best + 1)
    assert largest_micro_batch(config.model, setting, optimizer, 1000) == 0


def test_suggested_changes_reduce_memory_until_it_fits():
    config = config_of("model=large", "precision=fp32", "attention=manual", "data.batch_size=16")
    setting = memory_setup(config, 50257, "cuda")
    capacity = 8_000_000_000
    changes = list(ways_to_fit(config.model, setting, config.optimizer, 16, capacity))
    totals = [needed.total for _, needed in changes]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] <= capacity < totals[-2]
    keys = [change.partition("=")[0] for change, _ in changes]
    assert keys[:3] == ["attention", "precision", "data.micro_batch_size"]
    # the last estimate is that of a configuration with all these overrides
    *_, (_, after) = changes
    changed = config_of(
        "model=large", "attention=manual", "precision=fp32", "data.batch_size=16", *(change for change, _ in changes)
    )
    assert estimate_for(changed, 50257, "cuda") == after


def test_a_configuration_that_does_not_fit_is_refused_with_advice():
    config = config_of(*BASE, "data.batch_size=4096")
    with pytest.raises(ValueError, match=r"training would need about [\d.]+ GB, and this machine has 2.0 GB") as error:
        require_memory(config, 2048, "cpu", 2_000_000_000)
    assert "data.micro_batch_size=" in str(error.value) and "trainer.check_memory=false" in str(error.value)
    micro = int(str(error.value).partition("data.micro_batch_size=")[2].split()[0])
    require_memory(
        config_of(*BASE, "data.batch_size=4096", f"data.micro_batch_size={micro}"), 2048, "cpu", 2_000_000_000
    )
    require_memory(config_of(*BASE, "data.batch_size=4096", "trainer.check_memory=false"), 2048, "cpu", 2_000_000_000)


def test_advice_says_if_no_change_makes_the_model_fit():
    config = config_of("model=xlarge", "device=cpu")
    assert "still too large" in advice(config, 50257, "cpu", 1_000_000_000)


def test_training_does_not_start_if_it_does_not_fit(nano, monkeypatch, tmp_path):
    monkeypatch.setattr("lm.experiment.build.memory_bytes", lambda device: 100_000_000)
    with pytest.raises(ValueError, match="training would need about"):
        nano()
    assert not (tmp_path / "run" / "config.yaml").exists()
    nano("trainer.check_memory=false")


def test_a_run_records_its_estimated_memory(nano):
    record = json.loads((nano() / "run.json").read_text())
    assert 400e6 < record["memory"] < 1e9


def script(*args: str) -> subprocess.CompletedProcess[str]:
    return run_script("memory", *args)


@pytest.mark.slow
def test_the_script_takes_the_overrides_of_train():
    done = script("model=large", "--device", "cuda", "--memory", "16GiB", "tokenizer=gpt2", "precision=bf16", "--json")
    found = json.loads(done.stdout)
    assert found["weights"] == 4 * 124_439_808
    assert found["capacity"] == 16 * 2**30
    assert found["fits"] is (found["total"] <= found["capacity"])
    assert found["largest_that_divides"] <= found["largest_micro_batch"]
    assert (
        script("model=large", "--device", "cuda", "--memory", "1GB", "tokenizer=gpt2").stdout.count("It does NOT fit")
        == 1
    )


@pytest.mark.slow
def test_errors_of_the_script_are_one_line():
    assert script("model=lrge").stderr.startswith("error: model=lrge: there is no such option")
    assert script("tokenizer=char").stderr.strip().endswith("give one, e.g. --vocab 100")
    assert "write it like 16GiB" in script("--memory", "lots").stderr
    if not torch.cuda.is_available():
        assert "--memory is missing" in script("--device", "cuda").stderr
