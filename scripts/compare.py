"""Runs side by side: python scripts/compare.py outputs/sweep --sort val/bpb --html report.html

Takes run directories, sweeps, or any directory: all runs below it, those included that still train, stopped, failed or
were killed. Shows the config keys in which they differ and what came of each; `*` marks the best: by val/loss, or by
val/bpb where tokenizers differ. Seconds are of training alone: steps x perf/step_ms. val/bpb is that of the best
val/loss, tokens/s the median.
"""

import argparse
import csv
import json
import math
import shutil
import sys
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.errors import UserError
from lm.base.plotting import pyplot
from lm.compare import page, reading, table

DRAWN = 10  # curves with a colour of their own in --png


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a run, a sweep, a directory of runs")
    parser.add_argument("--sort", metavar="KEY", help="a column; -KEY: downwards (default: what the best is marked by)")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="a config key, or status")
    parser.add_argument("--seeds", action="store_true", help="one row for runs that differ in seed: mean ± deviation")
    parser.add_argument("--csv", type=cli.path, metavar="FILE", help="write the table")
    parser.add_argument("--png", type=cli.path, metavar="FILE", help="draw val/loss (needs matplotlib)")
    parser.add_argument("--html", type=cli.path, metavar="FILE", help="a page to look into: curves, table, samples")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(joined(sys.argv[1:]))
    runs = table.filter_runs(reading.find_runs(args.runs), args.where)
    column = table.ranking_column(runs)
    rows = table.sort_rows(table.merge_seeds(runs) if args.seeds else table.rows_of_runs(runs), args.sort or column)
    if args.csv:
        with args.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if args.png:
        draw(runs, args.png)
    if args.html:
        args.html.write_text(page.page(runs), encoding="utf-8")
    best, notes = table.best_row(rows, column), table.caveats(runs)
    if args.json:
        errors = {run.name: run.error for run in runs if run.error}
        found = {"by": column, "best": best and best["run"], "differ": table.differing_keys(runs), "notes": notes}
        print(json.dumps(page.without_nan(found | {"errors": errors, "runs": rows}), allow_nan=False))
        return
    print(table.format_rows(rows, best, shutil.get_terminal_size((160, 24)).columns))
    if best:
        print(f"* the best by {column.removeprefix('best ')}{': the least mean' if args.seeds else ''}")
    if args.seeds:
        print("means over the n finished runs of each row, ± the standard deviation of a sample")
    for run in runs:
        if run.status == "failed":
            print(f"{run.name} failed: {(run.error or 'no word of why').splitlines()[0]}", file=sys.stderr)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def joined(typed: list[str]) -> list[str]:
    """`--sort -seconds`, which argparse would take for two flags, as --sort=-seconds."""
    if "--sort" in typed[:-1]:
        i = typed.index("--sort")
        return [*typed[:i], f"--sort={typed[i + 1]}", *typed[i + 2 :]]
    return typed


def draw(runs: list[reading.Run], out: Path) -> None:
    """val/loss over steps: the best in colours, the others in grey behind them. Raises UserError without any."""
    plt = pyplot()
    curves = {
        run.name: [(row["step"], row["val/loss"]) for row in run.rows if math.isfinite(row.get("val/loss", math.nan))]
        for run in runs
    }
    ranked = [
        row for row in table.sort_rows(table.rows_of_runs(runs), table.ranking_column(runs)) if curves[row["run"]]
    ]
    if not ranked:
        raise UserError("no run has been validated yet: there is no val/loss to draw")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for i, row in reversed(list(enumerate(ranked))):
        others = {"color": "0.75", "linewidth": 0.8}
        if i == DRAWN:
            others["label"] = f"{len(ranked) - DRAWN} others"
        name = table.shortened(row["run"], table.WIDEST).replace("$", r"\$")
        label = {"label": f"{name} (best {row[table.LOSS]:.3f})", "color": f"C{i}"}
        axes.plot(*zip(*curves[row["run"]], strict=True), **(label if i < DRAWN else others))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1])
    axes.set(xlabel="optimizer steps", ylabel="val/loss, nats per token")
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
