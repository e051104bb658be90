"""Grow a trained model: insert a block that does not change the output at first."""

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
from lm.model.meta import without_numbers


def insert_layer(data: dict[str, Any], at: int, seed: int = 1337) -> dict[str, Any]:
    """Return a raw training checkpoint (checkpoint.read) with a new block before block `at`. Its output is the same.

    The output projections of the new block are zero, so it adds nothing to the stream until it has been trained. Its
    other matrices are initialized from `seed`. The optimizer keeps its state for all other weights. Raises UserError
    if `at` is out of range, or if the model does not allow it.
    """
    config = GPTConfig(**data["lm"]["model"])
    if not 0 <= at <= config.n_layer:
        raise UserError(f"at={at} must be from 0 (before the first block) to {config.n_layer} (after the last block)")
    if config.norm_stream:
        raise UserError(
            "a model with model.norm_stream=true cannot grow: the new block would normalize the residual stream, "
            "which changes the output"
        )
    larger, vocab_size = replace(config, n_layer=config.n_layer + 1), data["lm"]["vocab_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = GPT(replace(larger, init="zero_proj"), vocab_size).state_dict()

    def old_name(name: str) -> str | None:
        """Return the name that a weight of the larger model has in the smaller one; None if it is new."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None or int(match[1]) < at:
            return name
        return None if int(match[1]) == at else f"blocks.{int(match[1]) - 1}.{match[2]}"

    weights: dict[str, Tensor] = data["state_dict"]
    state = {f"model.{n}": fresh[n] if (source := old_name(n)) is None else weights[f"model.{source}"] for n in fresh}
    data = {**data, "state_dict": state, "callbacks": copy.deepcopy(data["callbacks"])}
    average: dict[str, Tensor] = data["lm"].get("average", {})
    if average:  # it has no entry for a tied head
        averaged = [n for n in fresh if (source := old_name(n)) is None or source in average]
        average = {n: fresh[n] if (source := old_name(n)) is None else average[source] for n in averaged}
    data["lm"] = {**data["lm"], "average": average, "model": {**data["lm"]["model"], "n_layer": larger.n_layer}}
    for callback in data["callbacks"].values():
        if "best" in callback:
            callback["best"] = {}  # the best checkpoint belongs to the smaller model
    with without_numbers():
        names = [name for name, _ in GPT(larger, vocab_size).named_parameters()]
    group_sources = {name: old_name(name) or re.sub(r"\d+", "0", name, count=1) for name in names}
    optimizers = [extend_optimizer_state(optimizer, group_sources, old_name) for optimizer in data["optimizer_states"]]
    return data | {"optimizer_states": optimizers}


def extend_optimizer_state(
    saved: dict[str, Any], group_sources: dict[str, str], old_name: Callable[[str], str | None]
) -> dict[str, Any]:
    """Return the saved state of an optimizer for the larger model.

    `group_sources` maps each parameter of the larger model to one of the smaller model, whose group it joins. A new
    parameter has no state yet.
    """
    numbers = {n: i for g in saved["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    groups, state, i = [], {}, 0
    for group in saved["param_groups"]:
        names = [name for name, old in group_sources.items() if old in group["param_names"]]
        for k, name in enumerate(names, start=i):
            if (source := old_name(name)) is not None and numbers[source] in saved["state"]:
                state[k] = saved["state"][numbers[source]]
        groups.append({**group, "params": list(range(i, i + len(names))), "param_names": names})
        i += len(names)
    return {**saved, "state": state, "param_groups": groups}
