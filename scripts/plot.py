"""Draw loss curves from metrics.csv: python scripts/plot.py outputs/mine --out loss.png

Several runs stand side by side. Where the language's law is known, a line shows the least loss that a model can have.
"""

import argparse
from pathlib import Path
from typing import Any

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.errors import UserError
from lm.base.plotting import pyplot
from lm.run import metrics_csv
from lm.run.directory import read_record


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("--out", type=cli.path, default=None, help="where to (default: loss.png in the first run)")
    args = parser.parse_args()
    draw(args.runs, args.out or args.runs[0] / "loss.png")


def draw(runs: list[Path], out: Path) -> None:
    """Train and validation loss over steps. Raises UserError when there is nothing to draw."""
    figure, panels = pyplot().subplots(
        1, len(runs), figsize=(max(8, 5 * len(runs)), 4.5), layout="constrained", squeeze=False
    )
    for run, axes in zip(runs, panels[0], strict=True):
        panel(axes, run)
    figure.savefig(out, dpi=120)


def panel(axes: Any, run: Path) -> None:
    if not (rows := metrics_csv.read_metrics(run)):
        raise UserError(f"{run} holds no metrics.csv; give a run directory, e.g. outputs/mine")
    for key, style in (("train/loss", {"alpha": 0.5, "linewidth": 1}), ("val/loss", {"marker": "o"})):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"{key} (ends at {points[-1][1]:.3f})", **style)
    if floor := read_record(run / "run.json").get("floor"):
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"no model can do better ({floor:.3f})")
    axes.set(xlabel="optimizer steps", ylabel="nats per token", title=run.resolve().name)
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    main()
