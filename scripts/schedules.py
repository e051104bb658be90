"""Draw learning-rate schedules: python scripts/schedules.py schedule=cosine,wsd,linear trainer.max_steps=2000

Takes what train.py takes, and shows the share of the peak rate that each step gets. Several values of schedule= or of
schedule.<key>= are compared, each in every combination; a key goes to those of the schedules that have it.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.errors import UserError
from lm.base.plotting import pyplot
from lm.config import CONF, Config, compose_config, load_option

MARKS = "*o+x#@%&"
WIDTH, HEIGHT = 72, 17  # of the chart, in characters: every fourth line is a quarter


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: schedule=wsd schedule.decay_fraction=0.5 ...")
    parser.add_argument("--out", type=cli.path, metavar="FILE.png", help="also draw a picture (needs matplotlib)")
    parser.add_argument("--points", type=int, default=1000, help="at most so many steps, evenly spread (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a chart")
    args = parser.parse_intermixed_args()
    steps, curves, plateau = look(args.overrides, args.points)
    if args.out:
        draw(steps, curves, args.out)
    if args.json:
        print(json.dumps({"steps": steps, **curves}))
        return
    print(chart(steps, curves))
    if plateau:
        print("schedule.plateau lowers it further where val/loss does not improve")


def look(overrides: Sequence[str], points: int) -> tuple[list[int], dict[str, list[float]], bool]:
    """The steps, each schedule's factors at them, and whether a plateau may lower one. Raises UserError."""
    if points < 2:
        raise UserError(f"--points {points} must be at least 2")
    configs = compared(overrides)
    config = next(iter(configs.values()))
    if config.trainer.max_epochs is not None:
        raise UserError(
            f"trainer.max_epochs={config.trainer.max_epochs} counts passes over a text, and none is read here; "
            "give trainer.max_steps or trainer.max_tokens"
        )
    horizon = config.trainer.horizon(0, config.data.batch_size, config.model.block_size)
    spread = min(points - 1, horizon)
    steps = [round(i * horizon / spread) for i in range(spread + 1)]
    curves = {name: [c.schedule.factor(step, horizon) for step in steps] for name, c in configs.items()}
    return steps, curves, any(c.schedule.plateau.enabled for c in configs.values())


def compared(overrides: Sequence[str]) -> dict[str, Config]:
    """What the overrides compose to, by a name that tells apart what is compared."""
    chosen = [typed.removeprefix("schedule=").split(",") for typed in overrides if typed.startswith("schedule=")]
    names = chosen[-1] if chosen else []
    wanted = {name: [typed for typed in overrides if reaches(typed, name, names)] for name in names} or {"": overrides}
    found = {}
    for name, all_typed in wanted.items():
        keys = [typed.partition("=")[::2] for typed in all_typed if typed.startswith("schedule.")]
        rest = [typed for typed in all_typed if not typed.startswith(("schedule.", "schedule="))]
        for values in product(*(value.split(",") for _, value in keys)):
            pairs = [(key, value, "," in typed) for (key, typed), value in zip(keys, values, strict=True)]
            group = [f"schedule={name}"] if names else []
            config = compose_config([*rest, *group, *(f"{key}={value}" for key, value, _ in pairs)], here=False)
            label = [name or snake_case(type(config.schedule).__name__)]
            label += [f"{key.removeprefix('schedule.')}={value}" for key, value, several in pairs if several]
            found[" ".join(label)] = config
    return found


def reaches(typed: str, name: str, names: Sequence[str]) -> bool:
    """Whether an override is for the schedule `name`: not if others of the `names` have its key, and this has not."""
    key = typed.partition("=")[0].split(".")[1] if typed.startswith("schedule.") else None
    having = [other for other in names if key in keys_of(other)]
    return not having or name in having


def keys_of(name: str) -> set[str]:
    known = (CONF / "schedule" / f"{name}.yaml").exists()  # else composing will say so
    return {field.name for field in fields(load_option("schedule", name))} if known else set()


def snake_case(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("Config")).lower()


def chart(steps: Sequence[int], curves: dict[str, list[float]]) -> str:
    """Curves of values from 0 to 1 as lines of text; where some coincide, their marks take turns."""
    cells: dict[tuple[int, int], list[str]] = {}
    marks = dict(zip(curves, MARKS * len(curves), strict=False))
    for name, curve in curves.items():
        at, before = -1.0, round(curve[0] * (HEIGHT - 1))  # an index into the curve, and the row drawn for it
        for column in range(WIDTH):
            since, at = at, (len(steps) - 1) * column / (WIDTH - 1)
            passed = [*curve[math.floor(since) + 1 : math.floor(at) + 1], between(curve, at)]
            low, high = (round(value * (HEIGHT - 1)) for value in (min(passed), max(passed)))
            for row in range(min(low, before + 1), max(high, before - 1) + 1):  # joined to the column before
                cells.setdefault((row, column), []).append(marks[name])
            before = round(passed[-1] * (HEIGHT - 1))
    lines = ["share of the peak rate"]
    for row in reversed(range(HEIGHT)):
        label = f"{row / (HEIGHT - 1):.2f}" if row % 4 == 0 else ""
        here = (cells.get((row, column), " ") for column in range(WIDTH))
        lines.append(f"{label:>5} |{''.join(m[(row + column) % len(m)] for column, m in enumerate(here))}".rstrip())
    middle, last = f"{steps[-1] // 2:,}", f"{steps[-1]:,}"
    lines.append(f"{'':5} +{'-' * WIDTH}")
    lines.append(f"{'':6} 0{middle:^{WIDTH - 2}}".rstrip().ljust(7 + WIDTH - len(last)) + f"{last}  steps")
    width = max(map(len, curves))
    lines += [f"{marks[name]:>7}  {name:<{width}}  ends at {curve[-1]:.4g}" for name, curve in curves.items()]
    return "\n".join(lines)


def between(curve: Sequence[float], position: float) -> float:
    """The value at a fractional index."""
    i = min(int(position), len(curve) - 2)
    return curve[i] + (position - i) * (curve[i + 1] - curve[i])


def draw(steps: Sequence[int], curves: dict[str, list[float]], out: Path) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for i, (name, curve) in enumerate(curves.items()):
        style = ("-", "--", "-.", ":")[i % 4]  # so that one shows through another
        axes.plot(steps, curve, style, label=f"{name} (ends at {curve[-1]:.4g})")
    axes.set(xlabel="optimizer steps", ylabel="share of the peak rate", ylim=(-0.03, 1.05))
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside right upper")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
