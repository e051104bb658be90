"""Initialize a model from the weights of another: blocks as a whole, embeddings by token, positions by index."""

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

# Fields that may differ: they change neither the function of the weights nor any shape except a number of rows.
NON_SHAPE_FIELDS = ("dropout", "init", "recompute_every", "block_size", "vocab_multiple")


@dataclass
class LoadReport:
    """Names of the new model's tensors in the state dict, by how each was initialized."""

    loaded: list[str] = field(default_factory=list)  # copied entirely
    resized: dict[str, str] = field(default_factory=dict)  # copied in part: name -> how much
    fresh: list[str] = field(default_factory=list)  # nothing copied

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{name} resized ({how})" for name, how in self.resized.items()]
        parts += [f"{name} newly initialized" for name in self.fresh]
        return "; ".join(parts)


def load_weights(model: GPT, tokenizer: Tokenizer, source: Checkpoint) -> LoadReport:
    """Copy the weights of a checkpoint into `model`, which may have another tokenizer and context length.

    A token keeps its embedding and its row of the head if the old vocabulary has a token of the same bytes. Other
    tokens, and positions beyond the old context, keep their new initialization (femtoGPT's `init-with` initializes all
    embeddings again). Raises UserError, with the differences, if the blocks do not have the same shape.
    """
    theirs, ours = resolve_fields(source.model.config), resolve_fields(model.config)
    if mlp_width(source.model.config) == mlp_width(model.config):
        theirs["mlp_ratio"] = ours["mlp_ratio"]  # exports to Llama's format give the width, which is rounded up
    different = [key for key in theirs if not key.startswith(NON_SHAPE_FIELDS) and theirs[key] != ours[key]]
    if different:
        table = "\n".join(f"  model.{key}={ours[key]}, but the checkpoint has {theirs[key]}" for key in different)
        raise UserError(f"init_from={source.path} is a different model:\n{table}")
    old, new, report = source.model.state_dict(), model.state_dict(), LoadReport()
    V = tokenizer.vocab_size
    rows, old_rows = shared_tokens(tokenizer, source.tokenizer)
    same_vocabulary = len(rows) == V == source.tokenizer.vocab_size and bool(torch.equal(rows, old_rows))
    for name, tensor in new.items():
        if name == "head.weight" and model.config.tie_embeddings:
            continue  # the same tensor as wte.weight
        if name.startswith(("wte", "head")):
            tensor[rows] = old[name][old_rows]
            complete, share = same_vocabulary, f"{len(rows):,} of {V:,} tokens known"
        elif name.startswith("wpe"):
            T = min(len(tensor), len(old[name]))
            tensor[:T] = old[name][:T]
            complete, share = len(tensor) == len(old[name]), f"{T:,} of {len(tensor):,} positions known"
        else:
            tensor.copy_(old[name])
            complete, share = True, ""
        if complete:
            report.loaded.append(name)
        elif share.startswith("0 "):
            report.fresh.append(name)
        else:
            report.resized[name] = share
    return report


def resolve_fields(config: GPTConfig) -> dict[str, Any]:
    """Return the fields with null replaced by its meaning, so that equal models have equal fields."""
    return asdict(config) | {
        "n_kv_head": config.n_kv_head or config.n_head,
        "norm_eps": make_norm(config).eps,
        "bias": None,  # only the default of the four below
        "bias_qkv": config.has_bias("qkv"),
        "bias_proj": config.has_bias("proj"),
        "bias_mlp": config.has_bias("mlp"),
        "bias_norm": config.norm == "layernorm" and config.norm_gain and config.has_bias("norm"),
    }


def load_optimizer_state(source: Checkpoint, report: LoadReport, kind: str) -> Callable[[torch.optim.Optimizer], None]:
    """Return a function that loads the source's optimizer state into an optimizer, for each tensor in `report.loaded`.

    An embedding with different padding (model.vocab_multiple) gets no state, because the state has the shape of the
    tensor. `kind` is the class name of the optimizer's config. Raises UserError if the source has no such state.
    """
    data = read(source.path) if source.path.is_file() else {}
    source_kind = data.get("lm", {}).get("optimizer")
    if source_kind != kind:
        content = "no optimizer state" if source_kind is None else f"a state of {source_kind.removesuffix('Config')}"
        needed = kind.removesuffix("Config")
        raise UserError(
            f"init_optimizer=keep needs a state of {needed}, but {source.path} contains {content}; "
            "use init_optimizer=new to start without one"
        )
    (saved,) = data["optimizer_states"]
    numbers = {n: i for g in saved["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    shapes = {name: p.shape for name, p in source.model.named_parameters()}

    def load_state(optimizer: torch.optim.Optimizer) -> None:
        own = optimizer.state_dict()
        for group, parameters in zip(own["param_groups"], optimizer.param_groups, strict=True):
            for name, i, p in zip(group["param_names"], group["params"], parameters["params"], strict=True):
                if name in report.loaded and numbers[name] in saved["state"] and p.shape == shapes[name]:
                    # A copy, because the checkpoint's tensors are memory-mapped from the file.
                    own["state"][i] = copy.deepcopy(saved["state"][numbers[name]])
        optimizer.load_state_dict(own)

    return load_state


def shared_tokens(new: Tokenizer, old: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the ids (K,) of the tokens that both vocabularies have, in the new and in the old vocabulary.

    Several ids can have the same spelling, such as `A` and the byte `<0x41>` in Llama's files. Such an id is paired
    with itself if the old vocabulary has the same spelling for it, and otherwise with the first id of that spelling.
    """
    old_spellings, first_id = spellings(old), dict[bytes, int]()
    for i, spelling in old_spellings.items():
        first_id.setdefault(spelling, i)
    pairs = [
        (i, i if old_spellings.get(i) == spelling else first_id[spelling])
        for i, spelling in spellings(new).items()
        if spelling in first_id
    ]
    both = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)  # (K, 2)
    return both[:, 0], both[:, 1]
