"""Compare variants of a configuration at equal training time, over several seeds:

python scripts/ablate.py outputs/ablation --base "model=tiny" --steps 800 model.norm=rmsnorm model.mlp=gelu

Each variant is the base with other overrides. The script times a step of every variant, gives each variant as many
steps as fit in the training time of the base, and trains all of them. The same command resumes an interrupted ablation.
The table shows the final loss (mean and standard deviation over seeds), and the number of tokens needed to reach
--target bits per byte.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from benchmarks.ablation import Ablation, format_rows


@cli.script
def main() -> None:
    args = parse()
    rows = Ablation(
        args.directory, args.base, args.variants, args.steps, args.seeds, args.target, args.jobs, args.vocab
    ).run()
    print(json.dumps(rows) if args.json else format_rows(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=cli.path, help="directory for the runs")
    parser.add_argument("variants", nargs="+", help="overrides on top of the base; quote a variant with several")
    parser.add_argument("--base", default="model=tiny", help="overrides of all runs, in quotes (default: model=tiny)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the base (default: 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (default: 3)")
    parser.add_argument("--target", type=float, help="val/bpb to count tokens to (default: the worst final mean)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores (default: 1)")
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary size while timing (default: 2048)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
