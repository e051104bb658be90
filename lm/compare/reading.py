"""Read runs from their directories, also runs that are still training, stopped, failed or were killed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import yaml

from lm.base.errors import UserError
from lm.config import SCHEMAS, Config, default_values
from lm.run import metrics_csv
from lm.run.changes import flatten
from lm.run.directory import read_config, read_record, run_status

# In samples.md: the heading of a step, or a text in the fence that lm/training/callbacks/samples.py writes. A sample
# that was cut off when the process was killed has no closing fence, and is skipped.
SAMPLE = re.compile(r"^## step (\d+)$|^(`{3,})text\n(.*?)\n\2$", re.MULTILINE | re.DOTALL)


@dataclass
class Run:
    """A run, as its directory describes it."""

    path: Path
    name: str  # the path relative to the common directory of the compared runs
    config: dict[str, Any]  # flat; with defaults for keys that the version of the run did not have
    record: dict[str, Any]  # run.json
    status: str  # finished | running | paused | stopped | pruned | failed | killed
    rows: list[metrics_csv.Row]  # of metrics.csv

    @property
    def error(self) -> str | None:
        """The reason why the run ended. The record of a resumed run still has the previous reason, which is ignored."""
        return None if self.record.get("status") == "running" else self.record.get("error")

    @property
    def tokens_per_step(self) -> int:
        return self.config["data.batch_size"] * self.config["model.block_size"]

    @cached_property
    def clock(self) -> tuple[list[float], list[float]]:
        """Steps, and the training seconds until each: sums of steps x perf/step_ms, for a fork since its fork."""
        sessions = self.record.get("sessions")
        return metrics_csv.training_seconds(self.rows, float(sessions[0]["from_step"] if sessions else 0))

    def seconds(self, steps: Sequence[float]) -> list[float]:
        """Return the training seconds until each step, or nothing if no speed was logged."""
        return np.interp(steps, *self.clock).tolist() if len(self.clock[0]) > 1 else []

    @cached_property
    def samples(self) -> dict[int, list[str]]:
        """The generated samples by step, one text for each prompt."""
        path, here = self.path / "samples.md", list[str]()
        texts: dict[int, list[str]] = {}
        if path.exists():
            with path.open(encoding="utf-8", errors="replace", newline="") as file:  # a text may hold a \r
                for step, _, text in SAMPLE.findall(file.read()):
                    if step:
                        texts[int(step)] = here = []
                    else:
                        here.append(text)
        return {step: found for step, found in texts.items() if found}


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs in and below directories, each once. Raises UserError if there are none or one is corrupted."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such run")
        below = [file.parent for file in path.resolve().rglob("run.json") if (file.parent / "config.yaml").exists()]
        if not below:
            raise UserError(f"{path} contains no run, i.e. no directory with config.yaml and run.json")
        found |= dict.fromkeys(sorted(below, key=natural_key))
    parent = Path(os.path.commonpath([path.parent for path in found]))
    return [read_run(path, str(path.relative_to(parent))) for path in found]


def natural_key(path: Path) -> list[str | int]:
    """Return a sort key that puts job 10 after job 9."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", str(path)))]


def read_run(path: Path, name: str) -> Run:
    """Read the directory of a run. Raises UserError if its files are corrupted."""
    try:
        tree, record = read_config(path / "config.yaml"), read_record(path / "run.json")
        flat = flatten(tree)
        kinds = tuple(tree.get(group, {}).get("kind") for group in SCHEMAS)
        config = flat | default_values_of(kinds) | flat  # in the order of the keys of the run
        if not {"data.batch_size", "model.block_size"} <= config.keys():
            raise TypeError
        if config.get("optimizer.lr") is None:
            config["optimizer.lr"] = record.get("lr")  # the default that the run chose
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise UserError(f"{path / 'config.yaml'} is not the config of a run") from error
    return Run(
        path, name, config, record, run_status(path, record), metrics_csv.read_metrics(path) or rows_from_record(record)
    )


@cache
def default_values_of(kinds: tuple[str | None, ...]) -> dict[str, Any]:
    """Return the flat default values of sections of these kinds, in the order of SCHEMAS.

    A run of an older version behaved as these defaults for the keys that it did not have.
    """
    known: dict[str, type] = {}
    for (group, schemas), kind in zip(SCHEMAS.items(), kinds, strict=True):
        names = {schema.__name__.removesuffix("Config"): schema for schema in schemas}
        if schema := schemas[0] if len(schemas) == 1 else names.get(kind or ""):
            known[group] = schema
    every = SimpleNamespace(**{group: known.get(group, schemas[0]) for group, schemas in SCHEMAS.items()})
    sections = default_values(cast(Config, every))  # it only reads fields, so classes will do
    top = {
        f.name: f.default for f in fields(Config) if f.name in ("seed", "device", "init_optimizer", "init_tokenizer")
    }
    return flatten(top | {group: sections[group] for group in known})


def rows_from_record(record: dict[str, Any]) -> list[dict[str, float]]:
    """Return the validations in run.json, for a run without metrics.csv. Its speed is left out: it covers few steps."""
    final, best = record.get("metrics"), record.get("best")
    if not final or not best:
        return []
    last = {key: value for key, value in final.items() if not key.startswith("perf/")}
    return [last] if best["step"] == final["step"] else [best, last]
