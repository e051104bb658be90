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
    """A job of a sweep and its result, as in sweep.json."""

    number: int
    overrides: dict[str, str]  # the overrides in which it differs from the other jobs
    status: str = "not run"  # | finished | pruned | failed
    best: float | None = None  # lowest sweep.metric of all its validations
    step: int | None = None  # step of that validation
    error: str | None = None
    parent: int | None = None  # in a population: number of the job whose weights it started from


def best_validation(directory: Path, metric: str) -> tuple[float, int] | tuple[None, None]:
    """Return the lowest value of a metric over all validations of a run, and its step."""
    values = [(row[metric], int(row["step"])) for row in metrics_csv.read_metrics(directory) if metric in row]
    return min(values, default=(None, None))


def best_job(jobs: list[Job]) -> Job | None:
    """Return the finished job with the lowest metric."""
    done = [job for job in jobs if job.status == "finished" and job.best is not None]
    return min(done, key=lambda job: job.best or 0.0, default=None)


def group_by_seed(jobs: list[Job]) -> list[dict[str, Any]]:
    """Group the jobs that differ only in their seed.

    Returns a dict for each group with the common overrides, the number of finished jobs, and the mean and the sample
    standard deviation of their metric.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        others = tuple((key, value) for key, value in job.overrides.items() if key != "seed")
        groups.setdefault(others, []).append(job)
    results = []
    for others, same in groups.items():
        values = [job.best for job in same if job.status == "finished" and job.best is not None]
        mean = statistics.fmean(values) if values else None
        sd = statistics.stdev(values) if len(values) > 1 else None
        results.append({"overrides": dict(others), "n": len(values), "mean": mean, "sd": sd})
    return results


def combinations(choices: dict[str, list[str]]) -> list[dict[str, str]]:
    """Return all combinations of the values of each key. The last key varies fastest."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List how a sweep differs from the one recorded before. Jobs added after the old ones are not a difference."""
    old_jobs, new_jobs = combinations(old["swept"]), combinations(new["swept"])
    same = old_jobs == new_jobs[: len(old_jobs)]
    a = {**old, **old["fixed"], **({} if same else {key: ",".join(values) for key, values in old["swept"].items()})}
    b = {**new, **new["fixed"], **({} if same else {key: ",".join(values) for key, values in new["swept"].items()})}
    keys = [key for key in a | b if key not in ("swept", "fixed") and a.get(key) != b.get(key)]
    changes = [f"{key} was {a.get(key, 'not given')}, now {b.get(key, 'not given')}" for key in keys]
    return changes or ([] if same else ["the order of its keys has changed"])
