"""Ablations: compare variants of a configuration at equal training time."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runs import run_training
from benchmarks.speed import build_training_step
from benchmarks.timing import time_alternately
from lm.base.console import format_table
from lm.base.hardware import resolve_device_type
from lm.config import compose_config


@dataclass(frozen=True)
class Ablation:
    """Settings of an ablation."""

    directory: Path  # of the runs
    base: str  # overrides of all runs
    variants: Sequence[str]  # overrides on top of the base
    steps: int  # of the base
    seeds: int  # runs of each variant
    target: float | None  # val/bpb up to which tokens are counted; None: the worst mean at the end
    jobs: int  # runs at a time
    vocab: int  # vocabulary size while timing

    def run(self) -> list[dict[str, Any]]:
        """Time and train every variant; return the rows of the table."""
        variants = {"base": self.base, **{v: f"{self.base} {v}" for v in self.variants}}
        step_ms = self.time_steps(variants)
        runs = []
        for name, overrides in variants.items():
            steps = round(self.steps * step_ms["base"] / step_ms[name])
            for seed in range(1, self.seeds + 1):
                runs.append((name, overrides.split(), seed, steps))
        with ThreadPoolExecutor(self.jobs) as pool:
            curves = list(pool.map(lambda run: self.train(*run), runs))
        by_name: dict[str, list[dict[int, float]]] = {}
        for (name, *_), curve in zip(runs, curves, strict=True):
            by_name.setdefault(name, []).append(curve)
        final = {name: [curve[max(curve)] for curve in curves] for name, curves in by_name.items()}
        target = self.target or max(map(statistics.fmean, final.values()))
        rows = []
        for name, overrides in variants.items():
            config = compose_config(overrides.split())
            per_step = config.data.batch_size * config.model.block_size
            reached = [steps_to(curve, target) for curve in by_name[name]]
            tokens = None if None in reached else statistics.fmean(r for r in reached if r is not None) * per_step / 1e6
            rows.append({
                "variant": name, "ms": step_ms[name], "steps": max(by_name[name][0]),
                "val/bpb": statistics.fmean(final[name]),
                "sd": statistics.stdev(final[name]) if self.seeds > 1 else 0.0,
                "against base": statistics.fmean(final[name]) - statistics.fmean(final["base"]),
                f"Mtokens to {target:.3f}": tokens,
            })  # fmt: skip
        return rows

    def time_steps(self, variants: dict[str, str]) -> dict[str, float]:
        """Return the median milliseconds per step of each variant, from step_ms.json if an earlier call timed it."""
        path = self.directory / "step_ms.json"
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if missing := [name for name in variants if name not in known]:
            device = resolve_device_type("auto", "--device")
            tasks = {}
            for name in ["base", *missing]:
                config = compose_config(variants[name].split())
                tasks[name], _ = build_training_step(config, self.vocab, device)
            medians = {name: statistics.median(ms) for name, ms in time_alternately(tasks, 30, device).items()}
            # The speed of a shared machine changes, so a variant added later is timed together with the base,
            # and only the ratio of the two counts.
            scale = known.get("base", medians["base"]) / medians["base"]
            known |= {name: scale * ms for name, ms in medians.items() if name in missing}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        return known

    def train(self, variant: str, overrides: list[str], seed: int, steps: int) -> dict[int, float]:
        """Train one run, or resume it, or read it if it is complete; return its val/bpb by step."""
        name = f"{re.sub(r'[^A-Za-z0-9_.]+', '-', variant)}-{seed}"
        overrides = [*overrides, f"name={name}", f"seed={seed}", f"trainer.max_steps={steps}", "logger=csv"]
        overrides += [f"trainer.val_every={max(1, steps // 20)}", "trainer.save_every=100000"]
        overrides += ["callbacks.sample.enabled=false"]
        rows = run_training(self.directory / name, overrides, threads=max(1, (os.cpu_count() or 1) // self.jobs))
        return {int(row["step"]): row["val/bpb"] for row in rows if "val/bpb" in row}


def steps_to(curve: dict[int, float], target: float) -> float | None:
    """Return the step at which a curve first reaches the target, or None if it never does.

    Between two validations the curve is interpolated linearly.
    """
    before: tuple[int, float] | None = None
    for step, value in curve.items():
        if value <= target:
            if before is None:
                return step
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - value)
        before = (step, value)
    return None


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of an ablation."""
    return format_table([list(rows[0]), *([format_cell(value) for value in row.values()] for row in rows)])


def format_cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
