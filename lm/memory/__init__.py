"""Estimate the peak memory of training from the config alone.

The forward pass saves tensors for the backward pass, which frees them from the last operation to the first while it
allocates gradients. Each operation also needs working memory. So the network is described as a list of operations with
the bytes that each one saves, works in, and has as gradients. A walk through the list in reverse finds the peak.
docs/memory.md compares the estimates with the bytes that autograd saves and with the allocator's peak.
"""

from lm.memory.estimate import Estimate, estimate, largest_micro_batch, saved_by_kind, ways_to_fit
from lm.memory.operations import Network, Op, Setup

__all__ = ["Estimate", "Network", "Op", "Setup", "estimate", "largest_micro_batch", "saved_by_kind", "ways_to_fit"]
