"""Runs as one HTML file that opens from disk: its figures as JSON, page.js to draw them, page.css."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lm.compare.reading import Run
from lm.compare.table import (
    SPREAD,
    best_row,
    caveats,
    differing_keys,
    ranking_column,
    rows_of_runs,
    seeds,
    shortened,
    shorter,
    sort_rows,
)

# Metrics by the rows of metrics.csv that hold them: of training, of validation.
METRICS = {
    "train": ("train/loss", "lr", "train/grad_norm", "perf/tokens_per_s"),
    "val": ("val/loss", "val/bpb"),
}
POINTS, LEAST, ALL = 400, 100, 32_000  # of a curve at most; where many runs share ALL, at least LEAST
SAMPLED, TEXT = 12, 1_500_000  # steps whose samples are kept; characters of them all
SHORT = 6  # significant digits of a point; figures in the table have all of theirs

SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<svg id="ink" width="0" height="0" aria-hidden="true"></svg>
<div id="page"><h1>{title}</h1>
<noscript>The curves are drawn by JavaScript, which is switched off here.</noscript></div>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body>
</html>
"""


def page(runs: Sequence[Run]) -> str:
    """Raises nothing of its own; a run without curve or samples is in the table alone."""
    here = Path(__file__)
    title = f"{len(runs)} run{'s' * (len(runs) > 1)}: {parent(runs)}"
    data = json.dumps(without_nan(content(runs, title)), separators=(",", ":"), allow_nan=False)
    for mark in "<>&":  # so that no text can end the script that it stands in
        data = data.replace(mark, f"\\u{ord(mark):04x}")
    css, js = (here.with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return SHELL.format(title=escape(title), css=css, js=js, data=data)


def parent(runs: Sequence[Run]) -> str:
    """The name of what all runs lie in, or of the only one."""
    path = runs[0].path
    return path.name if len(runs) == 1 else path.parents[runs[0].name.count("/")].name


def content(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """What page.js draws: runs, the best first, each with its row of the table, curves and samples."""
    by, keys = ranking_column(runs), differing_keys(runs)
    rows = sort_rows(rows_of_runs(runs), by)
    first = best_row(rows, by)
    named = {run.name: run for run in runs}
    groups = [group for group in seeds(runs) if len(group) > 1]
    group_of = {run.name: i for i, group in enumerate(groups) for run in group}
    strides = [stride(group, len(runs)) for group in groups]
    steps = sampled(runs)
    most = TEXT // max(1, sum(len(texts) for run in runs for step, texts in run.samples.items() if step in steps))
    entries, thinnest = [], 1
    for row in rows:
        run = named[row["run"]]
        group = group_of.get(run.name)
        every = stride([run], len(runs)) if group is None else strides[group]
        thinnest = max(thinnest, *every.values())
        entries.append({
            "row": row, "group": group, "error": run.error, "tokens_per_step": run.tokens_per_step,
            **{kind: curve(run, kind, every[kind]) for kind in METRICS},
            "samples": {s: [shortened(text, most) for text in t] for s, t in run.samples.items() if s in steps},
        })  # fmt: skip
    columns = list(rows[0])
    return {
        "title": title, "by": by, "best": first and first["run"], "keys": keys, "columns": columns,
        "short": shorter(keys, columns), "decimals": SPREAD, "metrics": METRICS, "notes": caveats(runs),
        "thinned": thinnest,
        "runs": entries,
    }  # fmt: skip


def points(run: Run, kind: str) -> list[dict[str, float]]:
    return [row for row in run.rows if METRICS[kind][0] in row]


def stride(group: Sequence[Run], total: int) -> dict[str, int]:
    """Every how many-th point of the group's curves is kept: the same of all, so that they meet at the same steps."""
    most = min(POINTS, max(LEAST, ALL // total)) - 2  # beside the last, and the least of val/loss
    return {kind: max(1, *(math.ceil(len(points(run, kind)) / most) for run in group)) for kind in METRICS}


def curve(run: Run, kind: str, every: int) -> dict[str, list[float | None]]:
    """Columns of a run's rows of a kind, thinned to real points: each `every`-th, the last, and the lowest loss."""
    rows = points(run, kind)
    names = METRICS[kind]
    known = [i for i, row in enumerate(rows) if kind == "val" and math.isfinite(row[names[0]])]
    lowest = min(known, key=lambda i: rows[i][names[0]], default=0)
    rows = [row for i, row in enumerate(rows) if i % every == 0 or i in (lowest, len(rows) - 1)]
    steps = [row["step"] for row in rows]
    found: dict[str, list[float | None]] = {
        "step": list(map(int, steps)),
        "seconds": list(map(digits, run.seconds(steps))),
    }
    return found | {name: [digits(row[name]) if name in row else None for row in rows] for name in names}


def digits(value: float) -> float:
    return float(f"{value:.{SHORT}g}")


def sampled(runs: Sequence[Run]) -> set[int]:
    """Steps whose samples are kept: some, spread over all there are, and each run's last."""
    steps = sorted({step for run in runs for step in run.samples})
    spread = {steps[round(i * (len(steps) - 1) / (SAMPLED - 1))] for i in range(SAMPLED)} if steps else set()
    return spread | {max(run.samples) for run in runs if run.samples}


def without_nan(value: Any) -> Any:
    """With null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
