"""Comparison of the memory estimate in lm/memory with the memory that torch uses."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lm.base.hardware import resolve_device_type
from lm.config import Config, compose_config
from lm.experiment.capacity import memory_setup
from lm.experiment.loop import TrainingLoop
from lm.memory import Network, estimate, saved_by_kind
from lm.optim import AdamW8bitConfig

GRID = [  # overrides on top of precision=fp32 attention=sdpa model=tiny data.batch_size=8
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


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Memory of a training step in MB: `kept` is what autograd keeps between forward and backward, estimated and as
    its hooks count it; `peak` includes weights and optimizer state, estimated and as the allocator reports it; `the
    Lab's` is the formula of LLM Learning Lab, which includes the overhead of the device."""
    device = resolve_device_type(args.device, "--device")
    rows = []
    for typed in args.overrides or GRID:
        config = compose_config(["precision=fp32", "attention=sdpa", "model=tiny", "data.batch_size=8", *typed.split()])
        vocab = 50257 if typed.startswith("model=lab") else args.vocab
        setup = memory_setup(config, vocab, device)
        estimated = estimate(config.model, setup, config.optimizer)
        kept, peak = measure_memory(config, vocab, device)
        row: dict[str, Any] = {"overrides": typed or "(none)"}
        if kept is not None:
            saved_bytes = sum(saved_by_kind(Network(config.model, setup).operations()).values())
            row |= {"kept est.": saved_bytes / 1e6, "kept": kept / 1e6, "error": saved_bytes / kept - 1}
        else:
            row |= {"kept est.": None, "kept": None, "error": None}
        row |= {"peak est.": estimated.tensors / 1e6, "peak": peak / 1e6, "peak error": estimated.tensors / peak - 1}
        row["the Lab's"] = lab_formula(config, vocab) / 1e6
        rows.append(row)
    return rows


def lab_formula(config: Config, vocab: int) -> float:
    """Return the memory in bytes that the code of LLM Learning Lab estimates."""
    c, micro = config.model, config.data.device_batch_size()
    C, L, T = c.n_embd, c.n_layer, c.block_size
    P = (1 if c.tie_embeddings else 2) * vocab * C + T * C + L * (12 * C * C + 4 * C) + 2 * C  # without biases
    number = 4 if config.precision.dtype == "fp32" else 2
    optimizer = 4 * P * (0.5 if isinstance(config.optimizer, AdamW8bitConfig) else 2.0)
    factor = 32.5 if c.recompute_every else 50
    scores = micro * c.n_head * T * T * number * L * (0.06 if config.attention.backend == "sdpa" else 1)
    activations = micro * T * C * L * factor * number + scores
    return 1.15 * (4 * P + optimizer + 4 * P + activations) + 1100 * 2**20


def measure_memory(config: Config, vocab: int, device: str) -> tuple[int | None, int]:
    """Return the bytes that autograd keeps, and the peak of a second step including weights and optimizer state.

    The first is None if blocks are recomputed, because the hooks do not see them.
    """
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

    persistent = [*loop.model.parameters(), *loop.model.buffers()]
    persistent += [t for state in loop.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    peak = peak_allocation(step, device) + sum(
        t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in persistent}.values()
    )
    return None if config.model.recompute_every else kept, peak


def peak_allocation(task: Callable[[], object], device: str) -> int:
    """Return the peak number of bytes that a task allocates for tensors, without those allocated before it."""
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
