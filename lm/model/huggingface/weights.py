"""Take the tensors of a model.safetensors one by one, and notice those that nobody took."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.model.huggingface.settings import show

WEIGHTS = "model.safetensors"


class Weights:
    """The tensors `state`, under names without `prefix`, which only some versions write.

    `sizes` are what shapes are made of. `decisive` are the settings that decide which tensors a model has.
    """

    def __init__(self, state: dict[str, Tensor], prefix: str, sizes: dict[str, int], decisive: dict[str, Any]) -> None:
        self.state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        self.sizes, self.decisive = sizes, ", ".join(f"{key}={show(value)}" for key, value in decisive.items())
        if len(self.state) < len(state):
            raise UserError(f"{WEIGHTS} has a tensor twice, with and without the prefix {prefix}")

    def take(self, name: str, *shape: str) -> Tensor:
        """Remove and return a tensor. `shape` names its sizes. Raises UserError if it is missing or different."""
        if name not in self.state:
            raise UserError(f"{WEIGHTS} has no {name}, but config.json says {self.decisive}")
        tensor = self.state.pop(name)
        if list(tensor.shape) != [self.sizes[size] for size in shape]:
            wanted = ", ".join(f"{size}={self.sizes[size]}" for size in shape)
            raise UserError(f"{name} in {WEIGHTS} has the shape {list(tensor.shape)}, but config.json says {wanted}")
        if not tensor.is_floating_point():
            raise UserError(f"{name} in {WEIGHTS} holds {tensor.dtype}, not floating-point numbers")
        return tensor

    def take_head(self, embedding: Tensor, tied: bool, *shape: str) -> Tensor:
        """Remove and return the output head, which is the embedding when the two are tied."""
        if tied and "lm_head.weight" not in self.state:
            return embedding
        head = self.take("lm_head.weight", *shape)
        if tied and not torch.equal(head, embedding):
            raise UserError(
                f"lm_head.weight in {WEIGHTS} differs from the embedding, but config.json says (or leaves as the "
                "default) tie_word_embeddings=true; versions of transformers disagree on what that means. Write "
                '"tie_word_embeddings": false into config.json if the head is a matrix of its own'
            )
        return head

    def require_empty(self, buffers: str) -> None:
        """Raises UserError if a tensor is left, except the constant `buffers` (a pattern) that old versions saved."""
        left = [name for name in self.state if not re.fullmatch(buffers, name)]
        if left:
            more = f" and {len(left) - 1} more tensors" if len(left) > 1 else ""
            raise UserError(
                f"{WEIGHTS} has {left[0]}{more}, for which the model has no place: config.json says {self.decisive}"
            )
