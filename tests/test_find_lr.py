"""The learning-rate range test: that it trains as train.py does, what it suggests, and the script around it."""

import csv
import json
import math
import sys

import pytest
from conftest import NANO, config_of
from hydra.core.global_hydra import GlobalHydra

from lm.base import commands
from lm.experiment.find_lr import Curve, range_test, spaced_rates, train_losses
from scripts import find_lr

# Every rate the same, as in a run whose rate is constant.
CONSTANT = ["schedule=constant", "schedule.warmup_steps=0", "callbacks.sample.enabled=false", "trainer.max_steps=8"]
SHORT = ["data.batch_size=8", "--steps", "60", "--min", "1e-4", "--max", "100"]


def trained(run):
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def at_one_rate(*overrides, tmp_path):
    return list(train_losses(config_of(*NANO, *CONSTANT, f"data.root={tmp_path}/data", *overrides), [0.01] * 8))


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.dropout=0.1", "precision=bf16"),
        ("optimizer=muon", "optimizer.grad_clip=0.1", "model.tie_embeddings=false", "loss.label_smoothing=0.1"),
        ("optimizer=sgd", "optimizer.head_lr_ratio=3", "model.tie_embeddings=false", "precision=bf16_true"),
    ],
)
def test_it_trains_as_a_run_does(overrides, nano, tmp_path):
    assert at_one_rate(*overrides, tmp_path=tmp_path) == trained(nano(*CONSTANT, *overrides))


def test_it_respects_documents_as_a_run_does(nano, tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "One day."}\n{"text": "Two nights, or three?"}\n' * 100)
    kept = [typed for typed in NANO if not typed.startswith("corpus.lines")]
    monkeypatch.setattr("conftest.NANO", kept)
    monkeypatch.setattr(sys.modules[__name__], "NANO", kept)
    documents = ("corpus=jsonl", f"corpus.path={tmp_path}/a.jsonl")
    respected = at_one_rate(*documents, "data.respect_documents=true", tmp_path=tmp_path)
    assert respected == trained(nano(*CONSTANT, *documents, "data.respect_documents=true"))
    assert respected != at_one_rate(*documents, tmp_path=tmp_path)


def test_it_begins_where_init_from_says(nano, tmp_path):
    first = nano()
    started = (f"init_from={first}", "seed=7")
    found = at_one_rate(*started, tmp_path=tmp_path)
    assert found == trained(nano(*CONSTANT, *started, name="second"))
    assert found[0] < at_one_rate("seed=7", tmp_path=tmp_path)[0] - 0.3


def test_devices_and_auto_do_not_change_the_batch(tmp_path):
    one = at_one_rate("data.micro_batch_size=2", tmp_path=tmp_path)
    assert at_one_rate("data.micro_batch_size=null", "trainer.devices=2", tmp_path=tmp_path) == one
    whole = at_one_rate("data.micro_batch_size=null", tmp_path=tmp_path)
    assert at_one_rate("data.micro_batch_size=auto", tmp_path=tmp_path) == whole


# ---- what is read off the curve


def curve(loss, low=1e-5, high=1.0, steps=200):
    """Of a test whose loss at each rate is that function of log10."""
    made = Curve(spaced_rates(low, high, steps))
    for lr in made.lrs:
        if not made.add(loss(math.log10(lr))):
            break
    return made


def test_rates_rise_by_one_factor():
    assert spaced_rates(1e-4, 1e-1, 31) == pytest.approx([10 ** (i / 10 - 4) for i in range(31)])


def test_smoothing_has_no_bias_and_is_late_by_the_same_factor():
    assert curve(lambda x: 5.0).smoothed == pytest.approx([5.0] * 200)
    for steps in (100, 200, 1000):  # which shows on a straight line, here in decades
        made = curve(lambda x: 7 - x, steps=steps)
        assert made.smoothed[-1] - made.losses[-1] == pytest.approx(0.22, abs=0.03)


def test_the_end_of_the_fall_counts_and_not_a_later_low_on_the_plateau():
    made = curve(lambda x: max(5, 7 - (x + 4)) - 0.1 * max(0, x + 1))  # falls up to 1e-2, and a little from 0.1 on
    end, (suggestion, why) = made.fall_end, made.suggestion()
    assert made.lrs[made.lowest] == pytest.approx(1)
    assert 1e-2 < made.lrs[end] < 10**-1.2
    assert suggestion == made.lrs[end] / 3 and why.startswith("a third")


def test_a_tenth_of_divergence_counts_where_that_is_lower():
    made = curve(lambda x: 7 - (x + 5) if x < -2 else 4 + 10 * (x + 2))
    assert made.lrs[made.lowest] == pytest.approx(1e-2, rel=0.2)
    assert made.smoothed[made.diverged] > min(made.smoothed) + 0.5 >= made.smoothed[made.diverged - 1]
    assert len(made.losses) == made.diverged + 1 < 200
    assert made.suggestion() == (made.lrs[made.diverged] / 10, "a tenth of the rate at which the loss has diverged")


@pytest.mark.parametrize("gone", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(gone):
    made = curve(lambda x: 7 - (x + 5) if x < -2 else gone)
    assert made.lrs[made.diverged] == pytest.approx(1e-2, rel=0.1)
    assert len(made.losses) == made.diverged and made.suggestion()[0] == made.lrs[made.diverged] / 10


def test_without_a_fall_or_its_end_nothing_is_suggested():
    assert curve(lambda x: 7 - (x + 5)).suggestion() == (
        None,
        "the loss was still falling at the highest rate: raise --max 1",
    )
    assert curve(lambda x: 7 + (x + 5)).suggestion() == (None, "the loss never fell before it rose: lower --min 1e-05")
    assert curve(lambda x: math.nan).suggestion() == (None, "the loss never fell before it rose: lower --min 1e-05")


# ---- the script


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """script(...) runs scripts/find_lr.py on a nano model in an empty directory: (0 or its error, standard output)."""

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


def test_the_same_command_gives_the_same_figures_and_leaves_nothing(script, tmp_path):
    status, out = script(*SHORT, "--json")
    assert status == 0 and script(*SHORT, "--json") == (0, out)
    found = json.loads(out)
    assert found["now"] == 0.01
    assert found["suggestion"] <= found["fall_ends"]["lr"] / 3 and found["diverged"]["lr"] > found["fall_ends"]["lr"]
    assert len(found["lrs"]) == len(found["losses"]) == len(found["smoothed"]) == found["diverged"]["step"]
    assert not list((tmp_path / "work").iterdir())
    status, shown = script(*SHORT)
    assert shown.splitlines()[0].split() == ["rate", "loss", "smoothed"]
    assert "the fall ends" in shown and "diverged" in shown
    assert f"suggestion: optimizer.lr={found['suggestion']:.2g}, a t" in shown and "optimizer.lr is 0.01 now" in shown


def test_pictures_and_tensorboard(script, tmp_path):
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, out = script(*SHORT, "--out", tmp_path / "lr.png", "--logdir", tmp_path / "logs", "--json")
    found = json.loads(out)
    assert status == 0 and (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert events.Tags()["scalars"] == ["find_lr/lr", "find_lr/loss"] and events.Tags()["images"] == ["find_lr"]
    assert [e.value for e in events.Scalars("find_lr/loss")] == pytest.approx(found["losses"])
    assert [e.step for e in events.Scalars("find_lr/lr")] == list(range(1, len(found["lrs"]) + 1))
    assert "has curves already" in script(*SHORT, "--logdir", tmp_path / "logs")[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--min", "1"], "--min 1 must be above 0 and below --max 1"),
        (["--min", "0"], "--min 0 must be above 0"),
        (["--steps", "5"], "--steps 5 must be at least 20"),
        (["--out", "nowhere/lr.png"], "--out nowhere/lr.png must be a .png file in a directory that is there"),
        (["--out", "lr.jpeg"], "--out lr.jpeg must be a .png"),
        (["model=tny"], "model=tny: there is no such option"),
        (["data.micro_batch_size=3"], "data.batch_size=16 must be a multiple of data.micro_batch_size=3"),
        (["init_from=nowhere"], "nowhere: no such run or checkpoint"),
    ],
)
def test_refusals_are_one_line(args, message, script):
    status, out = script(*args)
    assert status.startswith("error: ") and message in status and not out and len(status.splitlines()) == 1


def test_a_picture_without_matplotlib_is_refused_at_once(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert script("--out", "lr.png")[0] == f"error: a picture needs matplotlib: {commands.install('.[report]')}"


def test_options_may_stand_between_overrides(script):
    assert script("model.n_layer=1", *SHORT, "optimizer=sgd", "--json")[0] == 0


def test_a_watcher_sees_every_loss(tmp_path):
    seen = []

    def watched(values):
        for value in values:
            seen.append(value)
            yield value

    config = config_of(*NANO, f"data.root={tmp_path}/data")
    assert range_test(config, spaced_rates(1e-4, 1e-2, 20), watched).losses == seen
