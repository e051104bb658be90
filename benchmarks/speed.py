"""How fast a configuration trains, and writes."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.timing import alternate, matmul
from lm.base.hardware import device_type, peak_flops
from lm.config import Config, compose_config
from lm.experiment.loop import TrainingLoop
from lm.generate import Sampling, decode
from lm.model import GPT
from lm.model.precision import DTYPES


def step(args: argparse.Namespace) -> list[dict]:
    """One optimizer step of each configuration (overrides in quotes; none: the default): forward, backward, clipping
    and update on random ids, in a bare loop; medians, the spread between quartiles, and the share of what a large
    matrix product reaches in the same run."""
    device = device_type(args.device, "--device")
    tasks, about = {}, {}
    for typed in args.overrides or ["model=tiny"]:
        config = compose_config(typed.split())
        precision = config.precision.resolve(device)
        tasks[typed], model = bare_step(config, args.vocab, device)
        about[typed] = (config, model, precision)
    ceilings = {dtype: matmul(DTYPES[dtype], device) for dtype in {precision for *_, precision in about.values()}}
    ms = alternate(tasks | {dtype: task for dtype, (task, _) in ceilings.items()}, args.repeats, device)
    rows, peak = [], peak_flops(device)
    for name, (config, model, precision) in about.items():
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


def bare_step(config: Config, vocab: int, device: str) -> tuple[Callable[[], object], GPT]:
    """A training step without a trainer, on random ids, and its model: what the framework is measured against."""
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


def generate(args: argparse.Namespace) -> list[dict]:
    """Tokens/s of writing 512 tokens from one with the cache and without, in turns; the best of each. Configurations
    in quotes; none: 10.7M parameters with a context of 512."""
    device, length = device_type(args.device, "--device"), 512
    rows = []
    for typed in args.overrides or ["model=nanogpt/baby model.block_size=512"]:
        config = compose_config(typed.split())
        torch.manual_seed(config.seed)
        model = GPT(config.model, args.vocab).to(device).eval()

        def write(cached: bool, model: GPT = model) -> None:
            for _ in decode(model, [torch.zeros(1, dtype=torch.long)], Sampling(), torch.rand(1, length), cached):
                pass

        tasks = {"cached": lambda: write(True), "plain": lambda: write(False)}
        ms = {name: min(times) for name, times in alternate(tasks, args.repeats, device, warm_up=1).items()}
        rows.append({
            "overrides": typed, "parameters": model.num_params, "tokens/s": round(1e3 * length / ms["cached"]),
            "without": round(1e3 * length / ms["plain"]), "times": ms["plain"] / ms["cached"],
        })  # fmt: skip
    return rows
