"""Take the tensors of a model.safetensors one by one, and detect tensors that are left."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.model.huggingface.settings import format_json

WEIGHTS = "model.safetensors"


class Weights:
    """The tensors of a model by name, without `prefix`, which only some versions of transformers write.

    `sizes` maps names of sizes to numbers. `decisive` are the settings that determine which tensors a model has; error
    messages show them.
    """

    def __init__(self, state: dict[str, Tensor], prefix: str, sizes: dict[str, int], decisive: dict[str, Any]) -> None:
        self.state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        self.sizes, self.decisive = sizes, ", ".join(f"{key}={format_json(value)}" for key, value in decisive.items())
        if len(self.state) < len(state):
            raise UserError(f"{WEIGHTS} contains a tensor twice, with and without the prefix {prefix}")

    def take(self, name: str, *shape: str) -> Tensor:
        """Remove and return a tensor. `shape` names its sizes. Raises UserError if there is none of this shape."""
        if name not in self.state:
            raise UserError(f"{WEIGHTS} has no {name}, but config.json says {self.decisive}")
        tensor = self.state.pop(name)
        if list(tensor.shape) != [self.sizes[size] for size in shape]:
            expected = ", ".join(f"{size}={self.sizes[size]}" for size in shape)
            raise UserError(f"{name} in {WEIGHTS} has shape {list(tensor.shape)}, but config.json says {expected}")
        if not tensor.is_floating_point():
            raise UserError(f"{name} in {WEIGHTS} has dtype {tensor.dtype}, which is not a floating-point type")
        return tensor

    def take_head(self, embedding: Tensor, tied: bool, *shape: str) -> Tensor:
        """Remove and return the output head, which is the embedding when the two are tied."""
        if tied and "lm_head.weight" not in self.state:
            return embedding
        head = self.take("lm_head.weight", *shape)
        if tied and not torch.equal(head, embedding):
            raise UserError(
                f"lm_head.weight in {WEIGHTS} differs from the embedding, but config.json says (or leaves as the "
                "default) tie_word_embeddings=true; versions of transformers handle this differently. If the "
                'head is a separate matrix, write "tie_word_embeddings": false into config.json'
            )
        return head

    def require_empty(self, buffers: str) -> None:
        """Check that no tensor is left, except constants of old versions, which match the pattern `buffers`.

        Raises UserError otherwise.
        """
        left = [name for name in self.state if not re.fullmatch(buffers, name)]
        if left:
            more = f" and {len(left) - 1} more tensors" if len(left) > 1 else ""
            raise UserError(
                f"{WEIGHTS} has {left[0]}{more}, which the model does not use: config.json says {self.decisive}"
            )
