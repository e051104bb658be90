"""The peak of a training step, and what to change when it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch

from lm.memory.operations import Network, Op, Setup
from lm.model import GPT, GPTConfig
from lm.optim import AdamW8bitConfig, OptimizerConfig, kind_of

MIB = 2**20
OVERHEAD = {"cpu": 500 * MIB, "cuda": 700 * MIB, "mps": 700 * MIB}  # the process with torch; a CUDA context


@dataclass(frozen=True)
class Estimate:
    """Bytes at the moment of the peak; `full_gradients` is what they come to by the end of backward."""

    weights: int
    optimizer: int
    gradients: int
    full_gradients: int
    activations: dict[str, int] = field(default_factory=dict)
    working: int = 0
    at: str = ""  # the operation whose backward is the peak
    overhead: int = 0  # the process, or the GPU's context and workspaces: outside of what tensors take

    @property
    def tensors(self) -> int:
        return self.weights + self.optimizer + self.gradients + sum(self.activations.values()) + self.working

    @property
    def total(self) -> int:
        return self.tensors + self.overhead


def estimate(config: GPTConfig, setup: Setup, optimizer: OptimizerConfig) -> Estimate:
    """The peak of a training step, once the optimizer has its state."""
    with torch.device("meta"):
        model = GPT(config, setup.vocab_size)
    sizes = [p.numel() for p in model.parameters()]
    copies = 1 + setup.copies + setup.snapshot
    weights = setup.number * sum(sizes) * copies + sum(b.numel() * b.itemsize for b in model.buffers())
    matrices = [kind_of(name, p) == "matrix" for name, p in model.named_parameters()]
    state = sum(map(optimizer.state_bytes, sizes, matrices))
    state = state * setup.number // 4 * (1 + setup.snapshot)
    base = Estimate(weights, state, 0, setup.number * sum(sizes), overhead=OVERHEAD[setup.device])
    update = max(optimizer.working_bytes(size, setup.device) for size in sizes)
    peak = replace(base, gradients=base.full_gradients, working=update, at="update")
    operations = list(Network(config, setup).operations())
    kept = by_kind(operations)
    gradients = base.full_gradients if setup.accumulate > 1 else 0
    for op in reversed(operations):
        now = replace(base, gradients=gradients, activations=dict(kept), working=op.working, at=op.kind)
        peak = max(peak, now, key=lambda e: e.tensors)
        kept[op.kind] -= op.kept
        if setup.accumulate == 1:
            gradients += op.gradients
    return peak


def by_kind(operations: Iterable[Op]) -> dict[str, int]:
    """What is kept between forward and backward."""
    kept: dict[str, int] = {}
    for op in operations:
        kept[op.kind] = kept.get(op.kind, 0) + op.kept
    return kept


def largest_micro_batch(config: GPTConfig, setup: Setup, optimizer: OptimizerConfig, capacity: int) -> int:
    """The largest micro-batch whose training takes at most `capacity` bytes; 0 if not even one sequence does."""

    def fits(micro: int) -> bool:
        return estimate(config, replace(setup, micro_batch=micro), optimizer).total <= capacity

    low, high = 0, 1
    while high < 2**20 and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def ways_to_fit(
    config: GPTConfig, setup: Setup, optimizer: OptimizerConfig, batch: int, capacity: int
) -> Iterator[tuple[str, Estimate]]:
    """What to change, each on top of those before, until it fits `capacity`: first what changes no result, then what
    costs time, then the optimizer, then the model. `batch` is that of one device and optimizer step."""
    c, s, o = config, setup, optimizer
    now = estimate(c, s, o)

    def rungs() -> Iterator[tuple[str, GPTConfig, Setup, OptimizerConfig]]:  # each from where we stand
        if s.backend == "manual":
            yield "attention=sdpa", c, replace(s, backend="sdpa"), o
        if s.precision == "fp32" and s.device == "cuda":
            yield "precision=bf16", c, replace(s, precision="bf16"), o
        micro = s.micro_batch
        while micro > 1:
            micro = max(m for m in range(1, micro) if batch % m == 0)
            yield f"data.micro_batch_size={micro}", c, replace(s, micro_batch=micro, accumulate=batch // micro), o
        if c.recompute_every != 1:
            yield "model.recompute_every=1", replace(c, recompute_every=1), s, o
        if not isinstance(o, AdamW8bitConfig):
            yield "optimizer=adamw_8bit", c, s, AdamW8bitConfig()
        if not c.tie_embeddings:
            yield "model.tie_embeddings=true", replace(c, tie_embeddings=True), s, o
        context = c.block_size
        while context >= 128:
            context //= 2
            yield f"model.block_size={context}", replace(c, block_size=context, window=None), s, o

    while now.total > capacity:
        for change, c_, s_, o_ in rungs():
            after = estimate(c_, s_, o_)
            if after.total < 0.98 * now.total:
                c, s, o, now = c_, s_, o_, after
                yield change, now
                break
        else:
            return
