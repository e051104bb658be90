"""Deeper models out of trained ones: a block is inserted so that nothing changes at first."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.model import GPT, GPTConfig


def insert_layer(data: dict[str, Any], at: int, seed: int = 1337) -> dict[str, Any]:
    """A raw training checkpoint (checkpoint.read) with one block more, in front of block `at`, that computes the same.

    The new block's output projections are zero, so it adds nothing to the stream until it has learnt to; its other
    matrices are drawn from `seed`. The optimizer keeps what it knows of all other weights. Raises UserError when there
    is no such place.
    """
    config = GPTConfig(**data["lm"]["model"])
    if not 0 <= at <= config.n_layer:
        raise UserError(f"at={at} must be from 0 (in front of all) to {config.n_layer} (behind all)")
    if config.norm_stream:
        raise UserError("model.norm_stream=true: a block that adds nothing still normalises, so none can be inserted")
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
    average: dict[str, Tensor] = data["lm"].get("average", {})
    if average:  # a tied head has none of its own
        kept = [n for n in fresh if (was := source(n)) is None or was in average]
        average = {n: fresh[n] if (was := source(n)) is None else average[was] for n in kept}
    data["lm"] = {**data["lm"], "average": average, "model": {**data["lm"]["model"], "n_layer": bigger.n_layer}}
    for callback in data["callbacks"].values():
        if "best" in callback:
            callback["best"] = {}  # of another model
    with torch.device("meta"):
        names = [name for name, _ in GPT(bigger, vocab_size).named_parameters()]
    kin = {name: source(name) or re.sub(r"\d+", "0", name, count=1) for name in names}
    optimizers = [grown(optimizer, kin, source) for optimizer in data["optimizer_states"]]
    return data | {"optimizer_states": optimizers}


def grown(saved: dict[str, Any], kin: dict[str, str], source: Callable[[str], str | None]) -> dict[str, Any]:
    """An optimizer's saved state for the bigger model: a new weight joins its `kin`'s group (new name -> old name), and
    has no state yet."""
    numbers = {n: i for g in saved["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    groups, state, i = [], {}, 0
    for group in saved["param_groups"]:
        names = [name for name, old in kin.items() if old in group["param_names"]]
        for k, name in enumerate(names, start=i):
            if (was := source(name)) is not None and numbers[was] in saved["state"]:
                state[k] = saved["state"][numbers[was]]
        groups.append({**group, "params": list(range(i, i + len(names))), "param_names": names})
        i += len(names)
    return {**saved, "state": state, "param_groups": groups}
