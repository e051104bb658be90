"""Write what a model computes on a text as a safetensors file with TransformerLens's names."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lm.analysis.text import encode_text, token_labels
from lm.analysis.trace import Trace, trace_ids
from lm.base.files import atomic_replace
from lm.run import checkpoint


def name_activations(trace: Trace) -> dict[str, Tensor]:
    """Return the values of a trace by the names that TransformerLens's cache has.

    Shapes are TransformerLens's too: q, k, v and z are (B, T, heads, D). With rotary positions, q and k are
    hook_rot_q and hook_rot_k, since they are those after the rotation.
    """
    found = {"hook_embed": trace.embed, "ln_final.hook_normalized": trace.normalized}
    if trace.pos_embed is not None:
        found["hook_pos_embed"] = trace.pos_embed.expand_as(trace.embed)
    rotated = "rot_" if trace.model.config.position == "rope" else ""
    for i, layer in enumerate(trace.layers):
        for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"):
            found[f"blocks.{i}.hook_{name}"] = getattr(layer, name)
        heads = {f"{rotated}q": layer.q, f"{rotated}k": layer.k, "v": layer.v}
        found |= {f"blocks.{i}.attn.hook_{name}": x.transpose(1, 2) for name, x in heads.items()}
        found[f"blocks.{i}.attn.hook_z"] = layer.z
        found[f"blocks.{i}.attn.hook_pattern"] = layer.pattern
    return found


def export_activations(run: Path, text: str, out: Path | None) -> dict[str, Any]:
    """Write the activations of a text, and return the path, the format and the size in bytes.

    The file is `activations.safetensors` in the directory of the run or the file, unless `out` names another. Its
    metadata has the text, its tokens and the configuration of the model. Raises UserError for a text that is empty or
    too long.
    """
    source = checkpoint.load(run)
    location = Path(str(run).removeprefix("hf:")).expanduser()
    out = out or (location if location.is_dir() else location.parent) / "activations.safetensors"
    ids = encode_text(source, text)
    trace = trace_ids(source.model, ids)
    tokens = json.dumps(token_labels(source, ids[0]))
    metadata = {"text": text, "tokens": tokens, "model": json.dumps(asdict(source.model.config))}
    with atomic_replace(out) as temporary:
        save_file({name: x.contiguous().clone() for name, x in name_activations(trace).items()}, temporary, metadata)
    return {"out": str(out), "format": "activations", "bytes": out.stat().st_size}
