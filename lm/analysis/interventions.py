"""Reports on patching, ablation, tuned lens, probes and sparse autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lm.analysis.ablation import ablate
from lm.analysis.figures import Bars, Figure, Heatmap, Lines, Report
from lm.analysis.inside import round_matrix
from lm.analysis.labels import label_numbers, read_labels
from lm.analysis.lens import streams
from lm.analysis.patching import patch
from lm.analysis.probes import probe
from lm.analysis.sparse import measure_quality, stream_before, train_autoencoder
from lm.analysis.text import encode_text, token_labels
from lm.analysis.tokens import token_id
from lm.analysis.trace import trace_ids
from lm.analysis.tuned_lens import tune
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.run.checkpoint import Checkpoint

SHOWN = 10  # rows of a table of patches
LITTLE = 0.1  # logits by which two texts should differ
BEFORE, EXAMPLES = 8, 3  # tokens before an example of a feature, and number of examples


def patch_report(source: Checkpoint, clean: str, corrupted: str, answer: str, against: str | None) -> Report:
    """Report how much of the answer each site of the clean text restores in the corrupted one."""
    token = token_id(answer, source.tokenizer)
    other = None if against is None else token_id(against, source.tokenizer)
    texts = encode_text(source, clean), encode_text(source, corrupted)
    found = patch(source.model, *texts, token, other)
    labels = [
        a if a == b else f"{a}/{b}" for a, b in zip(*(token_labels(source, ids[0]) for ids in texts), strict=True)
    ]
    L, H = found.heads.shape
    layers, unit = [f"L{i}" for i in range(L)], "of the difference restored"
    raw = found.positions | {"heads": found.heads}
    restored = {site: found.normalize(x) for site, x in raw.items()}
    cells = [
        (f"L{i}.H{j}", "all", site, i, j) if site == "heads" else (f"L{i} {site}", f"{j} {labels[j]}", site, i, j)
        for site, x in raw.items()
        if site != "resid_pre"  # it holds the sum of all others, so it would fill the table
        for i in range(L)
        for j in range(x.size(1))
    ]
    cells.sort(key=lambda cell: -abs(float(raw[cell[2]][cell[3:]]) - found.corrupted))
    rows = [
        (part, place, f"{float(raw[site][i, j]):+.4f}", f"{float(restored[site][i, j]):.3f}")
        for part, place, site, i, j in cells[:SHOWN]
    ]
    name = f"logit of {answer!r}" + ("" if against is None else f" minus {against!r}")
    table = format_table([("patched", "position", name, "restored"), *rows])
    table = f"clean {found.clean:+.4f}, corrupted {found.corrupted:+.4f}\n\n{table}"
    if abs(found.clean - found.corrupted) < LITTLE:
        table += f"\n\nthe texts differ by less than {LITTLE} logits, so what is restored is mostly noise"
    figures: list[Figure] = [
        Heatmap(f"{site}: restored", layers, [f"H{h}" for h in range(H)] if site == "heads" else labels,
                round_matrix(x), unit, signed=True)
        for site, x in restored.items()
    ]  # fmt: skip
    data = {
        "tokens": labels, "clean": found.clean, "corrupted": found.corrupted,
        "raw": {site: x.tolist() for site, x in raw.items()},
        "normalized": {site: x.tolist() for site, x in restored.items()},
    }  # fmt: skip
    return Report(f"Patching: {name}", data, table, figures, ["0 is the corrupted text, 1 the clean one."])


def cut_windows(source: Checkpoint, ids: np.ndarray, count: int, targets: int) -> Tensor:
    """Return `count` windows of a context and `targets` more tokens, spread evenly over a text: (count, T + targets).

    A shorter text gives fewer or shorter windows. Raises UserError for a text of fewer than two tokens.
    """
    if count < 1:
        raise UserError(f"--windows={count} must be at least 1")
    if len(ids) < 2:
        raise UserError(f"the text has {len(ids)} tokens; at least 2 are needed")
    size = min(source.model.config.block_size + targets, len(ids))
    starts = np.unique(np.linspace(0, len(ids) - size, min(count, len(ids) // size)).round().astype(np.int64))
    return torch.from_numpy(np.stack([ids[start : start + size] for start in starts]).astype(np.int64))


def ablation_report(
    source: Checkpoint, ids: np.ndarray, text: str, kinds: tuple[str, ...], count: int, end_of_text: int | None,
    progress: Callable[[str], None],
) -> Report:  # fmt: skip
    """Report the rise of the loss without each head or MLP, on windows of a text."""
    windows = cut_windows(source, ids, count, targets=1)
    loss, singles, joint = ablate(source.model, windows, kinds, end_of_text, progress)
    order = sorted(singles, key=lambda x: -x.rise)
    rows = [(x.name, f"{x.rise:+.4f}", f"{x.error:.4f}") for x in order]
    table = f"loss {loss:.4f} on {windows[:, 1:].numel():,} tokens of {text}\n\n"
    table += format_table([("without", "rise of the loss", "± error"), *rows])
    for kind, together in zip(kinds, joint, strict=True):
        parts = [x.rise for x in singles if (".mlp" in x.name) == (kind == "mlps")]
        table += f"\n\n{together.name} together {together.rise:+.4f}, the sum of the single rises {sum(parts):+.4f}"
    figure = Bars("Rise of the loss without a part", [x.name for x in order], [x.rise for x in order], "nats per token")
    data = {
        "text": text, "tokens": windows[:, 1:].numel(), "loss": loss, "ablated": [asdict(x) for x in singles],
        "joint": [asdict(x) for x in joint],
    }  # fmt: skip
    return Report("Ablation", data, table, [figure], ["A part is replaced by its mean over the text."])


def tuned_lens_report(
    source: Checkpoint, ids: np.ndarray, text: str, count: int, progress: Callable[[str], None]
) -> Report:
    """Report how well the logit lens and a tuned lens predict the model's own prediction, by layer."""
    windows = cut_windows(source, ids, count, targets=0)
    if len(windows) < 2:
        raise UserError("the text holds one window of the context; a tuned lens needs at least 2, to train and to test")
    found = tune(source.model, windows, progress=progress)
    rows = [(x.name, f"{x.logit_kl:.4f}", f"{x.tuned_kl:.4f}") for x in found]
    table = format_table([("layer", "logit lens", "tuned lens"), *rows])
    table += f"\n\nKL divergence from the model's own prediction in nats, on windows of {text} that were not trained on"
    curves = {"logit lens": [x.logit_kl for x in found], "tuned lens": [x.tuned_kl for x in found]}
    title = "KL divergence from the model's own prediction"
    figure = Lines(title, list(range(len(found))), "layer (0: embeddings)", curves, "nats")
    layers = [{"name": x.name, "logit_kl": x.logit_kl, "tuned_kl": x.tuned_kl} for x in found]
    data = {"text": text, "layers": layers}
    return Report("Tuned lens", data, table, [figure])


def probe_report(source: Checkpoint, path: Path, seed: int) -> Report:
    """Report from which layers a linear probe reads the labels of a file."""
    labeled = read_labels(path, source)
    names, labels = label_numbers(labeled.examples)
    documents = torch.tensor([example.document for example in labeled.examples])
    tokens = torch.tensor([int(labeled.texts[e.document][0, e.position]) for e in labeled.examples])
    stages: dict[str, list[Tensor]] = {}
    for number, ids in enumerate(labeled.texts):
        trace = trace_ids(source.model, ids)
        places = [example.position for example in labeled.examples if example.document == number]
        for name, x in streams(trace):
            stages.setdefault(name, []).append(x[0, places])
    found = [probe(name, torch.cat(x), labels, tokens, documents, seed) for name, x in stages.items()]
    rows = [
        (x.layer, f"{x.accuracy:.3f} ± {x.error:.3f}", f"{x.majority:.3f}", f"{x.control:.3f}", f"{x.selectivity:+.3f}")
        for x in found
    ]
    table = format_table([("layer", "accuracy", "majority", "control", "selectivity"), *rows])
    table += f"\n\n{len(names)} labels: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}; "
    table += f"{found[0].examples} test examples of texts that were not trained on"
    curves = {key: [getattr(x, key) for x in found] for key in ("accuracy", "control", "majority")}
    figure = Lines("Accuracy of linear probes", list(range(len(found))), "layer (0: embeddings)", curves, "accuracy")
    data = {"labels": names, "layers": [asdict(x) | {"selectivity": x.selectivity} for x in found]}
    return Report(f"Probes: {path.name}", data, table, [figure])


def features_report(
    source: Checkpoint, ids: np.ndarray, text: str, layer: int | None, ratio: int, active: int, count: int, top: int,
    seed: int, end_of_text: int | None,
) -> Report:  # fmt: skip
    """Report on a sparse autoencoder of the residual stream before a layer, and where its features are active."""
    L, C = source.model.config.n_layer, source.model.config.n_embd
    layer = L // 2 if layer is None else layer
    if not 0 <= layer < L:
        raise UserError(f"--layer={layer} must be from 0 to {L - 1}: the model has {L} layers")
    for name, value in (("ratio", ratio), ("active", active), ("top", top)):
        if value < 1:
            raise UserError(f"--{name}={value} must be at least 1")
    windows = cut_windows(source, ids, count, targets=1)
    if len(windows) < 4:
        raise UserError(f"the text holds {len(windows)} windows of the context; at least 4 are needed")
    held = max(1, len(windows) // 4)
    x = stream_before(source.model, windows[:-held, :-1], layer, end_of_text)  # (B, T, C)
    sae = train_autoencoder(x.flatten(0, 1), ratio * C, min(active, ratio * C), seed)
    quality = measure_quality(sae, source.model, windows[-held:], layer, end_of_text)
    activations = sae.encode(x)  # (B, T, F)
    frequency = (activations > 0).double().mean((0, 1))  # (F,)
    labels = [token_labels(source, row) for row in windows[:-held, :-1]]
    found = []
    for feature in frequency.argsort(descending=True)[: min(top, int((frequency > 0).sum()))].tolist():
        best = activations[..., feature].amax(1).topk(min(EXAMPLES, len(x))).indices.tolist()  # windows
        places = [(b, int(activations[b, :, feature].argmax())) for b in best]
        examples = ["".join(labels[b][max(0, t - BEFORE) : t]) + f"[{labels[b][t]}]" for b, t in places]
        found.append({"feature": feature, "frequency": float(frequency[feature]), "examples": examples})
    rows = [(str(f["feature"]), f"{f['frequency']:.3f}", *f["examples"]) for f in found]
    width = max(map(len, rows), default=2)
    header = ("feature", "active", *(f"example {n + 1}" for n in range(width - 2)))
    table = (
        f"residual stream before layer {layer}: {ratio * C} features, {quality.active:.1f} of them active per token, "
        f"{quality.dead:.0%} never\nexplained variance {quality.explained:.3f}, loss {quality.loss:.4f}, "
        f"{quality.loss_reconstructed:.4f} with the reconstruction, {quality.loss_mean:.4f} with the mean: "
        f"{quality.recovered:.1%} recovered\nmeasured on windows of {text} that were not trained on\n\n"
    ) + format_table([header, *(row + ("",) * (width - len(row)) for row in rows)], numbers=False)
    data = {"text": text, "layer": layer, "features": ratio * C, "quality": asdict(quality), "most_active": found}
    figure = Bars("Share of the tokens at which a feature is active", [row[0] for row in rows],
                  [f["frequency"] for f in found], "of all tokens")  # fmt: skip
    note = "A feature is a direction that training found useful. It need not have a meaning."
    return Report(f"Sparse features before layer {layer}", data, table, [figure], [note])
