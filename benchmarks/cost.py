"""Cost of everything except the model: the trainer, the optimizer, the data and the start of the process."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer import RECIPES, step_times
from benchmarks.runs import ROOT
from benchmarks.speed import build_training_step
from benchmarks.timing import time_alternately
from lm.base.errors import UserError
from lm.base.hardware import keep_freed_memory, resolve_device_type
from lm.config import compose_config, load_option
from lm.config.help import option_names
from lm.data.batches import DataConfig, TrainBatches
from lm.model import GPT


def overhead(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median milliseconds per step of a loop without a trainer (same model, loss, optimizer and clipping; random ids)
    and of train.py with its loggers and callbacks; the two take turns. Default configurations: the two recipes of
    nanoGPT."""
    device = resolve_device_type(args.device, "--device")
    keep_freed_memory()
    rows = []
    for typed in args.overrides or [overrides for _, overrides in RECIPES.values()]:
        config = compose_config(["tokenizer=char", *typed.split()])
        step, model = build_training_step(config, 65, device)
        steps = 200 if model.num_params < 5e6 else 20
        bare: list[float] = []
        ours: list[float] = []
        with tempfile.TemporaryDirectory() as tmp:
            for turn in range(args.repeats):
                bare += time_alternately({"bare": step}, steps, device, warm_up=10)["bare"]
                ours += step_times(f"{typed} trainer.max_steps={steps + 10}", Path(tmp) / str(turn), args.dir, 10)[1:]
        a, b = statistics.median(bare), statistics.median(ours)
        rows.append({"overrides": typed, "bare ms": a, "train.py ms": b, "costs ms": b - a, "costs": b / a - 1})
    return rows


def optimizer(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median milliseconds of one update of each optimizer on random gradients; the optimizers take turns. Default
    configuration: model=tiny."""
    device = resolve_device_type(args.device, "--device")
    keep_freed_memory()
    config = compose_config((args.overrides or ["model=tiny"])[0].split())
    tasks = {}
    for name in option_names("optimizer"):
        model = GPT(config.model, args.vocab).to(device)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        tasks[name] = load_option("optimizer", name).with_default_lr(config.model.n_embd).build(model).step
    ms = time_alternately(tasks, args.repeats, device)
    fastest = min(map(statistics.median, ms.values()))
    return [
        {"optimizer": name, "ms": statistics.median(times), "times the fastest": statistics.median(times) / fastest}
        for name, times in ms.items()
    ]


def data(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median milliseconds to read a batch from a memory map of 100 million tokens, and tokens per second."""
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "tokens"
        np.random.default_rng(0).integers(50257, size=10**8, dtype=np.uint16).tofile(path)
        tokens = np.memmap(path, dtype=np.uint16, mode="r")
        for batch, T in ((12, 64), (16, 256), (32, 1024)):
            batches = TrainBatches(tokens, T, DataConfig(batch_size=batch), 0)
            numbers = iter(range(10**9))
            batches[next(numbers)]  # the first batch draws the order of the epoch
            ms = statistics.median(time_alternately({"": lambda: batches[next(numbers)]}, 10 * args.repeats)[""])  # noqa: B023
            rows.append({"B, T": (batch, T), "ms": ms, "tokens/s": round(1e3 * batch * T / ms)})
    return rows


def startup(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median seconds from the start of a process to its first logged step, with text and tokenizer in the cache, and
    of --help. Default configuration: the default run."""
    overrides = (args.overrides or [""])[0].split()
    first: list[float] = []
    helped: list[float] = []
    with tempfile.TemporaryDirectory() as tmp:
        for turn in range(args.repeats + 1):  # the first turn fills the cache and is not counted
            run = Path(tmp) / str(turn)
            command = [sys.executable, "train.py", f"hydra.run.dir={run}", "name=bench", f"data.root={args.dir}"]
            start = time.perf_counter()
            process = subprocess.Popen(
                [*command, "trainer.max_steps=2", "trainer.log_every=1", *overrides],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
            )
            while process.poll() is None and not (run / "metrics.csv").exists():
                time.sleep(0.005)
            first.append(time.perf_counter() - start)
            if process.wait():
                raise UserError("train.py failed; its error message is above")
            start = time.perf_counter()
            subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            helped.append(time.perf_counter() - start)
    return [{"": "first logged step", "seconds s": statistics.median(first[1:])},
            {"": "--help", "seconds s": statistics.median(helped[1:])}]  # fmt: skip
