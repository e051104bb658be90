"""Independent parts of a block: norms, MLPs, position encodings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.model.config import GPTConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: x.relu().square(),  # So et al. 2021
}


def mlp_width(config: GPTConfig) -> int:
    """Return the number of hidden units of the MLP.

    A gated MLP has two thirds of mlp_ratio * n_embd, rounded up to a multiple of 64, the tile of a GPU's matrix unit.
    """
    hidden = config.mlp_ratio * config.n_embd
    return 64 * math.ceil(2 * hidden / 3 / 64) if config.mlp == "swiglu" else round(hidden)


class MLP(nn.Module):
    """The plain MLP: a linear layer, an activation, a linear layer."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = mlp_width(config)
        self.activation = ACTIVATIONS[config.mlp]
        self.drop = nn.Dropout(config.dropout_mlp)
        with warnings.catch_warnings():  # a model without MLPs has a width of 0, of which torch would warn
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.c_fc = nn.Linear(config.n_embd, hidden, bias=config.has_bias("mlp"))
            self.c_proj = nn.Linear(hidden, config.n_embd, bias=config.has_bias("mlp"))

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.drop(self.activation(self.c_fc(x))))


class SwiGLU(nn.Module):
    """A gated MLP (Shazeer 2020), two thirds as wide, so that it has as many parameters as the plain one."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = mlp_width(config)
        self.c_fc = nn.Linear(config.n_embd, 2 * hidden, bias=config.has_bias("mlp"))
        self.drop = nn.Dropout(config.dropout_mlp)
        self.c_proj = nn.Linear(hidden, config.n_embd, bias=config.has_bias("mlp"))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.c_fc(x).chunk(2, dim=-1)  # each (B, T, hidden)
        return self.c_proj(self.drop(F.silu(gate) * up))


def make_norm(config: GPTConfig) -> nn.Module:
    """Return the norm of a branch or of the head."""
    gain = config.norm_gain
    if config.norm == "rmsnorm":  # Zhang and Sennrich 2019
        return nn.RMSNorm(config.n_embd, eps=config.norm_eps or 1e-6, elementwise_affine=gain)
    return nn.LayerNorm(
        config.n_embd, eps=config.norm_eps or 1e-5, elementwise_affine=gain, bias=gain and config.has_bias("norm")
    )


def rope_tables(T: int, D: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of rotary positions (Su et al. 2021): two tensors (T, D/2)."""
    frequency = theta ** (-torch.arange(0, D, 2) / D)  # (D/2,)
    angle = torch.outer(torch.arange(T), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x[d], x[d + D/2]) of a head by the angle of its position: (B, H, T, D) -> (B, H, T, D)."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def sinusoids(T: int, C: int) -> Tensor:
    """Return fixed positions (Vaswani et al. 2017), (T, C): sines in even channels, cosines in odd ones."""
    cos, sin = rope_tables(T, C)
    return torch.stack((sin, cos), dim=-1).flatten(1)
