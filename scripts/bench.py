"""Measure on this machine: python scripts/bench.py step "model=tiny" "model=tiny model.mlp=gelu"

Timings on shared machines swing, so what is compared runs alternately, and the median counts. Sub-benches:
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from lm.bench import BENCHES
from lm.console import table
from lm.hardware import ACCELERATORS, device_name, device_type


def main() -> None:
    benches = "\n".join(f"  {name:<10} {' '.join(str(bench.__doc__).split())}" for name, (bench, _) in BENCHES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}{benches}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("overrides", nargs="*", help="for `step` and `memory`: configurations, each in quotes")
    parser.add_argument("--device", default="auto", choices=ACCELERATORS)
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary of `step` (default: 2048)")
    parser.add_argument("--corpus", default="shakespeare", help="of the tokenizer bench")
    parser.add_argument("--dir", default="data", help="where downloads lie (default: data)")
    parser.add_argument("--repeats", type=int, help="runs of each, of which the median counts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    bench, repeats = BENCHES[args.bench]
    args.repeats = args.repeats or repeats
    try:
        rows = bench(args)
        device = device_name(device_type(args.device, "--device"))
    except ValueError as error:
        sys.exit(f"error: {error}")
    if args.json:
        print(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}))
        return
    print(f"{device}, torch {torch.__version__}, {args.repeats} repeats\n{' '.join(str(bench.__doc__).split())}\n")
    print(table([list(rows[0]), *([written(key, value) for key, value in row.items()] for row in rows)]))


def written(key: str, value: object) -> str:
    if value is None:
        return "-"
    if key in ("loses", "of matmul") or key.endswith("error"):
        return f"{value:.0%}" if key in ("loses", "of matmul") else f"{value:+.1%}"
    if isinstance(value, float):
        return f"{value:.3f}" if key.endswith(" s") else f"{value:.2f}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
