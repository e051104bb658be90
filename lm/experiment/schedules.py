"""Curves of learning-rate schedules, as a text chart or as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path

from lm.base.errors import UserError
from lm.base.plotting import pyplot, save_figure
from lm.config import CONF, Config, compose_config, load_option

MARKS = "*o+x#@%&"  # one for each curve of the chart
WIDTH, HEIGHT = 72, 17  # of the chart, in characters: every fourth line is a quarter
LABEL = "share of the peak learning rate"


def schedule_curves(overrides: Sequence[str], points: int) -> tuple[list[int], dict[str, list[float]], bool]:
    """Return at most `points` steps, the factors of each schedule at them, and True if any schedule has a plateau.

    Raises UserError if an override is wrong, or if the number of steps is not known.
    """
    if points < 2:
        raise UserError(f"--points {points} must be at least 2")
    configs = compose_schedules(overrides)
    config = next(iter(configs.values()))
    if config.trainer.max_epochs is not None:
        raise UserError(
            f"trainer.max_epochs={config.trainer.max_epochs} counts passes over a text, but this script does not read "
            "the text; set trainer.max_steps or trainer.max_tokens instead"
        )
    horizon = config.trainer.horizon(0, config.data.batch_size, config.model.block_size)
    intervals = min(points - 1, horizon)
    steps = [round(i * horizon / intervals) for i in range(intervals + 1)]
    curves = {name: [c.schedule.factor(step, horizon) for step in steps] for name, c in configs.items()}
    return steps, curves, any(c.schedule.plateau.enabled for c in configs.values())


def compose_schedules(overrides: Sequence[str]) -> dict[str, Config]:
    """Compose the configuration of every schedule to compare, by a name that says how it differs from the others."""
    groups = [override.removeprefix("schedule=").split(",") for override in overrides if is_group(override)]
    names = groups[-1] if groups else []
    overrides_of: dict[str, Sequence[str]] = {
        name: [override for override in overrides if applies_to(override, name, names)] for name in names
    }
    configs = {}
    for name, own_overrides in (overrides_of or {"": overrides}).items():
        keys = [override.partition("=")[::2] for override in own_overrides if override.startswith("schedule.")]
        rest = [o for o in own_overrides if not o.startswith("schedule.") and not is_group(o)]
        for values in product(*(value.split(",") for _, value in keys)):
            pairs = [(key, value, "," in listed) for (key, listed), value in zip(keys, values, strict=True)]
            group = [f"schedule={name}"] if names else []
            config = compose_config([*rest, *group, *(f"{key}={value}" for key, value, _ in pairs)], here=False)
            label = [name or snake_case(type(config.schedule).__name__)]
            label += [f"{key.removeprefix('schedule.')}={value}" for key, value, several in pairs if several]
            configs[" ".join(label)] = config
    return configs


def is_group(override: str) -> bool:
    """Return True for schedule=..., which selects schedules."""
    return override.startswith("schedule=")


def applies_to(override: str, name: str, names: Sequence[str]) -> bool:
    """Return False if the key of an override belongs to others of the schedules `names`, but not to `name`."""
    key = override.partition("=")[0].split(".")[1] if override.startswith("schedule.") else None
    owners = [other for other in names if key in schedule_keys(other)]
    return not owners or name in owners


def schedule_keys(name: str) -> set[str]:
    """Return the keys of a schedule; none for an unknown schedule, which is refused when the config is composed."""
    exists = (CONF / "schedule" / f"{name}.yaml").exists()
    return {field.name for field in fields(load_option("schedule", name))} if exists else set()


def snake_case(name: str) -> str:
    """Return the name of the option for the name of its class: InverseSqrtConfig -> inverse_sqrt."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("Config")).lower()


def format_chart(steps: Sequence[int], curves: dict[str, list[float]]) -> str:
    """Draw curves of values from 0 to 1 as lines of text. Where curves coincide, their marks alternate."""
    cells: dict[tuple[int, int], list[str]] = {}
    marks = dict(zip(curves, MARKS * len(curves), strict=False))
    for name, curve in curves.items():
        position, row_before = -1.0, round(curve[0] * (HEIGHT - 1))  # an index into the curve, and the last row drawn
        for column in range(WIDTH):
            start, position = position, (len(steps) - 1) * column / (WIDTH - 1)
            values = [*curve[math.floor(start) + 1 : math.floor(position) + 1], interpolate(curve, position)]
            low, high = (round(value * (HEIGHT - 1)) for value in (min(values), max(values)))
            for row in range(min(low, row_before + 1), max(high, row_before - 1) + 1):  # joined to the last column
                cells.setdefault((row, column), []).append(marks[name])
            row_before = round(values[-1] * (HEIGHT - 1))
    lines = [LABEL]
    for row in reversed(range(HEIGHT)):
        label = f"{row / (HEIGHT - 1):.2f}" if row % 4 == 0 else ""
        row_cells = (cells.get((row, column), [" "]) for column in range(WIDTH))
        text = "".join(options[(row + column) % len(options)] for column, options in enumerate(row_cells))
        lines.append(f"{label:>5} |{text}".rstrip())
    middle, last = f"{steps[-1] // 2:,}", f"{steps[-1]:,}"
    lines.append(f"{'':5} +{'-' * WIDTH}")
    lines.append(f"{'':6} 0{middle:^{WIDTH - 2}}".rstrip().ljust(7 + WIDTH - len(last)) + f"{last}  steps")
    width = max(map(len, curves))
    lines += [f"{marks[name]:>7}  {name:<{width}}  ends at {curve[-1]:.4g}" for name, curve in curves.items()]
    return "\n".join(lines)


def interpolate(curve: Sequence[float], position: float) -> float:
    """Return the value of a curve at a fractional index."""
    i = min(int(position), len(curve) - 2)
    return curve[i] + (position - i) * (curve[i + 1] - curve[i])


def save_plot(steps: Sequence[int], curves: dict[str, list[float]], out: Path) -> None:
    """Draw the curves with matplotlib. Raises UserError if it is not installed or does not support the format."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for i, (name, curve) in enumerate(curves.items()):
        style = ("-", "--", "-.", ":")[i % 4]  # curves that coincide stay visible
        axes.plot(steps, curve, style, label=f"{name} (ends at {curve[-1]:.4g})")
    axes.set(xlabel="optimizer steps", ylabel=LABEL, ylim=(-0.03, 1.05))
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside right upper")
    save_figure(figure, out)
