"""GPT: a decoder-only transformer, usable from a bare REPL.

Shapes: B batch, T time, C width (n_embd), H heads, D head width (C/H), V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.attention import attend, document_mask
from lm.check import Check

Rope = tuple[Tensor, Tensor] | None  # cosines and sines


@dataclass
class GPTConfig:
    """The defaults are GPT-2's choices; the vocabulary is no field, as the tokenizer decides it."""

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024  # context: the most tokens the model sees at once
    dropout: float = 0.0  # of embeddings, attention weights and both residual branches; off in eval
    bias: bool = True  # in linears and layer norms
    position: str = "learned"  # learned | rope
    norm: str = "layernorm"  # layernorm | rmsnorm
    mlp: str = "gelu"  # gelu | relu2 | swiglu
    qk_norm: bool = False  # normalise queries and keys (Dehghani et al. 2023): steadier at high learning rates
    tie_embeddings: bool = True  # input embedding and output head are one matrix (Press and Wolf 2017)

    def __post_init__(self) -> None:
        check = Check("model", self)
        for key in ("n_layer", "n_head", "n_embd", "block_size"):
            check.at_least(key, 1)
        check.within("dropout", 0, 1)
        check.one_of("position", ("learned", "rope"))
        check.one_of("norm", ("layernorm", "rmsnorm"))
        check.one_of("mlp", ("gelu", "relu2", "swiglu"))
        if not check.problems:
            multiple = self.n_head * max(1, round(self.n_embd / self.n_head))
            divisible = self.n_embd % self.n_head == 0
            check.that(divisible, "n_embd", f"be divisible by model.n_head={self.n_head}, e.g. {multiple}")
            even = not divisible or self.position != "rope" or self.n_embd // self.n_head % 2 == 0
            check.that(even, "n_embd", f"give heads of even width under rope, e.g. {2 * multiple}")
        check.done()


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V), with T <= config.block_size.

    `backend` is how attention is computed (lm/attention.py); it changes no parameter.
    """

    cos: Tensor  # (T, D/2), under rope
    sin: Tensor

    def __init__(self, config: GPTConfig, vocab_size: int, backend: str = "auto") -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        C = config.n_embd
        self.wte = nn.Embedding(vocab_size, C)
        self.wpe = nn.Embedding(config.block_size, C) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, backend) for _ in range(config.n_layer))
        self.norm = make_norm(config)
        self.head = nn.Linear(C, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.wte.weight
        if config.position == "rope":
            cos, sin = rope_tables(config.block_size, C // config.n_head)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """`documents` (B, T), the number of the document that a token belongs to, keeps attention within it."""
        return self.head(self.features(ids, documents))  # (B, T, V)

    def features(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """What the head reads: ids (B, T) -> (B, T, C)."""
        T = ids.size(1)
        assert self.config.block_size >= T, f"{T} tokens exceed the context of {self.config.block_size}"
        x = self.wte(ids)  # (B, T, C)
        rope = None
        if self.wpe is not None:
            x = x + self.wpe.weight[:T]
        else:
            rope = (self.cos[:T], self.sin[:T])
        x = self.drop(x)
        mask = None if documents is None else document_mask(documents)
        for block in self.blocks:
            x = block(x, rope, mask)
        return self.norm(x)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start at a loss within 2 % of ln V, with a residual stream that does not grow with depth.

        | tensor            | distribution                       | why                                              |
        |-------------------|------------------------------------|--------------------------------------------------|
        | wte, wpe, head    | N(0, s), s at most GPT-2's 0.02    | logits of variance C s^2 cost half of it in loss |
        | c_attn, c_fc      | N(0, 0.02)                         | GPT-2                                            |
        | c_proj            | N(0, 0.02 / sqrt(2 n_layer))       | GPT-2: 2 n_layer branches add into the stream    |
        | biases, gains     | 0, 1                               |                                                  |
        """
        cost = 0.012 * math.log(self.vocab_size)  # nats above ln V; smaller logits than need be would learn slower
        s = min(0.02, math.sqrt(2 * cost / self.config.n_embd))
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.zero_()
            elif p.dim() == 1:
                p.fill_(1.0)
            elif name.startswith(("wte", "wpe", "head")):
                p.normal_(0.0, s)
            elif name.endswith("c_proj.weight"):
                p.normal_(0.0, 0.02 / math.sqrt(2 * self.config.n_layer))
            else:
                p.normal_(0.0, 0.02)

    @property
    def num_params(self) -> int:
        """Trainable numbers, a tied matrix counted once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token of a full context.

        Six for every weight that multiplies (Kaplan et al. 2020; a lookup multiplies nothing, the head does), and 12
        L C T for the two attention products over T positions, masked ones included (PaLM, Chowdhery et al. 2022).
        """
        c = self.config
        matrices = sum(p.numel() for n, p in self.named_parameters() if p.dim() == 2 and n.startswith("blocks"))
        return 6 * (matrices + self.head.weight.numel()) + 12 * c.n_layer * c.n_embd * c.block_size


class Block(nn.Module):
    def __init__(self, config: GPTConfig, backend: str) -> None:
        super().__init__()
        self.norm_1 = make_norm(config)
        self.attn = Attention(config, backend)
        self.norm_2 = make_norm(config)
        self.mlp = (SwiGLU if config.mlp == "swiglu" else MLP)(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.drop(self.attn(self.norm_1(x), rope, mask))
        return x + self.drop(self.mlp(self.norm_2(x)))


class Attention(nn.Module):
    def __init__(self, config: GPTConfig, backend: str) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head, self.dropout, self.qk_norm, self.backend = config.n_head, config.dropout, config.qk_norm, backend
        self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)
        self.c_proj = nn.Linear(C, C, bias=config.bias)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None = None) -> Tensor:
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        y = attend(q, k, v, self.backend, self.dropout if self.training else 0.0, mask)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Four times as wide inside; gelu (exact), or relu squared (So et al. 2021)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.squared = config.mlp == "relu2"
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)  # (B, T, 4C)
        return self.c_proj(x.relu().square() if self.squared else F.gelu(x))


class SwiGLU(nn.Module):
    """A gated MLP (Shazeer 2020), two thirds as wide so that it has the parameters of the plain one."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = 64 * math.ceil(8 * config.n_embd / 3 / 64)  # whole tiles of a GPU's matrix unit
        self.c_fc = nn.Linear(config.n_embd, 2 * hidden, bias=config.bias)
        self.c_proj = nn.Linear(hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.c_fc(x).chunk(2, dim=-1)  # each (B, T, hidden)
        return self.c_proj(F.silu(gate) * up)


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rmsnorm":  # Zhang and Sennrich 2019
        return nn.RMSNorm(config.n_embd, eps=1e-6)
    return nn.LayerNorm(config.n_embd, bias=config.bias)


def rope_tables(T: int, D: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021): two tensors (T, D/2)."""
    frequency = 10000.0 ** (-torch.arange(0, D, 2) / D)  # (D/2,)
    angle = torch.outer(torch.arange(T), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[d], x[d + D/2]) of a head by its position's angle: (B, H, T, D) -> (B, H, T, D)."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
