"""Measure speed and memory on this machine:

python scripts/bench.py step "model=tiny" "model=tiny model.mlp=gelu"

Timings on shared machines vary, so the alternatives of a benchmark take turns, and medians count. Benchmarks:
"""

import argparse
import json
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import torch

from benchmarks.report import format_rows
from benchmarks.suite import BENCHES, GPU
from lm.base.hardware import ACCELERATORS, device_name, resolve_device_type


@cli.script
def main() -> None:
    args = parse()
    selected = GPU if args.bench == "gpu" else [(args.bench, args.overrides)]
    args.device = "cuda" if args.bench == "gpu" else args.device
    device = device_name(resolve_device_type(args.device, "--device"))
    results = {}
    for name, overrides in selected:
        bench, repeats = BENCHES[name]
        bench_args = argparse.Namespace(**vars(args) | {"overrides": overrides, "repeats": args.repeats or repeats})
        results[name] = bench(bench_args)
        if not args.json:
            print(f"{device}, torch {torch.__version__}, {bench_args.repeats} repeats")
            print(f"{describe(name)}\n\n{format_rows(results[name])}\n")
    if args.json:
        rows = results if args.bench == "gpu" else results[args.bench]
        print(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}))


def parse() -> argparse.Namespace:
    benches = "\n".join(f"  {name:<10} {describe(name)}" for name in BENCHES)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}{benches}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=[*BENCHES, "gpu"], help="a benchmark; gpu: all that matter on a GPU")
    parser.add_argument("overrides", nargs="*", help="configurations for some benchmarks, each in quotes")
    parser.add_argument("--device", default="auto", choices=ACCELERATORS)
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary size of the models (default: 2048)")
    parser.add_argument("--corpus", default="shakespeare", help="corpus of `tokenizer` (default: shakespeare)")
    parser.add_argument("--dir", type=cli.path, default=Path("data"), help="directory of downloads (default: data)")
    parser.add_argument("--repeats", type=int, help="number of measurements of each; the median counts")
    parser.add_argument("--against", type=cli.path, metavar="DIR", help="a checkout of nanoGPT, for `peer` and "
                        "`loss_curve`")  # fmt: skip
    parser.add_argument("--loss", type=float, default=1.88, help="loss to reach in `loss_curve` (default: 1.88)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_intermixed_args()


def describe(name: str) -> str:
    """Return the docstring of a benchmark on one line."""
    return " ".join(str(BENCHES[name][0].__doc__).split())


if __name__ == "__main__":
    main()
