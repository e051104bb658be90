"""Several runs by one command: a grid of them, a search among them, or a population that is bred.

The config and the jobs stand here, apart from the sweepers, which know Hydra: it imports this at every press of the tab
key.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lm import curve
from lm.check import Check
from lm.files import alive
from lm.owner import Owner, living, send

GRACE = 30.0  # seconds in which the jobs of other processes may save when a sweep is asked to stop
METRICS = ("val/loss", "val/bpb")


@dataclass
class SweepConfig:
    """What the sweepers of this folder read; a single run has no use for it, and config.yaml does not hold it."""

    metric: str = "val/loss"  # metric to compare runs by, at its lowest value over all validations: val/loss | val/bpb
    fail_fast: bool = False  # end the sweep at the first job that fails

    # sweep=search
    trials: int = 20  # sweep=search: number of runs, including those of earlier commands
    sampler: str = "tpe"  # sweep=search: how values are proposed: tpe | random
    pruner: str = "median"  # sweep=search: how unpromising trials are ended early: median | hyperband | none
    warmup: int = 2  # sweep=search: validations before a trial may be ended early
    startup: int = 5  # sweep=search: trials to finish before the first may be ended early
    trial: int | None = None  # sweep=search: number of the trial that a job is; set by the search

    # sweep=population
    population: int = 4  # sweep=population: runs in a round
    survivors: int = 2  # sweep=population: number of best runs that the next round continues from
    rounds: int = 3  # sweep=population: number of rounds
    steps: int = 500  # sweep=population: optimizer steps of each run in a round
    grow: bool = False  # sweep=population: insert a layer into the middle of each survivor between rounds

    def __post_init__(self) -> None:
        check = Check("sweep", self)
        check.one_of("metric", METRICS)
        check.one_of("sampler", ("tpe", "random"))
        check.one_of("pruner", ("median", "hyperband", "none"))
        for key in ("trials", "population", "survivors", "rounds", "steps"):
            check.at_least(key, 1)
        for key in ("warmup", "startup"):
            check.at_least(key, 0)
        check.that(self.survivors <= self.population, "survivors", f"be at most sweep.population={self.population}")
        check.done()


@dataclass
class Job:
    number: int
    overrides: dict[str, str]  # in which it differs from the others
    status: str = "not run"  # | finished | pruned | failed
    best: float | None = None  # sweep.metric, of all its validations
    step: int | None = None  # of the best one
    error: str | None = None
    parent: int | None = None  # in a population: whose weights it began with


def least(directory: Path, metric: str) -> tuple[float, int] | tuple[None, None]:
    """The least value of a run's validations, and its step."""
    found = [(row[metric], int(row["step"])) for row in curve.read(directory) if metric in row]
    return min(found, default=(None, None))


def winner(jobs: list[Job]) -> Job | None:
    done = [job for job in jobs if job.status == "finished" and job.best is not None]
    return min(done, key=lambda job: job.best or 0.0, default=None)


def groups(jobs: list[Job]) -> list[dict[str, Any]]:
    """Finished jobs that differ by their seed alone: how many, the mean, and the sample's standard deviation."""
    together: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        others = tuple((key, value) for key, value in job.overrides.items() if key != "seed")
        together.setdefault(others, []).append(job)
    found = []
    for others, same in together.items():
        values = [job.best for job in same if job.status == "finished" and job.best is not None]
        mean = statistics.fmean(values) if values else None
        sd = statistics.stdev(values) if len(values) > 1 else None
        found.append({"overrides": dict(others), "n": len(values), "mean": mean, "sd": sd})
    return found


def combinations(choices: dict[str, list[str]]) -> list[dict[str, str]]:
    """The last key varies fastest."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In what a sweep is no longer the old one, or that one with more jobs behind its own."""
    were, are = combinations(old["swept"]), combinations(new["swept"])
    same = were == are[: len(were)]
    a = {**old, **old["fixed"], **({} if same else {key: ",".join(values) for key, values in old["swept"].items()})}
    b = {**new, **new["fixed"], **({} if same else {key: ",".join(values) for key, values in new["swept"].items()})}
    keys = [key for key in a | b if key not in ("swept", "fixed") and a.get(key) != b.get(key)]
    changes = [f"{key} was {a.get(key, 'not given')}, now {b.get(key, 'not given')}" for key in keys]
    return changes or ([] if same else ["its keys stood in another order"])


@contextmanager
def stopping(directory: Path) -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP end a sweep whose jobs run in processes of their own, once they have saved."""

    def stop(signum: int, frame: FrameType | None) -> None:
        end(directory, tell=signum != signal.SIGINT)  # a terminal sends SIGINT to all processes itself
        raise SystemExit(128 + signum)

    signals = [signal.SIGINT, signal.SIGTERM]
    signals += [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)  # nohup has it ignored
    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def end(directory: Path, tell: bool = True) -> list[Owner]:
    """Wait for the jobs of other processes to save, which they are told to do or know; returns whose they were."""
    running = {path.parent: owner for path in directory.glob("*/.owner.json") if (owner := living(path.parent))}
    for job in running if tell else ():
        send(job, "stop")
    began = time.monotonic()
    while any(map(living, running)) and time.monotonic() - began < GRACE:
        time.sleep(0.1)
    return list(running.values())


def end_strays(directory: Path) -> None:
    """End the jobs that a killed command has left running. Raises ValueError when they run on another machine."""
    for owner in end(directory):
        if alive(owner.pid):  # and would take the next job
            os.kill(owner.pid, signal.SIGKILL)


def register() -> None:
    """Tell Hydra the sweepers: hydra/sweeper=search and so on; the grid in the place of its own basic one."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()  # which registers Hydra's own, so it comes first
    from lm.sweep.grid import Grid
    from lm.sweep.population import Population
    from lm.sweep.search import Search

    for name, sweeper in {"basic": Grid, "search": Search, "population": Population}.items():
        target = f"hydra_plugins.lm.{name}"  # an alias: Hydra refuses names that begin otherwise
        plugins.class_name_to_class[target] = sweeper
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node={"_target_": target, "params": None})
