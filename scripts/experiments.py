"""List the named experiments, or describe some of them: python scripts/experiments.py feste

Without names it prints one line per experiment. With names, or families such as `feste`, it prints their questions,
the reported results and the measured ones. `python train.py experiment=NAME` runs an experiment. The times are
estimates: for two CPU cores with fast bf16, 300 GFLOP/s and at least 8 ms per step; for an H100, 40 % of its peak and
at least 2 ms per step. Measured times are in the file of the experiment.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.experiment import catalog


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments, or families of experiments")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    experiments = {name: catalog.experiment_facts(name) for name in catalog.select(args.names)}
    if args.json:
        print(json.dumps(experiments))
    elif args.names:
        print("\n\n".join(catalog.format_experiment(name, facts) for name, facts in experiments.items()))
    else:
        print(catalog.format_catalog(experiments))


if __name__ == "__main__":
    main()
