"""Draw the loss curves of runs from their metrics.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.base.errors import UserError
from lm.base.plotting import pyplot, save_figure
from lm.run import metrics_csv
from lm.run.directory import read_record


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw training and validation loss over steps, one panel per run. Raises UserError if a run has no metrics."""
    figure, panels = pyplot().subplots(
        1, len(runs), figsize=(max(8, 5 * len(runs)), 4.5), layout="constrained", squeeze=False
    )
    for run, axes in zip(runs, panels[0], strict=True):
        plot_panel(axes, run)
    save_figure(figure, out)


def plot_panel(axes: Any, run: Path) -> None:
    """Draw the losses of one run and, if known, the lowest possible loss. Raises UserError if it has no metrics."""
    if not (rows := metrics_csv.read_metrics(run)):
        raise UserError(f"{run} has no metrics.csv; give a run directory, e.g. outputs/mine")
    styles: dict[str, dict[str, Any]] = {"train/loss": {"alpha": 0.5, "linewidth": 1}, "val/loss": {"marker": "o"}}
    for key, style in styles.items():
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"{key} (final {points[-1][1]:.3f})", **style)
    if floor := read_record(run / "run.json").get("floor"):
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"lowest possible loss ({floor:.3f})")
    axes.set(xlabel="optimizer steps", ylabel="nats per token", title=run.resolve().name)
    axes.grid(alpha=0.3)
    axes.legend()
