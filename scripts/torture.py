"""Kill training runs with SIGKILL at random moments, resume them, and compare them bit for bit with uninterrupted runs:

python scripts/torture.py --kills 100

The kills are divided among eight small configurations with different optimizers, schedules, precisions, data loaders
and tokenizers; --only selects some of them. The comparison covers all metrics except speeds (metrics.csv and
TensorBoard), samples.md, and everything in last.ckpt and best.ckpt. With --aim, runs are killed only while they write
a checkpoint or a cache entry. The exit status is 1 if anything differs.
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

from benchmarks.torture import CONFIGURATIONS, format_results, torture
from lm.base.errors import UserError


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills in total (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="configurations to run at a time (default: 1)")
    parser.add_argument("--aim", action="store_true", help="kill only while checkpoints or caches are written")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only configurations whose names contain one of these words"
    )
    parser.add_argument("--out", type=cli.path, help="directory to keep the runs in (default: delete them)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    names = [name for name in CONFIGURATIONS if any(word in name for word in args.only)]
    if not names or args.kills < 1 or args.jobs < 1:
        raise UserError(
            f"--kills and --jobs must be at least 1, and --only must match one of: {'; '.join(CONFIGURATIONS)}"
        )
    with tempfile.TemporaryDirectory() as tmp:
        results = torture(
            args.out or Path(tmp), args.kills, args.seed, names, args.jobs, args.aim,
            report=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    wrong = [line for result in results for line in result.problems()]
    if args.json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        print(format_results(results), *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
