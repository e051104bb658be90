"""Which choice is better at equal time? One change at a time, over seeds:

python scripts/ablate.py outputs/ablation --base "model=tiny" --steps 800 model.norm=rmsnorm model.mlp=gelu

Times a step of every variant, alternately, and gives each so many steps as take the time of the base's; then trains
them all. Stopped in the middle, the same command goes on. The table has the loss at that time, its mean and deviation
over seeds, and how many tokens it took to reach --target bits per byte.
"""

import argparse
import json
import os
import re
import statistics
from concurrent.futures import ThreadPoolExecutor

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from benchmarks.runs import trained
from benchmarks.speed import bare_step
from benchmarks.timing import alternate
from lm.base.console import format_table
from lm.base.hardware import device_type
from lm.config import compose_config


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=cli.path, help="where the runs go")
    parser.add_argument("variants", nargs="+", help="overrides on top of the base; several in quotes")
    parser.add_argument("--base", default="model=tiny", help="overrides of all runs, in quotes (default: model=tiny)")
    parser.add_argument("--steps", type=int, default=1000, help="of the base (default: 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (default: 3)")
    parser.add_argument("--target", type=float, help="val/bpb to count tokens to (default: the worst final mean)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    parser.add_argument("--vocab", type=int, default=2048, help="vocabulary while timing (default: 2048)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_intermixed_args()
    rows = ablate(args)
    print(
        json.dumps(rows)
        if args.json
        else format_table([list(rows[0]), *(list(map(written, row.values())) for row in rows)])
    )


def ablate(args: argparse.Namespace) -> list[dict]:
    variants = {"base": args.base, **{v: f"{args.base} {v}" for v in args.variants}}
    step_ms = timed(args, variants)
    runs = []
    for name, overrides in variants.items():
        steps = round(args.steps * step_ms["base"] / step_ms[name])
        for seed in range(1, args.seeds + 1):
            runs.append((name, overrides.split(), seed, steps))
    with ThreadPoolExecutor(args.jobs) as pool:
        curves = list(pool.map(lambda run: curve_of(args, *run), runs))
    by_name: dict[str, list[dict[int, float]]] = {}
    for (name, *_), curve in zip(runs, curves, strict=True):
        by_name.setdefault(name, []).append(curve)
    final = {name: [curve[max(curve)] for curve in found] for name, found in by_name.items()}
    target = args.target or max(map(statistics.fmean, final.values()))
    rows = []
    for name, overrides in variants.items():
        config = compose_config(overrides.split())
        per_step = config.data.batch_size * config.model.block_size
        reached = [steps_to(curve, target) for curve in by_name[name]]
        tokens = None if None in reached else statistics.fmean(r for r in reached if r is not None) * per_step / 1e6
        rows.append({
            "variant": name, "ms": step_ms[name], "steps": max(by_name[name][0]),
            "val/bpb": statistics.fmean(final[name]),
            "sd": statistics.stdev(final[name]) if args.seeds > 1 else 0.0,
            "against base": statistics.fmean(final[name]) - statistics.fmean(final["base"]),
            f"Mtokens to {target:.3f}": tokens,
        })  # fmt: skip
    return rows


def timed(args: argparse.Namespace, variants: dict[str, str]) -> dict[str, float]:
    """Median milliseconds of a step of each, from the file where an earlier start wrote them."""
    path = args.directory / "step_ms.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if missing := [name for name in variants if name not in known]:
        device = device_type("auto", "--device")
        tasks = {}
        for name in ["base", *missing]:
            config = compose_config(variants[name].split())
            tasks[name], _ = bare_step(config, args.vocab, device)
        medians = {name: statistics.median(ms) for name, ms in alternate(tasks, 30, device).items()}
        # variants that came later were timed beside the base, at another time: only the ratio counts
        scale = known.get("base", medians["base"]) / medians["base"]
        known |= {name: scale * ms for name, ms in medians.items() if name in missing}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return known


def curve_of(args: argparse.Namespace, variant: str, overrides: list[str], seed: int, steps: int) -> dict[int, float]:
    """val/bpb by step of one run, made or found."""
    name = f"{re.sub(r'[^A-Za-z0-9_.]+', '-', variant)}-{seed}"
    overrides = [*overrides, f"name={name}", f"seed={seed}", f"trainer.max_steps={steps}", "logger=csv"]
    overrides += [f"trainer.val_every={max(1, steps // 20)}", "trainer.save_every=100000"]
    overrides += ["callbacks.sample.enabled=false"]
    rows = trained(args.directory / name, overrides, threads=max(1, (os.cpu_count() or 1) // args.jobs))
    return {int(row["step"]): row["val/bpb"] for row in rows if "val/bpb" in row}


def steps_to(curve: dict[int, float], target: float) -> float | None:
    """Where a curve first comes down to the target, between two validations; None if it never does."""
    before: tuple[int, float] | None = None
    for step, value in curve.items():
        if value <= target:
            if before is None:
                return step
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - value)
        before = (step, value)
    return None


def written(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)


if __name__ == "__main__":
    main()
