"""Estimate the peak memory of a training step, and find changes that make it fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from lm.memory.operations import Network, Op, Setup
from lm.model import GPT, GPTConfig
from lm.model.meta import without_numbers
from lm.optim import AdamW8bitConfig, OptimizerConfig, parameter_kind

MIB = 2**20
# Memory outside of tensors: on a CPU the process with torch, on a GPU its context and workspaces.
OVERHEAD = {"cpu": 500 * MIB, "cuda": 700 * MIB, "mps": 700 * MIB}


@dataclass(frozen=True)
class Estimate:
    """Bytes of each kind at the moment of the peak. `full_gradients` are those at the end of the backward pass."""

    weights: int
    optimizer: int
    gradients: int
    full_gradients: int
    activations: dict[str, int] = field(default_factory=dict)
    working: int = 0
    at: str = ""  # the operation whose backward pass reaches the peak, or "update"
    overhead: int = 0  # memory outside of tensors, see OVERHEAD

    @property
    def tensors(self) -> int:
        """The bytes of all tensors."""
        return self.weights + self.optimizer + self.gradients + sum(self.activations.values()) + self.working

    @property
    def total(self) -> int:
        """The bytes of tensors and overhead."""
        return self.tensors + self.overhead


def estimate(config: GPTConfig, setup: Setup, optimizer: OptimizerConfig) -> Estimate:
    """Estimate the peak of a training step after the first, when the optimizer has its state."""
    with without_numbers():
        model = GPT(config, setup.vocab_size)
    sizes = [p.numel() for p in model.parameters()]
    copies = 1 + setup.copies + setup.snapshot
    weights = setup.weight_bytes * sum(sizes) * copies + sum(b.numel() * b.itemsize for b in model.buffers())
    matrices = [parameter_kind(name, p) == "matrix" for name, p in model.named_parameters()]
    state = sum(map(optimizer.state_bytes, sizes, matrices))
    state = state * setup.weight_bytes // 4 * (1 + setup.snapshot)
    base = Estimate(weights, state, 0, setup.weight_bytes * sum(sizes), overhead=OVERHEAD[setup.device])
    update = max(optimizer.working_bytes(size, setup.device) for size in sizes)
    peak = replace(base, gradients=base.full_gradients, working=update, at="update")
    operations = list(Network(config, setup).operations())
    saved = saved_by_kind(operations)
    gradients = base.full_gradients if setup.accumulate > 1 else 0
    for op in reversed(operations):
        now = replace(base, gradients=gradients, activations=dict(saved), working=op.working, at=op.kind)
        peak = max(peak, now, key=lambda e: e.tensors)
        saved[op.kind] -= op.saved
        if setup.accumulate == 1:
            gradients += op.gradients
    return peak


def saved_by_kind(operations: Iterable[Op]) -> dict[str, int]:
    """Add up the bytes saved between forward and backward, by kind of operation."""
    saved: dict[str, int] = {}
    for op in operations:
        saved[op.kind] = saved.get(op.kind, 0) + op.saved
    return saved


def largest_micro_batch(config: GPTConfig, setup: Setup, optimizer: OptimizerConfig, capacity: int) -> int:
    """Return the largest micro-batch that trains in at most `capacity` bytes; 0 if not even one sequence fits."""

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
    """Yield changes, each on top of those before, with the estimate after each, until it fits in `capacity` bytes.

    Changes that do not affect the result come first, then those that cost time, then the optimizer, then the model.
    `batch` is the number of sequences per device and optimizer step.
    """
    c, s, o = config, setup, optimizer
    now = estimate(c, s, o)

    def candidates() -> Iterator[tuple[str, GPTConfig, Setup, OptimizerConfig]]:  # each changes the current c, s, o
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
        for change, c_, s_, o_ in candidates():
            after = estimate(c_, s_, o_)
            if after.total < 0.98 * now.total:
                c, s, o, now = c_, s_, o_, after
                yield change, now
                break
        else:
            return
