"""Kill training runs with SIGKILL at random moments, continue them, and compare them bit for bit with runs that were
left alone: python scripts/torture.py --kills 100

Eight small configurations take turns (--only chooses): other optimizers, schedules, precisions, loaders, tokenizers.
Compared are all curves (metrics.csv, TensorBoard; speeds aside), samples.md, and everything in last.ckpt and best.ckpt.
--aim kills inside the writing of checkpoints and caches. Status 1 if anything differs.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from benchmarks.torture import CONFIGURATIONS, torture
from lm.base.console import format_table


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="configurations at a time (default: 1)")
    parser.add_argument("--aim", action="store_true", help="into the writing of checkpoints and caches only")
    parser.add_argument("--only", nargs="+", default=[""], help="configurations whose names contain one of these words")
    parser.add_argument("--out", type=cli.path, help="keep the runs in this directory")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    names = [name for name in CONFIGURATIONS if any(word in name for word in args.only)]
    if not names or args.kills < 1 or args.jobs < 1:
        sys.exit(f"error: --kills and --jobs must be at least 1, and --only one of: {'; '.join(CONFIGURATIONS)}")
    with tempfile.TemporaryDirectory() as tmp:
        results = torture(
            args.out or Path(tmp), args.kills, args.seed, names, args.jobs, args.aim,
            said=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    wrong = [line for result in results for line in (*result.lost, *result.differences)]
    if args.json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        rows = [("configuration", "kills", "inside a write", "runs", "differences")]
        rows += [
            (r.name, f"{r.kills}", f"{r.aimed}", f"{r.runs}", f"{len(r.lost) + len(r.differences)}") for r in results
        ]
        total = [sum(getattr(r, key) for r in results) for key in ("kills", "aimed", "runs")]
        print(format_table([*rows, ("all", *map(str, total), str(len(wrong)))]), *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
