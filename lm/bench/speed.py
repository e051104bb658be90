"""How fast a configuration trains."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from lm.bench.timing import alternate, matmul
from lm.config import Config, composed
from lm.hardware import device_type, peak_flops
from lm.model import GPT
from lm.precision import DTYPES, autocast


def step(args: argparse.Namespace) -> list[dict]:
    """One optimizer step of each configuration (overrides in quotes; none: the default): forward, backward, clipping
    and update on random ids, in a bare loop; medians, the spread between quartiles, and the share of what a large
    matrix product reaches in the same run."""
    device = device_type(args.device, "--device")
    tasks, about = {}, {}
    for typed in args.overrides or ["model=tiny"]:
        config = composed(typed.split())
        precision = config.precision.resolve(device)
        tasks[typed], model = bare_step(config, args.vocab, device, precision)
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


def bare_step(config: Config, vocab: int, device: str, precision: str) -> tuple[Callable[[], object], GPT]:
    """A training step without a trainer: what the framework is measured against."""
    torch.manual_seed(config.seed)
    model = GPT(config.model, vocab, config.attention.backend).to(device)
    model = model.bfloat16() if precision == "bf16_true" else model
    optimizer = config.optimizer.for_width(config.model.n_embd).build(model)
    accumulate, micro = config.data.accumulate(), config.data.micro()
    ids = torch.randint(vocab, (micro, config.model.block_size + 1), device=device)  # (B, T + 1)

    def run() -> None:
        for _ in range(accumulate):
            with autocast(device, precision):
                loss, _ = model(ids[:, :-1], None, ids[:, 1:], config.loss)
            (loss / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    if config.trainer.compile:
        model.compile()
    return run, model
