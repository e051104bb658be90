"""Will it fit? The memory of training, from the config alone.

Backward frees what forward kept, from the last operation to the first, while gradients take its place; in between
each operation needs room to work in. So the network is written down as a list of operations with what each keeps,
works in and has as gradients, and the peak is found by walking backward through it. Checked against the bytes that
autograd saves and the allocator's peak (docs/memory.md).
"""

from lm.memory.estimate import Estimate, by_kind, estimate, largest_micro_batch, ways_to_fit
from lm.memory.operations import Network, Op, Setup

__all__ = ["Estimate", "Network", "Op", "Setup", "by_kind", "estimate", "largest_micro_batch", "ways_to_fit"]
