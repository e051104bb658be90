"""Compare runs side by side: python scripts/compare.py outputs/sweep --sort val/bpb --html report.html

Takes run directories, sweeps, or any directory, and compares all runs in them, also those that are still training,
stopped, failed or were killed. Shows the config keys in which they differ, and their results. `*` marks the best run
by val/loss, or by val/bpb if tokenizers differ. `seconds` are of training alone: steps x perf/step_ms. `val/bpb` is
that of the best val/loss, and `tokens/s` is the median.
"""

import argparse
import csv
import json
import shutil
import sys

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.page import nan_to_none
from lm.compare import page, picture, reading, table


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a run, a sweep, a directory of runs")
    parser.add_argument("--sort", metavar="KEY", help="a column; -KEY: descending (default: val/loss or val/bpb)")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="a config key, or status")
    parser.add_argument("--seeds", action="store_true", help="one row for runs that differ in seed: mean ± deviation")
    parser.add_argument("--csv", type=cli.path, metavar="FILE", help="write the table")
    parser.add_argument("--png", type=cli.path, metavar="FILE", help="draw val/loss (needs matplotlib)")
    parser.add_argument("--html", type=cli.path, metavar="FILE", help="write a page with curves, table and samples")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(join_sort_flag(sys.argv[1:]))
    runs = table.filter_runs(reading.find_runs(args.runs), args.where)
    column = table.ranking_column(runs)
    rows = table.sort_rows(table.merge_seeds(runs) if args.seeds else table.rows_of_runs(runs), args.sort or column)
    if args.csv:
        with args.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if args.png:
        picture.draw_losses(runs, args.png)
    if args.html:
        args.html.write_text(page.render_page(runs), encoding="utf-8")
    best, notes = table.best_row(rows, column), table.caveats(runs)
    if args.json:
        errors = {run.name: run.error for run in runs if run.error}
        found = {"by": column, "best": best and best["run"], "differ": table.differing_keys(runs), "notes": notes}
        print(json.dumps(nan_to_none(found | {"errors": errors, "runs": rows}), allow_nan=False))
        return
    print(table.format_rows(rows, best, shutil.get_terminal_size((160, 24)).columns))
    if best:
        print(f"* the best by {column.removeprefix('best ')}{': the lowest mean' if args.seeds else ''}")
    if args.seeds:
        print("means over the n finished runs of each row, ± the standard deviation of a sample")
    for run in runs:
        if run.status == "failed":
            print(f"{run.name} failed: {(run.error or 'no error was recorded').splitlines()[0]}", file=sys.stderr)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def join_sort_flag(arguments: list[str]) -> list[str]:
    """Turn `--sort -seconds`, which argparse would read as two flags, into `--sort=-seconds`."""
    if "--sort" in arguments[:-1]:
        i = arguments.index("--sort")
        return [*arguments[:i], f"--sort={arguments[i + 1]}", *arguments[i + 2 :]]
    return arguments


if __name__ == "__main__":
    main()
