"""The logit lens: what the model would predict if it stopped after a layer (nostalgebraist 2020).

Shapes: T time, C width, V vocabulary, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lm.analysis.trace import Trace


@dataclass(frozen=True)
class Reading:
    """The prediction after one layer, at every position of a text; tensors (T,)."""

    name: str  # embed, L0, L1, ...: the stream after the embeddings or after that block
    top: Tensor  # the most probable token
    top_prob: Tensor
    next_prob: Tensor  # probability of the token that really follows; nan at the last position
    rank: Tensor  # rank of the model's own first choice, 0 is the first
    kl: Tensor  # KL divergence of this prediction from the model's own, in nats


def streams(trace: Trace) -> list[tuple[str, Tensor]]:
    """Return the residual stream (B, T, C) after the embeddings and after every block, with names."""
    after = [(f"L{i}", layer.resid_post) for i, layer in enumerate(trace.layers)]
    return [("embed", trace.layers[0].resid_pre), *after]


@torch.no_grad()
def logit_lens(trace: Trace) -> list[Reading]:
    """Apply the final norm and the head to the residual stream after every layer. The trace must be of one text."""
    model = trace.model
    final = model.logits(model.norm(trace.layers[-1].resid_post[:1]))[0].float().log_softmax(-1)  # (T, V)
    return [read(name, model.logits(model.norm(x[:1]))[0].float(), final, trace.ids[0]) for name, x in streams(trace)]


def read(name: str, logits: Tensor, final: Tensor, ids: Tensor) -> Reading:
    """Compare logits (T, V) of a layer with the final log-probabilities (T, V) and the text `ids` (T,)."""
    log_probs = logits.log_softmax(-1)
    choice = final.argmax(-1, keepdim=True)
    follows = log_probs[:-1].gather(1, ids[1:, None]).exp()[:, 0]
    kl = (final.exp() * (final - log_probs)).nan_to_num().sum(-1)  # 0 log 0 is 0
    return Reading(
        name, log_probs.argmax(-1), log_probs.amax(-1).exp(), torch.cat((follows, follows.new_full((1,), torch.nan))),
        (log_probs > log_probs.gather(1, choice)).sum(-1), kl,
    )  # fmt: skip
