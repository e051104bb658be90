"""One HTML file that compares runs and works offline: their data, and page.js to draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.base.page import html_page
from lm.compare.reading import Run
from lm.compare.table import (
    SPREAD,
    best_row,
    caveats,
    differing_keys,
    group_by_seed,
    ranking_column,
    rows_of_runs,
    short_keys,
    shorten,
    sort_rows,
)

# Metrics by the kind of row of metrics.csv that holds them: training or validation.
METRICS = {
    "train": ("train/loss", "lr", "train/grad_norm", "perf/tokens_per_s"),
    "val": ("val/loss", "val/bpb"),
}
# A curve has at most POINTS points. Many runs share ALL points, but each keeps at least LEAST.
POINTS, LEAST, ALL = 400, 100, 32_000
SAMPLED, TEXT = 12, 1_500_000  # number of steps whose samples are shown; maximum characters of all samples
SHORT = 6  # significant digits of a point; the table has full precision


def render_page(runs: Sequence[Run]) -> str:
    """Return the page. A run without a curve or samples is only in the table."""
    here = Path(__file__)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    title = f"{count}: {common_name(runs)}"
    css, js = (here.with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return html_page(title, page_data(runs, title), css, js)


def common_name(runs: Sequence[Run]) -> str:
    """Return the name of the directory that contains all runs, or of the only run."""
    path = runs[0].path
    return path.name if len(runs) == 1 else path.parents[runs[0].name.count("/")].name


def page_data(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """Return the data for page.js: the runs, best first, each with its table row, curves and samples."""
    by, keys = ranking_column(runs), differing_keys(runs)
    rows = sort_rows(rows_of_runs(runs), by)
    first = best_row(rows, by)
    runs_by_name = {run.name: run for run in runs}
    groups = [group for group in group_by_seed(runs) if len(group) > 1]
    group_of = {run.name: i for i, group in enumerate(groups) for run in group}
    strides = [thinning_stride(group, len(runs)) for group in groups]
    steps = sampled_steps(runs)
    most = TEXT // max(1, sum(len(texts) for run in runs for step, texts in run.samples.items() if step in steps))
    entries, thinnest = [], 1
    for row in rows:
        run = runs_by_name[row["run"]]
        group = group_of.get(run.name)
        every = thinning_stride([run], len(runs)) if group is None else strides[group]
        thinnest = max(thinnest, *every.values())
        entries.append({
            "row": row, "group": group, "error": run.error, "tokens_per_step": run.tokens_per_step,
            **{kind: thinned_curve(run, kind, every[kind]) for kind in METRICS},
            "samples": {s: [shorten(text, most) for text in t] for s, t in run.samples.items() if s in steps},
        })  # fmt: skip
    columns = list(rows[0])
    return {
        "title": title, "by": by, "best": first and first["run"], "keys": keys, "columns": columns,
        "short": short_keys(keys, columns), "decimals": SPREAD, "metrics": METRICS, "notes": caveats(runs),
        "thinned": thinnest,
        "runs": entries,
    }  # fmt: skip


def metric_rows(run: Run, kind: str) -> list[dict[str, float]]:
    """Return the rows of metrics.csv of a kind."""
    return [row for row in run.rows if METRICS[kind][0] in row]


def thinning_stride(group: Sequence[Run], total: int) -> dict[str, int]:
    """Return by kind the stride of the points to keep: the same for the whole group, so that its steps agree."""
    most = min(POINTS, max(LEAST, ALL // total)) - 2  # the last point and the lowest val/loss are added
    return {kind: max(1, *(math.ceil(len(metric_rows(run, kind)) / most) for run in group)) for kind in METRICS}


def thinned_curve(run: Run, kind: str, every: int) -> dict[str, list[float | None]]:
    """Return the columns of a curve with every `every`-th point, the last one, and the lowest loss."""
    rows = metric_rows(run, kind)
    names = METRICS[kind]
    known = [i for i, row in enumerate(rows) if kind == "val" and math.isfinite(row[names[0]])]
    lowest = min(known, key=lambda i: rows[i][names[0]], default=0)
    rows = [row for i, row in enumerate(rows) if i % every == 0 or i in (lowest, len(rows) - 1)]
    steps = [row["step"] for row in rows]
    columns: dict[str, list[float | None]] = {
        "step": list(map(int, steps)),
        "seconds": list(map(round_digits, run.seconds(steps))),
    }
    return columns | {name: [round_digits(row[name]) if name in row else None for row in rows] for name in names}


def round_digits(value: float) -> float:
    return float(f"{value:.{SHORT}g}")


def sampled_steps(runs: Sequence[Run]) -> set[int]:
    """Return the steps whose samples are shown: some, evenly spread over all steps, and the last of each run."""
    steps = sorted({step for run in runs for step in run.samples})
    spread = {steps[round(i * (len(steps) - 1) / (SAMPLED - 1))] for i in range(SAMPLED)} if steps else set()
    return spread | {max(run.samples) for run in runs if run.samples}
