"""Draw loss curves from metrics.csv: python scripts/plot.py outputs/mine --out loss.png

Several runs are drawn side by side. If the lowest possible loss of the corpus is known, a dashed line shows it.
"""

import argparse

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.run.plot import plot_runs


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("--out", type=cli.path, help="output file (default: loss.png in the first run directory)")
    args = parser.parse_args()
    plot_runs(args.runs, args.out or args.runs[0] / "loss.png")


if __name__ == "__main__":
    main()
