"""Draw a run's loss curves from its metrics.csv: python scripts/plot.py outputs/mine --out loss.png"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from lm import curve
from lm.pictures import pyplot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--out", type=Path, default=None, help="the picture to write (default: RUN/loss.png)")
    args = parser.parse_args()
    try:
        draw(args.run, args.out or args.run / "loss.png")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def draw(run: Path, out: Path) -> None:
    """Train and validation loss over steps. Raises ValueError when there is nothing to draw."""
    plt = pyplot()
    if not (rows := curve.read(run)):
        raise ValueError(f"{run} holds no metrics.csv; give a run directory, e.g. outputs/mine")
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for key, style in (("train/loss", {"alpha": 0.5, "linewidth": 1}), ("val/loss", {"marker": "o"})):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"{key} (ends at {points[-1][1]:.3f})", **style)
    axes.set(xlabel="optimizer steps", ylabel="nats per token", title=run.resolve().name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
