"""How fast a configuration trains."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from lm.bare import BareLoop
from lm.bench.timing import alternate, matmul
from lm.config import Config, composed
from lm.hardware import device_type, peak_flops
from lm.model import GPT
from lm.precision import DTYPES


def step(args: argparse.Namespace) -> list[dict]:
    """One optimizer step of each configuration (overrides in quotes; none: the default): forward, backward, clipping
    and update on random ids, in a bare loop; medians, the spread between quartiles, and the share of what a large
    matrix product reaches in the same run."""
    device = device_type(args.device, "--device")
    tasks, about = {}, {}
    for typed in args.overrides or ["model=tiny"]:
        config = composed(typed.split())
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
    loop = BareLoop(config, vocab, device)
    x, y = loop.random_batch()  # (B, T) each

    def run() -> None:
        for _ in range(loop.accumulate):
            loop.backward(loop.forward(x, y)[0])
        loop.update()

    if config.trainer.compile:
        loop.model.compile()
    return run, loop.model
