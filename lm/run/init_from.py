"""Start a model from another's weights: blocks as they are, embeddings by token, positions as far as they reach."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer, spellings
from lm.model import GPT, GPTConfig
from lm.model.layers import make_norm, mlp_width
from lm.run.checkpoint import Checkpoint, read

# What may differ: no other function of the same weights, or another number of rows.
NON_SHAPE_FIELDS = ("dropout", "init", "recompute_every", "block_size", "vocab_multiple")


@dataclass
class LoadReport:
    """What became of each tensor of the new model, by its name in the state dict."""

    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)  # and how much of it was there
    fresh: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{name} resized ({how})" for name, how in self.resized.items()]
        parts += [f"{name} fresh" for name in self.fresh]
        return "; ".join(parts)


def load_weights(model: GPT, tokenizer: Tokenizer, source: Checkpoint) -> LoadReport:
    """Start `model` from a checkpoint, perhaps under another tokenizer and context.

    A token keeps its embedding and its row of the head if the old vocabulary has one of the same bytes; the others, and
    positions beyond the old context, stay as they were initialised (femtoGPT's `init-with` makes all of them anew).
    Raises UserError, with the difference, when the blocks are not of the same shape.
    """
    mine, other = effective(source.model.config), effective(model.config)
    if mlp_width(source.model.config) == mlp_width(model.config):
        mine["mlp_ratio"] = other["mlp_ratio"]  # Llama's exports say it in whole tiles
    shaping = [key for key in mine if not key.startswith(NON_SHAPE_FIELDS) and mine[key] != other[key]]
    if shaping:
        table = "\n".join(f"  model.{key}={other[key]}, but the checkpoint has {mine[key]}" for key in shaping)
        raise UserError(f"init_from={source.path} is another model:\n{table}")
    old, new, found = source.model.state_dict(), model.state_dict(), LoadReport()
    V = tokenizer.vocab_size
    rows, old_rows = shared_tokens(tokenizer, source.tokenizer)
    same_vocabulary = len(rows) == V == source.tokenizer.vocab_size and bool(torch.equal(rows, old_rows))
    for name, tensor in new.items():
        if name == "head.weight" and model.config.tie_embeddings:
            continue  # it is wte.weight
        if name.startswith(("wte", "head")):
            tensor[rows] = old[name][old_rows]
            whole, how = same_vocabulary, f"{len(rows):,} of {V:,} tokens known"
        elif name.startswith("wpe"):
            T = min(len(tensor), len(old[name]))
            tensor[:T] = old[name][:T]
            whole, how = len(tensor) == len(old[name]), f"{T:,} of {len(tensor):,} positions known"
        else:
            tensor.copy_(old[name])
            whole, how = True, ""
        if whole:
            found.loaded.append(name)
        elif how.startswith("0 "):
            found.fresh.append(name)
        else:
            found.resized[name] = how
    return found


def effective(config: GPTConfig) -> dict[str, Any]:
    """Return the fields with null replaced by what it stands for, as one model can be written in several ways."""
    return asdict(config) | {
        "n_kv_head": config.n_kv_head or config.n_head,
        "norm_eps": make_norm(config).eps,
        "bias": None,  # only the default of these
        "bias_qkv": config.biased("qkv"),
        "bias_proj": config.biased("proj"),
        "bias_mlp": config.biased("mlp"),
        "bias_norm": config.norm == "layernorm" and config.norm_gain and config.biased("norm"),
    }


def load_optimizer_state(source: Checkpoint, found: LoadReport, kind: str) -> Callable[[torch.optim.Optimizer], None]:
    """What gives an optimizer of this kind the state that the source's has of each tensor that was `found` whole.

    An embedding with other padding (model.vocab_multiple) gets none, as the state has the shape of the tensor. Raises
    UserError when the source has none of this kind.
    """
    data = read(source.path) if source.path.is_file() else {}
    theirs = data.get("lm", {}).get("optimizer")
    if theirs != kind:
        was = "no optimizer's state" if theirs is None else f"that of {theirs.removesuffix('Config')}"
        raise UserError(f"init_optimizer=keep: {source.path} holds {was}; init_optimizer=new does without")
    (saved,) = data["optimizer_states"]
    numbers = {n: i for g in saved["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    shapes = {name: p.shape for name, p in source.model.named_parameters()}

    def begin(optimizer: torch.optim.Optimizer) -> None:
        own = optimizer.state_dict()
        for group, parameters in zip(own["param_groups"], optimizer.param_groups, strict=True):
            for name, i, p in zip(group["param_names"], group["params"], parameters["params"], strict=True):
                if name in found.loaded and numbers[name] in saved["state"] and p.shape == shapes[name]:
                    own["state"][i] = copy.deepcopy(
                        saved["state"][numbers[name]]
                    )  # what is read is mapped from the file
        optimizer.load_state_dict(own)

    return begin


def shared_tokens(new: Tokenizer, old: Tokenizer) -> tuple[Tensor, Tensor]:
    """The ids (K,) of tokens that both vocabularies have, in the new one and in the old one.

    Several ids can have one spelling, such as `A` and the byte `<0x41>` in Llama's files. Such an id is paired with
    itself if the old vocabulary spells it in the same way, and with the first of that spelling otherwise.
    """
    theirs, known = spellings(old), dict[bytes, int]()
    for i, spelling in theirs.items():
        known.setdefault(spelling, i)
    pairs = [
        (i, i if theirs.get(i) == spelling else known[spelling])
        for i, spelling in spellings(new).items()
        if spelling in known
    ]
    both = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)  # (K, 2)
    return both[:, 0], both[:, 1]
