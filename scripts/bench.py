"""Measure on this machine: python scripts/bench.py step "model=tiny" "model=tiny model.mlp=gelu"

Timings on shared machines swing, so what is compared runs alternately, and the median counts. Sub-benches:
"""

import argparse
import json
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import torch

from benchmarks.suite import BENCHES, GPU
from lm.base.console import format_table
from lm.base.hardware import ACCELERATORS, device_name, device_type


@cli.script
def main() -> None:
    benches = "\n".join(f"  {name:<10} {' '.join(str(bench.__doc__).split())}" for name, (bench, _) in BENCHES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}{benches}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=[*BENCHES, "gpu"], help="gpu: all that matters on a GPU, in one go")
    parser.add_argument("overrides", nargs="*", help="configurations, each in quotes, of some benches")
    parser.add_argument("--device", default="auto", choices=ACCELERATORS)
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary of `step` (default: 2048)")
    parser.add_argument("--corpus", default="shakespeare", help="of the tokenizer bench")
    parser.add_argument("--dir", type=cli.path, default=Path("data"), help="where downloads lie (default: data)")
    parser.add_argument("--repeats", type=int, help="runs of each, of which the median counts")
    parser.add_argument("--against", type=cli.path, metavar="DIR", help="nanoGPT, for `peer`, `loss_curve`")
    parser.add_argument("--loss", type=float, default=1.88, help="that `loss_curve` waits for (default: 1.88)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_intermixed_args()
    asked = GPU if args.bench == "gpu" else [(args.bench, args.overrides)]
    found = {}
    device = device_name(device_type("cuda" if args.bench == "gpu" else args.device, "--device"))
    args.device = "cuda" if args.bench == "gpu" else args.device
    for name, overrides in asked:
        bench, usual = BENCHES[name]
        given = argparse.Namespace(**vars(args) | {"overrides": overrides, "repeats": args.repeats or usual})
        found[name] = bench(given)
        if not args.json:
            print(f"{device}, torch {torch.__version__}, {given.repeats} repeats")
            print(f"{' '.join(str(bench.__doc__).split())}\n\n{shown(found[name])}\n")
    if args.json:
        rows = found if args.bench == "gpu" else found[args.bench]
        print(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}))


def shown(rows: list[dict]) -> str:
    return format_table([list(rows[0]), *([written(key, value) for key, value in row.items()] for row in rows)])


def written(key: str, value: object) -> str:
    if value is None:
        return "-"
    if key in ("loses", "of matmul", "mfu"):
        return f"{value:.0%}"
    if key == "costs" or key.endswith("error"):
        return f"{value:+.1%}"
    if isinstance(value, float):
        return f"{value:.3f}" if key.endswith(" s") else f"{value:.2f}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
