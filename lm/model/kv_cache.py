"""What generation keeps of the tokens that a model has seen."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of the tokens that a model has seen, so that it need not see them again to go on."""

    def __init__(self) -> None:
        self.layers: list[Tensor] = []  # (2, B, Hkv, room, D) each, of which `length` positions are filled
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values (B, Hkv, T, D) of a layer, with these behind them."""
        new, end = torch.stack((k, v)), self.length + k.size(2)
        if layer == len(self.layers):
            self.layers.append(new)
        elif self.layers[layer].size(3) < end:  # twice the room, or each token would copy all before it
            self.layers[layer] = torch.cat((self.layers[layer][..., : self.length, :], new, new.new_empty(
                *new.shape[:3], end, new.size(4))), dim=3)  # fmt: skip
        else:
            self.layers[layer][..., self.length : end, :] = new
        kept = self.layers[layer][..., :end, :]
        return kept[0], kept[1]
