"""Draw the figures of a report into one picture, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.analysis.figures import Bars, Figure, Heads, Heatmap, Lines, Report
from lm.base.errors import UserError
from lm.base.plotting import pyplot, save_figure

MOST_LABELS = 60  # tokens that fit beside an axis
COLUMNS = 4  # heads beside each other


def draw_report(report: Report, out: Path) -> None:
    """Draw all figures below each other. Raises UserError if there is none, and without matplotlib."""
    plt = pyplot()
    panels = [panel for figure in report.figures for panel in split_heads(figure)]
    if not panels:
        raise UserError("this analysis has no figure to draw")
    columns = min(COLUMNS, len(panels)) if isinstance(panels[0], Heatmap) and len(panels) > 3 else 1
    rows = -(-len(panels) // columns)
    width, height = (3.2 * columns, 3.2 * rows) if columns > 1 else (9, sum(map(panel_height, panels)))
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    figure.suptitle(plain(report.title))
    for axis, panel in zip(axes.flat, panels, strict=False):
        draw_panel(axis, panel, small=columns > 1)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    save_figure(figure, out)
    plt.close(figure)


def split_heads(figure: Figure) -> list[Heatmap | Bars | Lines]:
    """Return a figure as panels: the patterns of several heads are one heat map each."""
    if not isinstance(figure, Heads):
        return [figure]
    return [
        Heatmap(name, figure.tokens, figure.tokens, values, "attention") for name, values in figure.patterns.items()
    ]


def panel_height(panel: Heatmap | Bars | Lines) -> float:
    """Return the height of a panel in inches."""
    if isinstance(panel, Lines):
        return 4
    return 1.2 + 0.25 * min(MOST_LABELS, len(panel.rows if isinstance(panel, Heatmap) else panel.names))


def draw_panel(axis: Any, panel: Heatmap | Bars | Lines, small: bool) -> None:
    axis.set_title(plain(panel.title), fontsize=10)
    if isinstance(panel, Heatmap):
        most = max((abs(v) for row in panel.values for v in row if v == v), default=1.0) or 1.0
        scale: dict[str, Any] = {"cmap": "RdBu", "vmin": -most} if panel.signed else {"cmap": "Blues", "vmin": 0}
        image = axis.imshow(panel.values, aspect="auto", vmax=most, **scale)
        for labels, ticks in ((panel.columns, axis.set_xticks), (panel.rows, axis.set_yticks)):
            shown = [] if len(labels) > (24 if small else MOST_LABELS) else [plain(label) for label in labels]
            turned = {"rotation": 90} if ticks == axis.set_xticks else {}
            ticks(range(len(shown)), shown, fontsize=6 if small else 8, **turned)
        if not small:
            axis.figure.colorbar(image, label=panel.unit)
        for i, row in enumerate(panel.texts or []):
            for j, text in enumerate(row):
                dark = abs(panel.values[i][j]) > 0.6 * most
                axis.text(j, i, plain(text), ha="center", va="center", fontsize=6, color="white" if dark else "black")
    elif isinstance(panel, Bars):
        places = range(len(panel.names))
        axis.barh(places, panel.values, color=["C0" if value >= 0 else "C3" for value in panel.values])
        axis.set_yticks(places, [plain(name) for name in panel.names], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel(panel.unit)
    else:
        for name, values in panel.curves.items():
            axis.plot(panel.x, values, label=plain(name))
        axis.set(xlabel=panel.x_unit, ylabel=panel.unit)
        axis.legend(fontsize=8)


def plain(text: str) -> str:
    """Return a text without mathematics: matplotlib would set what stands between two $."""
    return text.replace("$", r"\$")
