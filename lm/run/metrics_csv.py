"""metrics.csv as figures, also of a run that is still being trained, or was killed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from lm.base.errors import UserError

Row = dict[str, float]  # "step", and what was logged there


def read_metrics(directory: Path) -> list[Row]:
    """The rows of a run's metrics.csv; a last one that is being written, or was cut by a kill, is left out.

    None where there is no such file. Raises UserError when it is damaged.
    """
    path = directory / "metrics.csv"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        try:
            rows.append({key: float(value) for key, value in row.items() if value})
            rows[-1]["step"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: its row {len(rows) + 1} is not figures by step") from error
    return rows


def training_seconds(rows: Sequence[Row], begin: float = 0.0) -> tuple[list[float], list[float]]:
    """Steps, and the seconds of training until each since step `begin`: sums of steps x perf/step_ms."""
    steps, seconds = [begin], [0.0]
    for row in rows:
        if "perf/step_ms" in row:
            seconds.append(seconds[-1] + (row["step"] - steps[-1]) * row["perf/step_ms"] / 1e3)
            steps.append(row["step"])
    return steps, seconds
