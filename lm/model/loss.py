"""Cross-entropy over a large vocabulary without holding all logits in memory.

The head and the loss are one operation, which processes the tokens in chunks. It computes the gradients in the same
pass as the loss, so that the logits of a chunk can be freed before those of the next are computed (Hsu et al. 2024,
Liger Kernel, do this on a GPU). Only the gradients of the features and of the head are saved for the backward pass,
which are C instead of V numbers per token. If one chunk is enough, autograd computes the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.checks import Check
from lm.data.batches import IGNORE

CHUNK = 1 << 22  # default number of logits in a chunk
TOKENS = 1024  # lowest default number of tokens in a chunk: smaller matrix products do not use the device fully


@dataclass
class LossConfig:
    """Settings of the training objective.

    train/loss and val/loss are always plain cross-entropy, so that runs can be compared.
    """

    label_smoothing: float = 0.0  # share of the target that is spread over all tokens (Szegedy et al. 2016)
    # weight of log^2 Z in the loss, which keeps logits from drifting (Chowdhery et al. 2022 use 1e-4)
    z_loss: float = 0.0
    # compute the logits of this many tokens at a time, to save memory; null: about 4 million logits; 0: all at once
    chunk: int | None = None

    def __post_init__(self) -> None:
        check = Check("loss", self)
        check.within("label_smoothing", 0, 1)
        check.at_least("z_loss", 0)
        check.at_least("chunk", 0)
        check.done()

    def tokens_per_chunk(self, vocab_size: int) -> int | None:
        """Return the number of tokens in a chunk; None means a single chunk for all tokens."""
        return max(TOKENS, CHUNK // vocab_size) if self.chunk is None else self.chunk or None


def head_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    config: LossConfig,
    vocab_size: int,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the objective, a mean in nats per target, and the cross-entropy, a sum in nats.

    Only the objective has a gradient. `x` (N, C) is the input of the head, `weight` (rows, C) with rows >= vocab_size
    and `bias` (rows,) are its parameters. `targets` (N,) is IGNORE for tokens that do not count. Under autocast, matrix
    products run in autocast's dtype and everything else in fp32.
    """
    size = config.tokens_per_chunk(vocab_size) or len(x)
    if len(x) <= size or not torch.is_grad_enabled():
        parts = [
            _sum_losses(F.linear(xs, weight, bias)[:, :vocab_size], ys, config, softcap)
            for xs, ys in zip(x.split(size), targets.split(size), strict=True)
        ]
        objective, nats = (torch.stack(sums).sum() for sums in zip(*parts, strict=True))
        return objective / (targets != IGNORE).sum(), nats.detach()
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        return _Chunked.apply(x, weight, bias, targets, config, vocab_size, softcap, dtype, size)


def apply_softcap(logits: Tensor, cap: float | None) -> Tensor:
    """Limit logits smoothly to plus or minus `cap` (Gemma 2, 2024). None leaves them unchanged."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _sum_losses(logits: Tensor, targets: Tensor, config: LossConfig, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Return the sums of the objective and of the cross-entropy, for autograd. Logits (n, V), targets (n,)."""
    logits = apply_softcap(logits.to(torch.promote_types(logits.dtype, torch.float32)), softcap)
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    objective = nats
    if config.label_smoothing or config.z_loss:
        real, log_z = targets != IGNORE, logits.logsumexp(1)
        spread = torch.where(real, log_z - logits.mean(1), 0).sum()
        objective = (1 - config.label_smoothing) * nats + config.label_smoothing * spread
        objective = objective + config.z_loss * torch.where(real, log_z.square(), 0).sum()
    return objective, nats


class _Chunked(torch.autograd.Function):
    """The loss in chunks of `size` tokens, with the gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, config: LossConfig,
        V: int, softcap: float | None, dtype: torch.dtype, size: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        eps, z = config.label_smoothing, config.z_loss
        wide = torch.promote_types(dtype, torch.float32)  # dtype of sums and of the softmax
        w = weight[:V].to(dtype)  # (V, C)
        b = None if bias is None else bias[:V].to(dtype)
        real = targets != IGNORE  # (N,)
        count = real.sum()
        at = targets.clamp(min=0)[:, None]  # (N, 1)
        dx = torch.empty_like(x, dtype=dtype)
        dw = torch.zeros_like(weight, dtype=wide)
        db = None if bias is None else torch.zeros_like(bias, dtype=wide)
        objective, nats = x.new_zeros(2, dtype=wide).unbind()
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            xs, mask = x[part].to(dtype), real[part]
            logits = F.linear(xs, w, b)  # (n, V)
            if softcap is not None:
                logits = logits.to(wide).div(softcap).tanh_().mul_(softcap)
            grad = F.log_softmax(logits, 1, dtype=wide)  # (n, V): log-probabilities at this point
            nll = -grad.gather(1, at[part])[:, 0]  # (n,)
            log_z = logits[:, 0].to(wide) - grad[:, 0]
            loss = nll if not eps else (1 - eps) * nll - eps * grad.mean(1)
            loss = loss if not z else loss + z * log_z.square()
            nats = nats + torch.where(mask, nll, 0).sum()
            objective = objective + torch.where(mask, loss, 0).sum()
            grad.exp_()  # gradient of the logits: probabilities minus the distribution of the target
            if z:
                grad *= (1 + 2 * z * log_z)[:, None]
            if eps:
                grad -= eps / V
            grad.scatter_add_(1, at[part], grad.new_full((1, 1), eps - 1).expand(len(grad), 1))
            if softcap is not None:
                grad *= logits.div_(softcap).square_().neg_().add_(1)
            del logits  # here and below: free the memory before more is allocated
            g = grad.to(dtype).mul_(mask[:, None])
            del grad
            torch.mm(g, w, out=dx[part])
            dw[:V] += g.mT @ xs
            if db is not None:
                db[:V] += g.sum(0)
            del g
        ctx.save_for_backward(count, dx, dw, *(() if db is None else (db,)))
        ctx.dtype = x.dtype
        ctx.mark_non_differentiable(nats)
        return objective / count, nats

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        count, dx, dw, *db = ctx.saved_tensors
        scale = grad / count
        return (dx.to(ctx.dtype) * scale, dw * scale, db[0] * scale if db else None, *(None,) * 6)
