"""Speed of training and of generation."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import matmul, time_alternately
from lm.base.hardware import peak_flops, resolve_device_type
from lm.config import Config, compose_config
from lm.experiment.loop import TrainingLoop
from lm.generate import Sampling, decode
from lm.model import GPT
from lm.model.precision import DTYPES


def step(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median milliseconds of an optimizer step (forward, backward, clipping and update on random ids, without a
    trainer) of each configuration, the spread between quartiles, and the share of the speed of a large matrix product
    in the same run. Default configuration: model=tiny."""
    device = resolve_device_type(args.device, "--device")
    tasks, details = {}, {}
    for typed in args.overrides or ["model=tiny"]:
        config = compose_config(typed.split())
        precision = config.precision.resolve(device)
        tasks[typed], model = build_training_step(config, args.vocab, device)
        details[typed] = (config, model, precision)
    ceilings = {dtype: matmul(DTYPES[dtype], device) for dtype in {precision for *_, precision in details.values()}}
    ms = time_alternately(tasks | {dtype: task for dtype, (task, _) in ceilings.items()}, args.repeats, device)
    rows, peak = [], peak_flops(device)
    for name, (config, model, precision) in details.items():
        tokens = config.data.batch_size * config.model.block_size
        median = statistics.median(ms[name])
        low, _, high = statistics.quantiles(ms[name], n=4)
        reached = tokens * model.flops_per_token / median
        ceiling = ceilings[precision][1] / statistics.median(ms[precision])
        rows.append({
            "overrides": name, "parameters": model.num_params, "dtype": precision, "ms": median, "spread": high - low,
            "tokens/s": round(1e3 * tokens / median), "GFLOP/s": reached / 1e6, "of matmul": reached / ceiling,
        } | ({"mfu": 1e3 * reached / peak} if peak else {}))  # fmt: skip
    return rows


def build_training_step(config: Config, vocab: int, device: str) -> tuple[Callable[[], object], GPT]:
    """Return a training step on random ids without a trainer, and its model.

    The cost of the trainer is measured against it.
    """
    torch.manual_seed(config.seed)
    loop = TrainingLoop(config, vocab, device)
    x, y = loop.random_batch()  # (B, T) each

    def run() -> None:
        for _ in range(loop.accumulate):
            loop.backward(loop.forward(x, y)[0])
        loop.update()

    if config.trainer.compile:
        loop.model.compile()
    return run, loop.model


def generate(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens/s when 512 tokens are generated from a prompt of one, with and without the key-value cache; the two take
    turns, and the best time of each counts. Default configuration: 10.7M parameters with a context of 512."""
    device, length = resolve_device_type(args.device, "--device"), 512
    rows = []
    for typed in args.overrides or ["model=nanogpt/baby model.block_size=512"]:
        config = compose_config(typed.split())
        torch.manual_seed(config.seed)
        model = GPT(config.model, args.vocab).to(device).eval()

        def write(cached: bool, model: GPT = model) -> None:
            for _ in decode(model, [torch.zeros(1, dtype=torch.long)], Sampling(), torch.rand(1, length), cached):
                pass

        tasks = {"cached": lambda: write(True), "plain": lambda: write(False)}
        ms = {name: min(times) for name, times in time_alternately(tasks, args.repeats, device, warm_up=1).items()}
        rows.append({
            "overrides": typed, "parameters": model.num_params, "tokens/s": round(1e3 * length / ms["cached"]),
            "without": round(1e3 * length / ms["plain"]), "times": ms["plain"] / ms["cached"],
        })  # fmt: skip
    return rows
