"""The estimate of lm/memory against what torch takes."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lm.base.hardware import device_type
from lm.config import Config, compose_config
from lm.experiment.capacity import memory_setup
from lm.experiment.loop import TrainingLoop
from lm.memory import Network, by_kind, estimate
from lm.optim import AdamW8bitConfig

GRID = [  # overrides, each on top of precision=fp32 attention=sdpa model=tiny data.batch_size=8
    "", "precision=bf16", "attention=manual", "precision=bf16 attention=manual",
    "data.batch_size=32", "data.batch_size=8 data.micro_batch_size=2", "model.block_size=512 attention=manual",
    "model.block_size=512", "model=small", "model=small precision=bf16", "model=small attention=manual",
    "model=small precision=bf16 attention=manual data.batch_size=2", "model=medium data.batch_size=2",
    "model=medium precision=bf16 attention=manual model.recompute_every=1", "model=small model.recompute_every=1",
    "model=small model.recompute_every=2 precision=bf16", "model.norm=rmsnorm model.qk_norm=true model.mlp=relu2",
    "precision=bf16 model.norm=rmsnorm model.qk_norm=true model.mlp=relu2", "model.position=learned model.mlp=gelu",
    "model.n_kv_head=1", "model.n_kv_head=2 attention=manual precision=bf16", "model.window=32 precision=bf16",
    "model.tie_embeddings=true model.bias=true", "model.logit_softcap=15 precision=bf16", "model.mlp=relu",
    "model.n_layer=8 model.norm_gain=false model.norm=rmsnorm", "optimizer=adamw_8bit model=small",
    "model=feste/medium data.batch_size=4", "model=fundamentallm/small precision=bf16", "model=nanogpt/baby",
    "model=lab/nano data.batch_size=1", "model=femtogpt/192x8 data.batch_size=4", "loss.chunk=256",
    "loss.chunk=128 precision=bf16 model.logit_softcap=15", "loss.chunk=64 data.batch_size=32 precision=bf16",
]  # fmt: skip


def memory(args: argparse.Namespace) -> list[dict]:
    """What a training step takes, in MB: kept between forward and backward, estimated and as autograd's hooks count it;
    the peak with weights and the optimizer's state, estimated and as the allocator reports it; and the whole by the
    Learning Lab's formula, which counts the device's overhead too."""
    device = device_type(args.device, "--device")
    rows = []
    for typed in args.overrides or GRID:
        config = compose_config(["precision=fp32", "attention=sdpa", "model=tiny", "data.batch_size=8", *typed.split()])
        vocab = 50257 if typed.startswith("model=lab") else args.vocab
        how = memory_setup(config, vocab, device)
        made = estimate(config.model, how, config.optimizer)
        kept, peak = measured(config, vocab, device)
        row: dict[str, Any] = {"overrides": typed or "(none)"}
        if kept is not None:
            about = sum(by_kind(Network(config.model, how).operations()).values())
            row |= {"kept est.": about / 1e6, "kept": kept / 1e6, "error": about / kept - 1}
        else:
            row |= {"kept est.": None, "kept": None, "error": None}
        row |= {"peak est.": made.tensors / 1e6, "peak": peak / 1e6, "peak error": made.tensors / peak - 1}
        row["the Lab's"] = lab_formula(config, vocab) / 1e6
        rows.append(row)
    return rows


def lab_formula(config: Config, vocab: int) -> float:
    """The Learning Lab's estimate in bytes, as its code has it."""
    c, micro = config.model, config.data.micro()
    C, L, T = c.n_embd, c.n_layer, c.block_size
    P = (1 if c.tie_embeddings else 2) * vocab * C + T * C + L * (12 * C * C + 4 * C) + 2 * C  # biases left out
    number = 4 if config.precision.dtype == "fp32" else 2
    optimizer = 4 * P * (0.5 if isinstance(config.optimizer, AdamW8bitConfig) else 2.0)
    factor = 32.5 if c.recompute_every else 50
    scores = micro * c.n_head * T * T * number * L * (0.06 if config.attention.backend == "sdpa" else 1)
    activations = micro * T * C * L * factor * number + scores
    return 1.15 * (4 * P + optimizer + 4 * P + activations) + 1100 * 2**20


def measured(config: Config, vocab: int, device: str) -> tuple[int | None, int]:
    """Bytes that autograd keeps (None where blocks are recomputed: hooks do not see those), and the peak, weights and
    optimizer included, of a second step."""
    loop = TrainingLoop(config, vocab, device)
    x, y = loop.random_batch()
    saved: dict[int, Tensor] = {}
    weights = {p.untyped_storage().data_ptr() for p in loop.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if (at := tensor.untyped_storage().data_ptr()) not in weights:
            saved[at] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective, _ = loop.forward(x, y)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    saved.clear()
    loop.backward(objective)
    loop.update()
    del objective

    def step() -> None:
        for _ in range(loop.accumulate):
            loop.backward(loop.forward(x, y)[0])
        loop.update()

    there = [*loop.model.parameters(), *loop.model.buffers()]
    there += [t for state in loop.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    peak = allocated(step, device) + sum(
        t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in there}.values()
    )
    return None if config.model.recompute_every else kept, peak


def allocated(task: Any, device: str) -> int:
    """The most bytes of tensors that a task holds beside those that were there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        task()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        task()
    events = profiler.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
