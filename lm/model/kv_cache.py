"""The cache of keys and values that speeds up generation."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of the tokens processed so far, so that a forward pass needs only the new tokens."""

    def __init__(self) -> None:
        self.layers: list[Tensor] = []  # (2, B, Hkv, capacity, D) each, with `length` positions in use
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, Hkv, T, D) to those of a layer, and return all of them."""
        new, end = torch.stack((k, v)), self.length + k.size(2)
        if layer == len(self.layers):
            self.layers.append(new)
        elif self.layers[layer].size(3) < end:  # double the capacity, or each token would copy all earlier ones
            self.layers[layer] = torch.cat((self.layers[layer][..., : self.length, :], new, new.new_empty(
                *new.shape[:3], end, new.size(4))), dim=3)  # fmt: skip
        else:
            self.layers[layer][..., self.length : end, :] = new
        filled = self.layers[layer][..., :end, :]
        return filled[0], filled[1]
