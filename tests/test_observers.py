"""What only observes a run cannot end it: each observer raises in each of its methods, and training continues."""

import inspect
import json
import shutil
import sys

import pytest
from conftest import NANO, config_of, equal, weights
from hydra.core.global_hydra import GlobalHydra

import train as train_script
from lm.base.console import ConsoleHandler, SafeStream, protect_console
from lm.run.directory import Diverged
from lm.training.callbacks.health import HealthChecks
from lm.training.callbacks.progress import Progress
from lm.training.callbacks.samples import Samples
from lm.training.callbacks.tasks import TaskScores
from lm.training.loggers.curves import CSVCurve, TensorBoard

TYPED = ("callbacks.task.name=words", "callbacks.task.every=6", "callbacks.task.cases=1", "logger=default")
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
    """A run of 12 steps that nothing disturbs, and the same one stopped after 6."""
    folder = tmp_path_factory.mktemp("trained")
    typed = [*NANO, *TYPED, "schedule=constant", f"data.root={folder}/data"]
    for name, steps in (("straight", 12), ("half", 6)):
        GlobalHydra.instance().clear()
        train_script.train(config_of(*typed, f"trainer.max_steps={steps}"), folder / name)
    GlobalHydra.instance().clear()
    return folder, config_of(*typed)


@pytest.mark.parametrize(("cls", "name"), METHODS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_an_observer_that_fails_is_reported_once_and_training_continues(
    trained, monkeypatch, caplog, tmp_path, cls, name
):
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
    """It shows while an observer looks at the weights, and is no failure of the observer."""

    def diverged(self, *args):
        raise Diverged("the loss became nan")

    monkeypatch.setattr(Samples, "act", diverged)
    with pytest.raises(Diverged, match="became nan"):
        nano("callbacks.sample.every=2")


def test_a_model_is_trained_on_as_before_when_an_observer_fails_in_the_middle(nano, monkeypatch):
    """A failure while the model has the averaged weights, in eval mode."""
    average = ("callbacks.average.enabled=true", "model.dropout=0.2")
    straight = nano(*average, name="straight")

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lm.training.callbacks.samples.write", fail)
    assert equal(weights(straight), weights(nano(*average)))


def test_metrics_csv_is_whole_after_a_failed_write(tmp_path, monkeypatch):
    """A disk that was full for a moment leaves half a row; the next row takes its place."""
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
    """A stream whose other end is gone, or whose disk is full."""

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
def test_a_stream_that_cannot_be_written_to_is_given_up_once(caplog, error, method):
    stream = SafeStream(Broken(error))
    for _ in range(3):
        {"write": lambda: stream.write("x"), "flush": stream.flush, "writelines": lambda: stream.writelines(["x"])}[
            method
        ]()
    (record,) = caplog.records
    assert "can no longer be written to" in record.message and "train.log has the messages" in record.message


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_characters_that_the_console_lacks_are_escaped(tmp_path, encoding):
    text = "שלום 🎉 é ║ \ud800"
    with (tmp_path / "out").open("w", encoding=encoding, newline="") as file:
        stream = SafeStream(file)
        assert stream.write(text) > 0
        stream.flush()
    shown = (tmp_path / "out").read_text(encoding=encoding)
    assert shown == text.encode(encoding, "backslashreplace").decode(encoding)


def test_a_log_line_that_cannot_be_printed_raises_nothing(monkeypatch, caplog):
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
