"""Print the size and cost of every model preset.

    python scripts/models.py [feste lab/nano model.n_layer=3 ...] [--vocab 2048] [--json]

Each preset is shown with the vocabulary and context of the project that it comes from. The presets of this project are
shown with 2048 tokens. Those of the LLM Learning Lab are also shown with tied embeddings, because its documents do not
say which they mean. The memory is that of weights, gradients and optimizer state in fp32 with AdamW, without
activations.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.console import print_rows
from lm.experiment.model_table import model_rows


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "presets",
        nargs="*",
        metavar="PRESET or model.key=value",
        help="presets or families (default: all), and keys to change in each of them",
    )
    parser.add_argument("--vocab", type=int, help="vocabulary size to use for all models")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = list(model_rows(args.presets, args.vocab))
    if args.json:
        print(json.dumps(rows))
    else:
        print_rows(rows)


if __name__ == "__main__":
    main()
