"""Activation patching: put values of a clean run into a corrupted one, and measure how much of the answer returns.

After Meng et al. 2022, "Locating and Editing Factual Associations in GPT".
Shapes: T time, C width, H heads, L layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.analysis.edits import Edit, edited
from lm.analysis.trace import LayerTrace, record
from lm.base.errors import UserError
from lm.model import GPT

POSITION_SITES = ("resid_pre", "attn_out", "mlp_out")
ROWS = 64  # patched copies of the text in one forward pass


@dataclass(frozen=True)
class Patches:
    """The metric at the last position after patching: the logit of the answer minus that of the other token."""

    clean: float  # the metric of the clean text
    corrupted: float  # the metric of the corrupted text
    positions: dict[str, Tensor]  # by site: (L, T), one layer and position patched
    heads: Tensor  # (L, H), the output of one head patched at all positions

    def normalize(self, metric: Tensor) -> Tensor:
        """Return 0 for the corrupted and 1 for the clean metric; nan if they are equal."""
        span = self.clean - self.corrupted
        return (metric - self.corrupted) / span if span else torch.full_like(metric, torch.nan)


@torch.no_grad()
def patch(model: GPT, clean: Tensor, corrupted: Tensor, answer: int, against: int | None = None) -> Patches:
    """Patch every site of the `corrupted` text (1, T) with its value in the `clean` text (1, T), one at a time.

    Raises UserError if the texts differ in length, because positions would not correspond.
    """
    if clean.shape != corrupted.shape:
        raise UserError(
            f"the texts have {clean.size(1)} and {corrupted.size(1)} tokens: positions correspond only in texts of "
            "equal length"
        )

    def metric(logits: Tensor) -> Tensor:
        last = logits[:, -1].double()  # (B, V)
        return last[:, answer] - (0 if against is None else last[:, against])

    with record(model) as trace:
        at_best = float(metric(model(clean)))
    T, L, H = clean.size(1), model.config.n_layer, model.config.n_head
    positions = {site: torch.empty(L, T, dtype=torch.float64) for site in POSITION_SITES}
    heads = torch.empty(L, H, dtype=torch.float64)
    for i, layer in enumerate(trace.layers):
        for site in POSITION_SITES:
            for places in torch.arange(T, device=clean.device).split(ROWS):
                with edited(model, [Edit(site, i, put_positions(getattr(layer, site), places))]):
                    positions[site][i, places.cpu()] = metric(model(corrupted.expand(len(places), T))).cpu()
        for numbers in torch.arange(H, device=clean.device).split(ROWS):
            with edited(model, [Edit("z", i, put_heads(layer, numbers))]):
                heads[i, numbers.cpu()] = metric(model(corrupted.expand(len(numbers), T))).cpu()
    return Patches(at_best, float(metric(model(corrupted))), positions, heads)


def put_positions(source: Tensor, places: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a change that puts position `places[b]` of `source` (1, T, C) into row b."""

    def change(x: Tensor) -> Tensor:
        x[torch.arange(len(places), device=x.device), places] = source[0, places]
        return x

    return change


def put_heads(layer: LayerTrace, numbers: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a change that puts head `numbers[b]` of the layer's z at all positions into row b."""

    def change(z: Tensor) -> Tensor:  # (B, T, H, D)
        z[torch.arange(len(numbers), device=z.device), :, numbers] = layer.z[0, :, numbers].transpose(0, 1)
        return z

    return change
