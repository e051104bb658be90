"""Steps whose loss or gradient is not finite: the run stops, or leaves them out exactly."""

import csv
import json
import logging
import math

import pytest
import torch
from conftest import config_of, equal, slow_except
from test_train import interrupt_after, rows, same

from lm.config import CONF
from lm.run.directory import Interrupted
from lm.training.module import LanguageModule
from lm.training.trainer import TrainerConfig

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
SKIP = ("trainer.on_nonfinite=skip", "callbacks.sample.enabled=false", "trainer.save_every=1")


def spoil(monkeypatch, *steps, micro=1, what=math.nan):
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


def saved(run, step):
    return torch.load(run / "checkpoints" / f"step_{step:06d}.ckpt", weights_only=True)


@pytest.mark.parametrize("optimizer", slow_except(["adamw", "adamw_8bit", "muon"], OPTIMIZERS))
@pytest.mark.parametrize("step", [1, 6])  # before there is any state, and with some
@pytest.mark.parametrize("micro", slow_except([1], [0, 1]))
def test_a_skipped_step_leaves_weights_and_optimizer_untouched(nano, monkeypatch, optimizer, step, micro):
    spoil(monkeypatch, step, micro=micro)
    big = ("model.n_embd=64",)  # matrices of 4096 numbers, which 8 bits hold
    run = nano(*SKIP, *big, f"optimizer={optimizer}", "callbacks.checkpoint.keep_last=99", "trainer.max_steps=8")
    if step == 1:
        before = saved(run, 1)
        assert not any(len(state["state"]) for state in before["optimizer_states"])
    else:
        before, after, later = saved(run, step - 1), saved(run, step), saved(run, step + 1)
        assert after["global_step"] == before["global_step"] + 1
        assert equal(before["state_dict"], after["state_dict"])
        states = [[state["state"] for state in data["optimizer_states"]] for data in (before, after, later)]
        assert same(states[0], states[1]) and not same(states[1], states[2])  # averages and step counts
        assert not equal(after["state_dict"], later["state_dict"])
    table = {int(row["step"]): row for row in rows(run)}
    assert [s for s, row in table.items() if not row["train/loss"]] == [step]  # no number, and no nan
    assert [row["train/skipped"] for row in table.values()] == [""] * (step - 1) + ["1.0"] * (9 - step)
    assert all(math.isfinite(float(row["train/grad_norm"])) for s, row in table.items() if s != step)
    assert json.loads((run / "run.json").read_text())["metrics"]["train/skipped"] == 1


def test_the_data_go_on_as_if_the_step_had_been_made(nano, monkeypatch):
    """Step k sees batch k, skipped steps or none: a run that skips is one whose gradient was left out there."""
    seen = {}
    original = LanguageModule.training_step

    def spy(self, batch, index):
        seen.setdefault(self.trainer.default_root_dir.rsplit("/", 1)[-1], []).append(batch[0].clone())
        return original(self, batch, index)

    monkeypatch.setattr(LanguageModule, "training_step", spy)
    nano(name="plain")
    spoil(monkeypatch, 3, 4, 7)
    nano(*SKIP, name="skips")
    assert same(seen["plain"], seen["skips"])


def test_skip_changes_nothing_of_a_run_that_needs_no_skip(nano):
    plain, careful = nano(name="plain"), nano("trainer.on_nonfinite=skip", name="careful")
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (plain, careful))
    assert equal(a["state_dict"], b["state_dict"]) and same(a["optimizer_states"], b["optimizer_states"])
    assert rows(plain) == rows(careful)


@pytest.mark.parametrize("micro", [0, 1])
def test_stop_says_what_to_try(nano, tmp_path, monkeypatch, micro):
    spoil(monkeypatch, 6, micro=micro)
    with pytest.raises(ValueError, match=r"became infinite or nan by step 6: the run has diverged. Try a lower"):
        nano()
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_so_many_in_a_row_may_be_skipped_and_no_more(nano, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, 3, 4, 5, 7, 8, 9)  # two times three, a good one between
        run = nano(*SKIP, "trainer.max_skipped=3", name="three")
        assert rows(run)[-1]["train/skipped"] == "6.0"
    spoil(monkeypatch, 3, 4, 5, 6)
    message = (
        r"in 4 steps in a row, by step 6, of which trainer.max_skipped=3 may be skipped: the run has diverged. "
        r"Try a lower optimizer.lr \(now 0.01\), a longer schedule.warmup_steps \(now 2\)"
    )
    with pytest.raises(ValueError, match=message):
        nano(*SKIP, "trainer.max_skipped=3")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"
    data = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert data["global_step"] == 5 and all(map(torch.Tensor.all, map(torch.isfinite, data["state_dict"].values())))


@pytest.mark.parametrize("halt", [4, 5, 8])  # within a row of skipped steps, at its end, and after it
def test_a_continued_run_keeps_the_counts(nano, monkeypatch, halt):
    spoil(monkeypatch, 2, 4, 5)
    quiet = (*SKIP, "trainer.log_every=100")  # the counts are not those of the latest log step
    straight = nano(*quiet, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, halt)
        with pytest.raises(Interrupted):
            nano(*quiet)
    run = nano(*quiet)
    a, b = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (straight, run))
    assert (a["lm"]["skipped"], a["lm"]["skipped_in_row"]) == (b["lm"]["skipped"], b["lm"]["skipped_in_row"]) == (3, 0)
    assert equal(a["state_dict"], b["state_dict"]) and same(a["optimizer_states"], b["optimizer_states"])


def test_a_row_of_skipped_steps_goes_on_over_a_restart(nano, monkeypatch):
    spoil(monkeypatch, 4, 5, 6)
    settings = (*SKIP, "trainer.max_skipped=2")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            nano(*settings)
    with pytest.raises(ValueError, match="in 3 steps in a row, by step 6"):
        nano(*settings)


def test_a_stopped_run_may_go_on_skipping_and_back(nano, monkeypatch):
    """on_nonfinite and max_skipped are free to change: who met a bad batch can go on without it."""
    spoil(monkeypatch, 6, 8)
    stop = SKIP[1:]
    with pytest.raises(ValueError, match="by step 6"):
        nano(*stop)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)  # the checkpoint says: one in a row
        with pytest.raises(Interrupted):
            nano(*SKIP, "trainer.max_skipped=5")
    table = {int(row["step"]): row for row in rows(nano(*stop))}
    assert table[12]["train/loss"] and table[12]["train/skipped"] == "2.0"


def test_what_a_skipped_step_would_have_added_is_said(nano, monkeypatch, caplog):
    spoil(monkeypatch, 6)
    with caplog.at_level(logging.WARNING, "lm"):
        nano(*SKIP)
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert line.startswith("warning   1 optimizer step left out by step ")


def test_validation_that_is_not_finite_stops_even_so(nano, monkeypatch):
    """No step is to blame: the weights themselves are bad."""
    original = LanguageModule.validation_step

    def validation_step(self, *args):
        original(self, *args)
        self._val[-1] = self._val[-1] * math.inf

    monkeypatch.setattr(LanguageModule, "validation_step", validation_step)
    with pytest.raises(ValueError, match="the run has diverged"):
        nano(*SKIP)


def test_a_gradient_scaler_keeps_its_own_skipping(nano, monkeypatch):
    """fp16's scaler, on a CPU: an overflowing gradient is its business and is not counted, a bad loss is."""
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
    spoil(monkeypatch, 8)
    monkeypatch.setattr(LanguageModule, "configure_optimizers", lambda self: self.optimizer.build(self.model, False))
    run = nano(*SKIP, "callbacks.checkpoint.keep_last=99")
    assert equal(saved(run, 4)["state_dict"], saved(run, 5)["state_dict"])  # the scaler's
    assert equal(saved(run, 7)["state_dict"], saved(run, 8)["state_dict"])
    assert not equal(saved(run, 8)["state_dict"], saved(run, 9)["state_dict"])
    table = {int(row["step"]): row for row in rows(run)}
    assert table[7]["train/skipped"] == "" and table[12]["train/skipped"] == "1.0"
    assert table[5]["train/loss"] and not table[8]["train/loss"]


def test_the_choice_is_checked():
    with pytest.raises(ValueError, match="trainer.on_nonfinite=skp must be one of stop, skip; did you mean 'skip'?"):
        TrainerConfig(on_nonfinite="skp")
    with pytest.raises(ValueError, match="trainer.max_skipped=0 must be at least 1"):
        TrainerConfig(max_skipped=0)
    assert (TrainerConfig().skips, TrainerConfig(on_nonfinite="skip").skips) == (0, 20)
    assert config_of("trainer.on_nonfinite=skip", "trainer.max_skipped=3").trainer.skips == 3


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_skips_too(nano, monkeypatch, precision):
    spoil(monkeypatch, 6)
    run = nano(*SKIP, "device=cuda", f"precision={precision}", "callbacks.checkpoint.keep_last=99")
    assert equal(saved(run, 5)["state_dict"], saved(run, 6)["state_dict"])
    assert float(list(csv.DictReader((run / "metrics.csv").open()))[-1]["train/skipped"]) == 1
