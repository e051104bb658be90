"""The jobs of a sweep, their results, and what changed since the sweep was started."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.run import metrics_csv


@dataclass
class Job:
    number: int
    overrides: dict[str, str]  # in which it differs from the others
    status: str = "not run"  # | finished | pruned | failed
    best: float | None = None  # sweep.metric, of all its validations
    step: int | None = None  # of the best one
    error: str | None = None
    parent: int | None = None  # in a population: whose weights it began with


def lowest(directory: Path, metric: str) -> tuple[float, int] | tuple[None, None]:
    """The least value of a run's validations, and its step."""
    found = [(row[metric], int(row["step"])) for row in metrics_csv.read_metrics(directory) if metric in row]
    return min(found, default=(None, None))


def best_job(jobs: list[Job]) -> Job | None:
    done = [job for job in jobs if job.status == "finished" and job.best is not None]
    return min(done, key=lambda job: job.best or 0.0, default=None)


def group_by_seed(jobs: list[Job]) -> list[dict[str, Any]]:
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


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In what a sweep is no longer the old one, or that one with more jobs behind its own."""
    were, are = combinations(old["swept"]), combinations(new["swept"])
    same = were == are[: len(were)]
    a = {**old, **old["fixed"], **({} if same else {key: ",".join(values) for key, values in old["swept"].items()})}
    b = {**new, **new["fixed"], **({} if same else {key: ",".join(values) for key, values in new["swept"].items()})}
    keys = [key for key in a | b if key not in ("swept", "fixed") and a.get(key) != b.get(key)]
    changes = [f"{key} was {a.get(key, 'not given')}, now {b.get(key, 'not given')}" for key in keys]
    return changes or ([] if same else ["its keys stood in another order"])
