"""data.micro_batch_size=auto finds the largest micro-batch that fits; the run equals one with that number."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from helpers import NANO, config_of, equal, weights

from lm.data.batches import DataConfig
from lm.experiment import capacity
from lm.experiment.capacity import estimate_for, fits_in_trial, resolve_micro_batch, trial_steps

AUTO = "data.micro_batch_size=auto"


def with_micro(config, micro):
    return replace(config, data=replace(config.data, micro_batch_size=micro))


def room_for(micro, config, vocab):
    """Return a capacity that fits this micro-batch and no larger one."""
    total = estimate_for(with_micro(config, micro), vocab, "cpu").total
    larger = [m for m in range(micro + 1, config.data.batch_size + 1) if config.data.batch_size % m == 0]
    assert all(estimate_for(with_micro(config, m), vocab, "cpu").total > total for m in larger)
    return total


def test_auto_is_the_whole_batch_until_it_is_resolved():
    data = DataConfig(batch_size=12, micro_batch_size="auto")
    assert (
        data.device_batch_size(),
        data.accumulation_steps(),
        data.device_batch_size(3),
        data.accumulation_steps(3),
    ) == (12, 1, 4, 1)


@pytest.mark.parametrize("typed", ["abc", "2.5", "true", "'4'", "[4]", "Auto", "{a:1}"])
def test_other_values_are_refused_with_the_allowed_ones(typed):
    with pytest.raises(
        ValueError, match=r"^data.micro_batch_size=[^ ]+.* must be a whole number of at least 1, auto, or"
    ):
        config_of(f"data.micro_batch_size={typed}")
    with pytest.raises(ValueError, match=r"^data.micro_batch_size=0 must be at least 1$"):
        config_of("data.micro_batch_size=0")


@pytest.mark.slow
def test_a_run_with_auto_equals_one_with_the_chosen_micro_batch(nano, monkeypatch):
    dropout = "model.dropout=0.2"  # its noise depends on the micro-batch
    explicit = nano("data.micro_batch_size=2", dropout, name="explicit")
    config = config_of(*NANO, AUTO, dropout)
    vocab = torch.load(explicit / "checkpoints/last.ckpt", weights_only=True)["lm"]["vocab_size"]
    monkeypatch.setattr("train.memory_bytes", lambda device: room_for(2, config, vocab))
    run = nano(AUTO, dropout, name="auto")
    assert equal(weights(run), weights(explicit))
    assert json.loads((run / "run.json").read_text())["micro_batch_size"] == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["micro_batch_size"] == "auto"


@pytest.mark.slow
def test_a_resumed_run_uses_the_micro_batch_that_fits_then(nano, monkeypatch, caplog):
    config = config_of(*NANO, AUTO)
    monkeypatch.setattr("train.memory_bytes", lambda device: room_for(1, config, 40))
    assert json.loads((nano(AUTO, "trainer.max_steps=4") / "run.json").read_text())["micro_batch_size"] == 1
    monkeypatch.undo()
    run = nano(AUTO)
    assert json.loads((run / "run.json").read_text())["micro_batch_size"] == 4
    assert "for 1 sequence at a time" in caplog.text and "for 4 sequences at a time" in caplog.text


def test_a_cpu_gets_one_estimate_if_the_whole_batch_fits(monkeypatch):
    calls = []
    monkeypatch.setattr(capacity, "fits_in_trial", None)  # must not be called
    monkeypatch.setattr(capacity, "estimate_for", lambda *args: calls.append(args) or estimate_for(*args))
    assert resolve_micro_batch(config_of(*NANO, AUTO), 40, "cpu", 10**12).data.micro_batch_size == 4
    assert len(calls) == 1
    explicit = config_of(*NANO)
    assert resolve_micro_batch(explicit, 40, "cpu", 0) is explicit


def test_a_model_too_large_for_any_micro_batch_is_refused_unless_the_check_is_off():
    with pytest.raises(ValueError, match="training would need about") as error:
        resolve_micro_batch(config_of("model=large", "device=cpu", "precision=fp32", AUTO), 2000, "cpu", 2_200_000_000)
    assert "model.recompute_every=1" in str(error.value) and "data.micro_batch_size=" not in str(error.value)
    config = config_of("model=tiny", "device=cpu", AUTO, "trainer.check_memory=false")
    assert resolve_micro_batch(config, 2000, "cpu", 1000).data.micro_batch_size == 1


@pytest.fixture
def gpu(monkeypatch):
    """gpu(k) simulates a GPU with memory for k sequences per step, and returns the list of sizes that are tried."""

    def make(largest):
        tried = []

        def attempt(config, vocab_size, device):
            tried.append(config.data.device_batch_size())
            if config.data.device_batch_size() > largest:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

        monkeypatch.setattr(capacity, "trial_steps", attempt)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (300_000_000, 10**12))
        return tried

    return make


def cuda_config(*overrides):
    return config_of(*NANO, "attention=sdpa", "data.batch_size=12", AUTO, *overrides)


@pytest.mark.slow
def test_after_an_out_of_memory_error_the_next_divisor_is_tried(gpu):
    tried = gpu(3)
    assert resolve_micro_batch(cuda_config(), 40, "cuda", 10**12).data.micro_batch_size == 3
    assert tried == [12, 6, 4, 3]


def test_only_sizes_within_the_estimate_are_tried(gpu):
    tried = gpu(12)
    room = estimate_for(with_micro(cuda_config(), 4), 40, "cuda").total
    assert resolve_micro_batch(cuda_config(), 40, "cuda", room).data.micro_batch_size == 4
    assert tried == [4]


def test_several_gpus_rely_on_the_estimate_without_a_trial(gpu):
    tried = gpu(1)
    assert resolve_micro_batch(cuda_config("trainer.devices=2"), 40, "cuda", 10**12).data.micro_batch_size == 6
    assert tried == []


@pytest.mark.slow
def test_a_full_gpu_is_an_error(gpu):
    tried = gpu(0)
    with pytest.raises(
        ValueError, match=r"ran out of memory, with 300 MB of 1,000.0 GB free; check whether another process"
    ):
        resolve_micro_batch(cuda_config(), 40, "cuda", 10**12)
    assert tried == [12, 6, 4, 3, 2, 1]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_true"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_trial_runs_real_steps_and_restores_the_random_state(precision, optimizer):
    overrides = (
        f"precision={precision}",
        f"optimizer={optimizer}",
        "model.dropout=0.1",
        "callbacks.average.enabled=true",
    )
    before = torch.get_rng_state()
    assert fits_in_trial(config_of(*NANO, *overrides), 40, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_cpu_out_of_memory_errors_are_recognized_and_other_errors_are_raised(monkeypatch):
    config = config_of(*NANO)
    monkeypatch.setattr(capacity, "trial_steps", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    assert not fits_in_trial(config, 40, "cpu")
    monkeypatch.setattr(capacity, "trial_steps", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        fits_in_trial(config, 40, "cpu")


@pytest.mark.gpu
def test_a_gpu_with_less_free_memory_than_its_total():
    """A memory limit of this process simulates another process that uses the GPU."""
    config = config_of("model=small", "device=cuda", "data.batch_size=96", AUTO)
    _, total = torch.cuda.mem_get_info()
    needed = estimate_for(with_micro(config, 24), 20_000, "cuda").tensors
    torch.cuda.set_per_process_memory_fraction(needed / total)
    try:
        before = torch.cuda.get_rng_state()
        chosen = resolve_micro_batch(config, 20_000, "cuda", total)
        assert chosen.data.micro_batch_size in (8, 12, 16, 24)
        assert torch.equal(torch.cuda.get_rng_state(), before)
        assert torch.cuda.max_memory_allocated() < 200e6  # the workspace of cuBLAS
        trial_steps(chosen, 20_000, "cuda")
        with pytest.raises(torch.OutOfMemoryError):
            trial_steps(with_micro(config, 48), 20_000, "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
