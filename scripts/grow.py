"""Insert a layer into the model of a run without changing its output: python scripts/grow.py outputs/mine --at 2

This creates a new run to train further, with the weights, optimizer state, step and metrics of the old run, which stays
unchanged.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.run.grow import grow


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory; its last checkpoint is used")
    parser.add_argument("--at", type=int, help="insert before this block, counted from 0 (default: in the middle)")
    parser.add_argument("--name", help="name of the new run (default: RUN-grown)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    result = grow(args.run, args.at, args.name)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{result['run']}: {result['n_layer']} layers at step {result['step']}; continue training with")
        print(f"  {result['command']}")


if __name__ == "__main__":
    main()
