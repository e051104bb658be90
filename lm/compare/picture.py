"""A picture of the validation curves of several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lm.base.errors import UserError
from lm.base.plotting import pyplot, save_figure
from lm.compare.reading import Run
from lm.compare.table import LOSS, MAX_WIDTH, ranking_column, rows_of_runs, shorten, sort_rows

COLORED = 10  # curves with a color and a label of their own


def draw_losses(runs: Sequence[Run], out: Path) -> None:
    """Draw val/loss over the steps: the best runs in color, the others in gray below them.

    Raises UserError if no run has been validated.
    """
    plt = pyplot()
    curves = {
        run.name: [(row["step"], row["val/loss"]) for row in run.rows if math.isfinite(row.get("val/loss", math.nan))]
        for run in runs
    }
    ranked = [row for row in sort_rows(rows_of_runs(runs), ranking_column(runs)) if curves[row["run"]]]
    if not ranked:
        raise UserError("no run has been validated yet: there is no val/loss to draw")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for i, row in reversed(list(enumerate(ranked))):
        steps, losses = zip(*curves[row["run"]], strict=True)
        if i < COLORED:
            name = shorten(row["run"], MAX_WIDTH).replace("$", r"\$")
            axes.plot(steps, losses, label=f"{name} (best {row[LOSS]:.3f})", color=f"C{i}")
        else:
            label = f"{len(ranked) - COLORED} others" if i == COLORED else None
            axes.plot(steps, losses, color="0.75", linewidth=0.8, label=label)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1])
    axes.set(xlabel="optimizer steps", ylabel="val/loss, nats per token")
    axes.grid(alpha=0.3)
    save_figure(figure, out)
    plt.close(figure)
