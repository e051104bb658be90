"""Deeper models out of trained ones: a block is inserted so that nothing changes at first."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lm.model import GPT, GPTConfig
from lm.optim import param_groups


def insert_layer(data: dict[str, Any], at: int, seed: int = 1337) -> dict[str, Any]:
    """A raw training checkpoint (checkpoint.read) with one block more, in front of block `at`, that computes the same.

    The new block's output projections are zero, so it adds nothing to the stream until it has learnt to; its other
    matrices are drawn from `seed`. The optimizer keeps what it knows of all other weights. Raises ValueError when there
    is no such place.
    """
    config = GPTConfig(**data["lm"]["model"])
    if not 0 <= at <= config.n_layer:
        raise ValueError(f"at={at} must be from 0 (in front of all) to {config.n_layer} (behind all)")
    bigger, vocab_size = replace(config, n_layer=config.n_layer + 1), data["lm"]["vocab_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = GPT(replace(bigger, init="zero_proj"), vocab_size).state_dict()

    def source(name: str) -> str | None:
        """What a weight of the bigger model was called in the smaller one; None: it is new."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None or int(match[1]) < at:
            return name
        return None if int(match[1]) == at else f"blocks.{int(match[1]) - 1}.{match[2]}"

    old: dict[str, Tensor] = data["state_dict"]
    state = {f"model.{n}": fresh[n] if (was := source(n)) is None else old[f"model.{was}"] for n in fresh}
    data = {**data, "state_dict": state, "callbacks": copy.deepcopy(data["callbacks"])}
    data["lm"] = {**data["lm"], "model": {**data["lm"]["model"], "n_layer": bigger.n_layer}}
    for callback in data["callbacks"].values():
        if "best" in callback:
            callback["best"] = {}  # of another model
    with torch.device("meta"):
        before, after = numbered(GPT(config, vocab_size)), numbered(GPT(bigger, vocab_size))
    numbers = {name: i for group in before for i, name in group.items()}
    states = []
    for optimizer in data["optimizer_states"]:
        known = {i: optimizer["state"][numbers[was]] for group in after for i, name in group.items()
                 if (was := source(name)) is not None and numbers[was] in optimizer["state"]}  # fmt: skip
        groups = [{**g, "params": list(ids)} for g, ids in zip(optimizer["param_groups"], after, strict=True)]
        states.append({**optimizer, "state": known, "param_groups": groups})
    return data | {"optimizer_states": states}


def numbered(model: nn.Module) -> list[dict[int, str]]:
    """An optimizer's groups: number -> name of each parameter, as its saved state counts them."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups, i = [], 0
    for group in param_groups(model, 0.0):
        groups.append({i + k: names[id(p)] for k, p in enumerate(group["params"])})
        i += len(group["params"])
    return groups
