"""Observers cannot end a run: training continues when any method of a callback or logger raises."""

import inspect
import json
import shutil
import sys

import pytest
from helpers import NANO, config_of, equal, weights
from hydra.core.global_hydra import GlobalHydra

import train as train_script
from lm.base.console import ConsoleHandler, SafeStream, protect_console
from lm.run.directory import Diverged
from lm.training.callbacks.health import HealthChecks
from lm.training.callbacks.progress import Progress
from lm.training.callbacks.samples import Samples
from lm.training.callbacks.tasks import TaskScores
from lm.training.loggers.curves import CSVCurve, TensorBoard

OVERRIDES = ("callbacks.task.name=words", "callbacks.task.every=6", "callbacks.task.cases=1", "logger=default")
CALLBACKS = (Progress, HealthChecks, Samples, TaskScores)
LOGGERS = {
    CSVCurve: ("log_metrics", "log_hyperparams"),
    TensorBoard: ("log_metrics", "log_hyperparams", "save", "finalize"),
}
METHODS = [
    (cls, name)
    for cls in CALLBACKS
    for name, _ in inspect.getmembers(cls, inspect.isfunction)
    if name.startswith("on_") and any(name in vars(c) for c in cls.__mro__ if c.__module__.startswith("lm."))
] + [(cls, name) for cls in (Samples, TaskScores) for name in ("act", "state_dict", "load_state_dict")] + [
    (cls, name) for cls, names in LOGGERS.items() for name in names
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 12 steps, and the same run stopped after 6."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = [*NANO, *OVERRIDES, "schedule=constant", f"data.root={folder}/data"]
    for name, steps in (("straight", 12), ("half", 6)):
        GlobalHydra.instance().clear()
        train_script.train(config_of(*overrides, f"trainer.max_steps={steps}"), folder / name)
    GlobalHydra.instance().clear()
    return folder, config_of(*overrides)


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(("cls", "name"), METHODS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_failing_observer_is_reported_once_and_training_continues(trained, monkeypatch, caplog, tmp_path, cls, name):
    calls = []

    def fail(self, *args, **kwargs):
        calls.append(name)
        raise RuntimeError("no luck today")

    folder, config = trained
    shutil.copytree(folder / "half", tmp_path / "run")
    monkeypatch.setattr(cls, name, fail)
    with caplog.at_level("INFO", "lm"):
        train_script.train(config, tmp_path / "run")
    assert equal(weights(folder / "straight"), weights(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    reports = [record.message for record in caplog.records if "no luck today" in record.message]
    assert all("failed, training continues without it: RuntimeError" in report for report in reports)
    assert len(reports) == bool(calls)  # on_exception is not called in a run that finishes


def test_a_divergence_still_ends_the_run(nano, monkeypatch):
    """A divergence that an observer detects is not a failure of the observer."""

    def diverged(self, *args):
        raise Diverged("the loss became nan")

    monkeypatch.setattr(Samples, "act", diverged)
    with pytest.raises(Diverged, match="became nan"):
        nano("callbacks.sample.every=2")


@pytest.mark.slow
def test_training_is_unchanged_when_sampling_fails_with_averaged_weights(nano, monkeypatch):
    """The failure happens while the model has the averaged weights and is in eval mode."""
    average = ("callbacks.average.enabled=true", "model.dropout=0.2")
    straight = nano(*average, name="straight")

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lm.training.callbacks.samples.complete", fail)
    assert equal(weights(straight), weights(nano(*average)))


def test_metrics_csv_is_complete_after_a_failed_write(tmp_path, monkeypatch):
    """A full disk leaves an incomplete row, which the next row replaces."""
    curve = CSVCurve(tmp_path, 0)
    curve.log_metrics({"train/loss": 1.0}, 1)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,0.")
    curve.log_metrics({"train/loss": 3.0}, 3)
    assert [line.split(",")[:2] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]] == [
        ["1", "1.0"],
        ["3", "3.0"],
    ]


# ---- the console


class Broken:
    """A stream that raises an error at every write."""

    encoding, name = "utf-8", "<stdout>"

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = lambda self: self.write("")  # noqa: E731
    isatty = lambda self: False  # noqa: E731

    def fileno(self):
        raise ValueError("no file")


ERRORS = [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), OSError(5, "Input/output error"),
          ValueError("I/O operation on closed file")]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=[type(e).__name__ + str(e.args[0])[:2] for e in ERRORS])
@pytest.mark.parametrize("method", ["write", "flush", "writelines"])
def test_a_stream_that_cannot_be_written_to_is_reported_once(caplog, error, method):
    stream = SafeStream(Broken(error))
    for _ in range(3):
        {"write": lambda: stream.write("x"), "flush": stream.flush, "writelines": lambda: stream.writelines(["x"])}[
            method
        ]()
    (record,) = caplog.records
    assert "can no longer be written to" in record.message and "see train.log for further messages" in record.message


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_characters_that_the_console_cannot_encode_are_escaped(tmp_path, encoding):
    text = "שלום 🎉 é ║ \ud800"
    with (tmp_path / "out").open("w", encoding=encoding, newline="") as file:
        stream = SafeStream(file)
        assert stream.write(text) > 0
        stream.flush()
    printed = (tmp_path / "out").read_text(encoding=encoding)
    assert printed == text.encode(encoding, "backslashreplace").decode(encoding)


def test_a_log_line_that_cannot_be_printed_does_not_raise(monkeypatch, caplog):
    import logging

    monkeypatch.setattr("rich.get_console", lambda: (_ for _ in ()).throw(RuntimeError("no console")))
    ConsoleHandler().handle(logging.LogRecord("lm", logging.INFO, "", 0, "text", (), None))


def test_both_streams_are_protected_once(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(OSError()))
    monkeypatch.setattr(sys, "stderr", None)  # closed before Python started
    protect_console()
    protect_console()
    assert isinstance(sys.stdout, SafeStream) and not isinstance(sys.stdout._stream, SafeStream)
    assert sys.stderr is None
