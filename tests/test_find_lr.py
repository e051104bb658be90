"""The learning-rate range test: it trains as train.py does; its suggestions; its script."""

import csv
import json
import math
import sys

import pytest
from helpers import NANO, config_of
from hydra.core.global_hydra import GlobalHydra

from lm.base import commands
from lm.experiment.find_lr import Curve, range_test, spaced_learning_rates, train_losses
from scripts import find_lr

# A constant learning rate.
CONSTANT = ["schedule=constant", "schedule.warmup_steps=0", "callbacks.sample.enabled=false", "trainer.max_steps=8"]
SHORT = ["data.batch_size=8", "--steps", "60", "--min", "1e-4", "--max", "100"]


def logged_losses(run):
    """Return train/loss of a run with train.py."""
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def constant_lr_losses(*overrides, tmp_path):
    """Return the losses of the range test if all learning rates are the same."""
    return list(train_losses(config_of(*NANO, *CONSTANT, f"data.root={tmp_path}/data", *overrides), [0.01] * 8))


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    "overrides",
    [
        ("model.dropout=0.1", "precision=bf16"),
        ("optimizer=muon", "optimizer.grad_clip=0.1", "model.tie_embeddings=false", "loss.label_smoothing=0.1"),
        ("optimizer=sgd", "optimizer.head_lr_ratio=3", "model.tie_embeddings=false", "precision=bf16_true"),
    ],
)
def test_it_trains_as_train_py_does(overrides, nano, tmp_path):
    assert constant_lr_losses(*overrides, tmp_path=tmp_path) == logged_losses(nano(*CONSTANT, *overrides))


@pytest.mark.slow
def test_it_respects_documents_as_train_py_does(nano, tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "One day."}\n{"text": "Two nights, or three?"}\n' * 100)
    kept = [typed for typed in NANO if not typed.startswith("corpus.lines")]
    monkeypatch.setattr(sys.modules[__name__], "NANO", kept)
    documents = ("corpus=jsonl", f"corpus.path={tmp_path}/a.jsonl")
    respected = constant_lr_losses(*documents, "data.respect_documents=true", tmp_path=tmp_path)
    run = nano(*CONSTANT, *documents, "data.respect_documents=true", skip=("corpus.lines",))
    assert respected == logged_losses(run)
    assert respected != constant_lr_losses(*documents, tmp_path=tmp_path)


@pytest.mark.slow
def test_it_starts_from_the_weights_of_init_from(nano, tmp_path):
    first = nano()
    started = (f"init_from={first}", "seed=7")
    found = constant_lr_losses(*started, tmp_path=tmp_path)
    assert found == logged_losses(nano(*CONSTANT, *started, name="second"))
    assert found[0] < constant_lr_losses("seed=7", tmp_path=tmp_path)[0] - 0.3


def test_devices_and_auto_do_not_change_the_batch(tmp_path):
    one = constant_lr_losses("data.micro_batch_size=2", tmp_path=tmp_path)
    assert constant_lr_losses("data.micro_batch_size=null", "trainer.devices=2", tmp_path=tmp_path) == one
    whole = constant_lr_losses("data.micro_batch_size=null", tmp_path=tmp_path)
    assert constant_lr_losses("data.micro_batch_size=auto", tmp_path=tmp_path) == whole


# ---- the points of a curve


def curve(loss, low=1e-5, high=1.0, steps=200):
    """Return the curve of a test whose loss is a function of log10(learning rate)."""
    result = Curve(spaced_learning_rates(low, high, steps))
    for lr in result.lrs:
        if not result.add(loss(math.log10(lr))):
            break
    return result


def test_learning_rates_are_evenly_spaced_on_a_logarithmic_scale():
    assert spaced_learning_rates(1e-4, 1e-1, 31) == pytest.approx([10 ** (i / 10 - 4) for i in range(31)])


def test_smoothing_is_unbiased_and_its_delay_is_the_same_factor_in_every_test():
    assert curve(lambda x: 5.0).smoothed == pytest.approx([5.0] * 200)
    for steps in (100, 200, 1000):  # a straight line shows the delay, here in powers of ten
        result = curve(lambda x: 7 - x, steps=steps)
        assert result.smoothed[-1] - result.losses[-1] == pytest.approx(0.22, abs=0.03)


def test_the_suggestion_uses_the_end_of_the_fall_and_not_a_later_minimum_on_the_plateau():
    result = curve(lambda x: max(5, 7 - (x + 4)) - 0.1 * max(0, x + 1))  # falls until 1e-2, and slightly from 0.1
    end, (suggestion, why) = result.fall_end, result.suggestion()
    assert result.lrs[result.lowest] == pytest.approx(1)
    assert 1e-2 < result.lrs[end] < 10**-1.2
    assert suggestion == result.lrs[end] / 3 and why.startswith("a third")


def test_the_suggestion_is_a_tenth_of_the_diverging_learning_rate_if_that_is_lower():
    result = curve(lambda x: 7 - (x + 5) if x < -2 else 4 + 10 * (x + 2))
    assert result.lrs[result.lowest] == pytest.approx(1e-2, rel=0.2)
    assert result.smoothed[result.diverged] > min(result.smoothed) + 0.5 >= result.smoothed[result.diverged - 1]
    assert len(result.losses) == result.diverged + 1 < 200
    assert result.suggestion() == (
        result.lrs[result.diverged] / 10,
        "a tenth of the learning rate at which the loss has diverged",
    )


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_counts_as_divergence(loss):
    result = curve(lambda x: 7 - (x + 5) if x < -2 else loss)
    assert result.lrs[result.diverged] == pytest.approx(1e-2, rel=0.1)
    assert len(result.losses) == result.diverged and result.suggestion()[0] == result.lrs[result.diverged] / 10


def test_nothing_is_suggested_without_a_fall_or_its_end():
    assert curve(lambda x: 7 - (x + 5)).suggestion() == (
        None,
        "the loss was still falling at the highest learning rate: raise --max 1",
    )
    assert curve(lambda x: 7 + (x + 5)).suggestion() == (None, "the loss never fell before it rose: lower --min 1e-05")
    assert curve(lambda x: math.nan).suggestion() == (None, "the loss never fell before it rose: lower --min 1e-05")


# ---- the script


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """script(...) runs scripts/find_lr.py on a nano model in an empty directory and returns (0 or error, output)."""

    def run(*args):
        (tmp_path / "work").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "work")
        typed = [typed for typed in NANO if not typed.startswith("data.batch_size")]
        monkeypatch.setattr(sys, "argv", ["find_lr.py", *typed, f"data.root={tmp_path}/data", *map(str, args)])
        GlobalHydra.instance().clear()
        status = 0
        try:
            find_lr.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out

    return run


@pytest.mark.slow
def test_the_same_command_prints_the_same_figures_and_leaves_no_files(script, tmp_path):
    status, out = script(*SHORT, "--json")
    assert status == 0 and script(*SHORT, "--json") == (0, out)
    found = json.loads(out)
    assert found["now"] == 0.01
    assert found["suggestion"] <= found["fall_ends"]["lr"] / 3 and found["diverged"]["lr"] > found["fall_ends"]["lr"]
    assert len(found["lrs"]) == len(found["losses"]) == len(found["smoothed"]) == found["diverged"]["step"]
    assert not list((tmp_path / "work").iterdir())
    status, report = script(*SHORT)
    assert report.splitlines()[0].split() == ["lr", "loss", "smoothed"]
    assert "the fall ends" in report and "diverged" in report
    assert f"suggestion: optimizer.lr={found['suggestion']:.2g}, a t" in report and "optimizer.lr is 0.01 now" in report


@pytest.mark.slow
def test_the_plot_and_the_tensorboard_logs_are_written(script, tmp_path):
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, out = script(*SHORT, "--out", tmp_path / "lr.png", "--logdir", tmp_path / "logs", "--json")
    found = json.loads(out)
    assert status == 0 and (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert events.Tags()["scalars"] == ["find_lr/lr", "find_lr/loss"] and events.Tags()["images"] == ["find_lr"]
    assert [e.value for e in events.Scalars("find_lr/loss")] == pytest.approx(found["losses"])
    assert [e.step for e in events.Scalars("find_lr/lr")] == list(range(1, len(found["lrs"]) + 1))
    assert "already contains curves" in script(*SHORT, "--logdir", tmp_path / "logs")[0]


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--min", "1"], "--min 1 must be above 0 and below --max 1"),
        (["--min", "0"], "--min 0 must be above 0"),
        (["--steps", "5"], "--steps 5 must be at least 20"),
        (["--out", "nowhere/lr.png"], "--out nowhere/lr.png must be a .png file in an existing directory"),
        (["--out", "lr.jpeg"], "--out lr.jpeg must be a .png"),
        (["model=tny"], "model=tny: there is no such option"),
        (["data.micro_batch_size=3"], "data.batch_size=16 must be a multiple of data.micro_batch_size=3"),
        (["init_from=nowhere"], "nowhere: no such run or checkpoint"),
    ],
)
def test_errors_are_one_line(args, message, script):
    status, out = script(*args)
    assert status.startswith("error: ") and message in status and not out and len(status.splitlines()) == 1


def test_a_plot_without_matplotlib_is_refused_before_the_test(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert (
        script("--out", "lr.png")[0]
        == f"error: drawing needs matplotlib; install it with {commands.install('.[report]')}"
    )


@pytest.mark.slow
def test_flags_may_come_between_overrides(script):
    assert script("model.n_layer=1", *SHORT, "optimizer=sgd", "--json")[0] == 0


def test_the_wrapper_receives_every_loss(tmp_path):
    seen = []

    def watched(values):
        for value in values:
            seen.append(value)
            yield value

    config = config_of(*NANO, f"data.root={tmp_path}/data")
    assert range_test(config, spaced_learning_rates(1e-4, 1e-2, 20), watched).losses == seen
