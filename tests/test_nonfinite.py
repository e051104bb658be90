"""Steps whose loss or gradient is not finite: the run stops, or skips them without a trace."""

import csv
import json
import logging
import math

import pytest
import torch
from helpers import config_of, equal, slow_except
from test_train import equal_nested, interrupt_after, read_metrics

from lm.config import CONF
from lm.run.directory import Interrupted
from lm.training.module import LanguageModule
from lm.training.trainer import TrainerConfig

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
SKIP = ("trainer.on_nonfinite=skip", "callbacks.sample.enabled=false", "trainer.save_every=1")


def corrupt_loss(monkeypatch, *steps, micro=1, what=math.nan):
    """Multiply the loss of one micro-batch of each of these steps (counted from 1) by `what`."""
    original = LanguageModule.training_step

    def training_step(self, *args):
        index = len(self._losses)
        loss = original(self, *args)
        if self.trainer.global_step + 1 not in steps or index != micro:
            return loss
        self._losses[-1] = self._losses[-1] * what
        return loss * what

    monkeypatch.setattr(LanguageModule, "training_step", training_step)


def load_step(run, step):
    return torch.load(run / "checkpoints" / f"step_{step:06d}.ckpt", weights_only=True)


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("optimizer", slow_except(["adamw", "adamw_8bit", "muon"], OPTIMIZERS))
@pytest.mark.parametrize("step", [1, 6])  # before the optimizer has a state, and after
@pytest.mark.parametrize("micro", slow_except([1], [0, 1]))
def test_a_skipped_step_leaves_weights_and_optimizer_untouched(nano, monkeypatch, optimizer, step, micro):
    corrupt_loss(monkeypatch, step, micro=micro)
    big = ("model.n_embd=64",)  # matrices of 4096 numbers, large enough for 8-bit states
    run = nano(*SKIP, *big, f"optimizer={optimizer}", "callbacks.checkpoint.keep_last=99", "trainer.max_steps=8")
    if step == 1:
        before = load_step(run, 1)
        assert not any(len(state["state"]) for state in before["optimizer_states"])
    else:
        before, after, later = load_step(run, step - 1), load_step(run, step), load_step(run, step + 1)
        assert after["global_step"] == before["global_step"] + 1
        assert equal(before["state_dict"], after["state_dict"])
        states = [[state["state"] for state in data["optimizer_states"]] for data in (before, after, later)]
        assert equal_nested(states[0], states[1]) and not equal_nested(states[1], states[2])  # averages and step counts
        assert not equal(after["state_dict"], later["state_dict"])
    table = {int(row["step"]): row for row in read_metrics(run)}
    assert [s for s, row in table.items() if not row["train/loss"]] == [step]  # empty, not nan
    assert [row["train/skipped"] for row in table.values()] == [""] * (step - 1) + ["1.0"] * (9 - step)
    assert all(math.isfinite(float(row["train/grad_norm"])) for s, row in table.items() if s != step)
    assert json.loads((run / "run.json").read_text())["metrics"]["train/skipped"] == 1


@pytest.mark.slow
def test_a_skipped_step_does_not_shift_the_batches(nano, monkeypatch):
    """Step k trains on batch k, whether or not steps before it were skipped."""
    seen = {}
    original = LanguageModule.training_step

    def spy(self, batch, index):
        seen.setdefault(self.trainer.default_root_dir.rsplit("/", 1)[-1], []).append(batch[0].clone())
        return original(self, batch, index)

    monkeypatch.setattr(LanguageModule, "training_step", spy)
    nano(name="plain")
    corrupt_loss(monkeypatch, 3, 4, 7)
    nano(*SKIP, name="skips")
    assert equal_nested(seen["plain"], seen["skips"])


def test_skip_does_not_change_a_run_without_bad_steps(nano):
    plain, skip = nano(name="plain"), nano("trainer.on_nonfinite=skip", name="skip")
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (plain, skip))
    assert equal(a["state_dict"], b["state_dict"]) and equal_nested(a["optimizer_states"], b["optimizer_states"])
    assert read_metrics(plain) == read_metrics(skip)


@pytest.mark.parametrize("micro", [0, 1])
def test_stop_gives_advice(nano, tmp_path, monkeypatch, micro):
    corrupt_loss(monkeypatch, 6, micro=micro)
    with pytest.raises(ValueError, match=r"became infinite or nan by step 6: the run has diverged. Try a lower"):
        nano()
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_at_most_max_skipped_steps_in_a_row_are_skipped(nano, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        corrupt_loss(patch, 3, 4, 5, 7, 8, 9)  # two rows of three, with a good step between them
        run = nano(*SKIP, "trainer.max_skipped=3", name="three")
        assert read_metrics(run)[-1]["train/skipped"] == "6.0"
    corrupt_loss(monkeypatch, 3, 4, 5, 6)
    message = (
        r"in 4 steps in a row, up to step 6, but trainer.max_skipped=3: the run has diverged. "
        r"Try a lower optimizer.lr \(now 0.01\), a longer schedule.warmup_steps \(now 2\)"
    )
    with pytest.raises(ValueError, match=message):
        nano(*SKIP, "trainer.max_skipped=3")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"
    data = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert data["global_step"] == 5 and all(map(torch.Tensor.all, map(torch.isfinite, data["state_dict"].values())))


@pytest.mark.slow
@pytest.mark.parametrize("halt", [4, 5, 8])  # within a row of skipped steps, at its end, and after it
def test_a_resumed_run_keeps_the_counts(nano, monkeypatch, halt):
    corrupt_loss(monkeypatch, 2, 4, 5)
    quiet = (*SKIP, "trainer.log_every=100")  # so that the counts cannot come from the latest log step
    straight = nano(*quiet, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, halt)
        with pytest.raises(Interrupted):
            nano(*quiet)
    run = nano(*quiet)
    a, b = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (straight, run))
    assert (a["lm"]["skipped"], a["lm"]["skipped_in_row"]) == (b["lm"]["skipped"], b["lm"]["skipped_in_row"]) == (3, 0)
    assert equal(a["state_dict"], b["state_dict"]) and equal_nested(a["optimizer_states"], b["optimizer_states"])


def test_skipped_steps_in_a_row_are_counted_across_a_restart(nano, monkeypatch):
    corrupt_loss(monkeypatch, 4, 5, 6)
    settings = (*SKIP, "trainer.max_skipped=2")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            nano(*settings)
    with pytest.raises(ValueError, match="in 3 steps in a row, up to step 6"):
        nano(*settings)


@pytest.mark.slow
def test_on_nonfinite_may_change_when_a_run_is_resumed(nano, monkeypatch):
    """A run that stopped at a bad batch can be resumed with on_nonfinite=skip, and then with stop again."""
    corrupt_loss(monkeypatch, 6, 8)
    stop = SKIP[1:]
    with pytest.raises(ValueError, match="by step 6"):
        nano(*stop)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)  # the checkpoint records one skipped step in a row
        with pytest.raises(Interrupted):
            nano(*SKIP, "trainer.max_skipped=5")
    table = {int(row["step"]): row for row in read_metrics(nano(*stop))}
    assert table[12]["train/loss"] and table[12]["train/skipped"] == "2.0"


def test_a_skipped_step_gives_a_warning(nano, monkeypatch, caplog):
    corrupt_loss(monkeypatch, 6)
    with caplog.at_level(logging.WARNING, "lm"):
        nano(*SKIP)
    (line,) = [r.getMessage() for r in caplog.records if "skipped up to" in r.getMessage()]
    assert line.startswith("warning   1 optimizer step skipped up to step ")


def test_a_validation_that_is_not_finite_stops_the_run_with_skip_too(nano, monkeypatch):
    """In this case the weights themselves are bad, so skipping steps does not help."""
    original = LanguageModule.validation_step

    def validation_step(self, *args):
        original(self, *args)
        self._val[-1] = self._val[-1] * math.inf

    monkeypatch.setattr(LanguageModule, "validation_step", validation_step)
    with pytest.raises(ValueError, match="the run has diverged"):
        nano(*SKIP)


def test_steps_skipped_by_the_gradient_scaler_are_not_counted(nano, monkeypatch):
    """The scaler of fp16, on a CPU: an overflowing gradient is not counted, a loss that is not finite is."""
    import lightning as L
    from lightning.pytorch.plugins.precision import MixedPrecision

    class Scaled(MixedPrecision):
        def __init__(self):
            super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))

    trainer_class, original = L.Trainer, LanguageModule.backward
    monkeypatch.setattr(
        L, "Trainer", lambda **kwargs: trainer_class(**(kwargs | {"precision": None}), plugins=Scaled())
    )

    def backward(self, loss, *args, **kwargs):
        original(self, loss, *args, **kwargs)
        if self.trainer.global_step + 1 == 5:
            next(self.model.parameters()).grad.fill_(math.inf)

    monkeypatch.setattr(LanguageModule, "backward", backward)
    corrupt_loss(monkeypatch, 8)
    monkeypatch.setattr(LanguageModule, "configure_optimizers", lambda self: self.optimizer.build(self.model, False))
    run = nano(*SKIP, "callbacks.checkpoint.keep_last=99")
    assert equal(load_step(run, 4)["state_dict"], load_step(run, 5)["state_dict"])  # skipped by the scaler
    assert equal(load_step(run, 7)["state_dict"], load_step(run, 8)["state_dict"])
    assert not equal(load_step(run, 8)["state_dict"], load_step(run, 9)["state_dict"])
    table = {int(row["step"]): row for row in read_metrics(run)}
    assert table[7]["train/skipped"] == "" and table[12]["train/skipped"] == "1.0"
    assert table[5]["train/loss"] and not table[8]["train/loss"]


def test_on_nonfinite_and_max_skipped_are_validated():
    with pytest.raises(ValueError, match="trainer.on_nonfinite=skp must be one of stop, skip; did you mean 'skip'?"):
        TrainerConfig(on_nonfinite="skp")
    with pytest.raises(ValueError, match="trainer.max_skipped=0 must be at least 1"):
        TrainerConfig(max_skipped=0)
    assert (TrainerConfig().skip_limit, TrainerConfig(on_nonfinite="skip").skip_limit) == (0, 20)
    assert config_of("trainer.on_nonfinite=skip", "trainer.max_skipped=3").trainer.skip_limit == 3


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_steps_are_skipped_on_a_gpu(nano, monkeypatch, precision):
    corrupt_loss(monkeypatch, 6)
    run = nano(*SKIP, "device=cuda", f"precision={precision}", "callbacks.checkpoint.keep_last=99")
    assert equal(load_step(run, 5)["state_dict"], load_step(run, 6)["state_dict"])
    assert float(list(csv.DictReader((run / "metrics.csv").open()))[-1]["train/skipped"]) == 1
