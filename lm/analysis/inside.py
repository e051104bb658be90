"""Reports on what a model computes: attention, logit lens, attribution, head scores, sizes of the residual stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm.analysis.attribution import attribute
from lm.analysis.figures import Bars, Figure, Heads, Heatmap, Lines, Report
from lm.analysis.heads import KINDS, HeadScores, score_heads
from lm.analysis.lens import logit_lens
from lm.analysis.norms import stream_norms
from lm.analysis.report import clip
from lm.analysis.text import encode_text, token_labels
from lm.analysis.tokens import token_id
from lm.analysis.trace import trace_ids
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.run.checkpoint import Checkpoint, load

NUMBERS = 4_000_000  # most attention weights in a file
TERMS = 12  # terms in a table or figure; the rest is one line
BEST = 5  # heads of each kind in a table
NOT_ATTRIBUTION = "Attention shows where a head reads, not how much that matters; `attribute` measures what it adds."


def choose(name: str, chosen: int | None, count: int) -> Sequence[int]:
    """Return the numbers of the layers or heads to show. Raises UserError for one that is not there."""
    if chosen is not None and not 0 <= chosen < count:
        raise UserError(f"--{name}={chosen} must be from 0 to {count - 1}: the model has {count} {name}s")
    return range(count) if chosen is None else [chosen]


def attention_report(source: Checkpoint, text: str, layer: int | None, head: int | None, patterns: bool) -> Report:
    """Report where each head looks, and with `patterns` the weights themselves.

    Raises UserError for a layer or head that is not there, and if the patterns are too large for a file.
    """
    config = source.model.config
    layers, heads = choose("layer", layer, config.n_layer), choose("head", head, config.n_head)
    trace = trace_ids(source.model, encode_text(source, text))
    T = trace.ids.size(1)
    if patterns and (count := len(layers) * len(heads) * T * T) > NUMBERS:
        raise UserError(
            f"{len(layers) * len(heads)} heads on {T:,} tokens have {count:,} attention weights, more than "
            f"{NUMBERS:,}: choose one with --layer and --head, or shorten the text"
        )
    labels = token_labels(source, trace.ids[0])
    rows, found = [], []
    pictures: dict[str, list[list[float]]] = {}
    for i in layers:
        pattern = trace.layers[i].pattern[0, list(heads)]  # (heads, T, T)
        if patterns:
            found.append(pattern.tolist())
            pictures |= {f"L{i}.H{h}": round_matrix(p) for h, p in zip(heads, pattern, strict=True)}
        entropy = -(pattern * pattern.clamp(min=1e-30).log()).sum(-1).mean(-1)
        previous = pattern.diagonal(-1, 1, 2).sum(-1) / max(1, T - 1)
        itself = pattern.diagonal(0, 1, 2).mean(-1)
        means = (itself, previous, pattern[:, :, 0].mean(-1), entropy)
        rows += [(f"L{i}.H{h}", *(f"{float(x[k]):.3f}" for x in means)) for k, h in enumerate(heads)]
    table = format_table([("head", "itself", "previous", "first", "entropy"), *rows])
    table += "\n\nmean attention to the token itself, the previous and the first one, and mean entropy in nats"
    if len(rows) == 1:
        table += "\n\n" + strongest_keys(labels, trace.layers[layers[0]].pattern[0, heads[0]])
    data: dict[str, Any] = {"tokens": labels, "layers": found}
    if layer is not None or head is not None:
        data |= {"layer": layer, "head": head}
    figures: list[Figure] = [Heads("Attention patterns", labels, pictures)] if patterns else []
    return Report(f"Attention: {clip(text, 60)!r}", data, table, figures, [NOT_ATTRIBUTION])


def round_matrix(values: Tensor) -> list[list[float]]:
    return [[round(x, 4) for x in row] for row in values.tolist()]


def strongest_keys(labels: Sequence[str], pattern: Tensor) -> str:
    """Return a table of the three tokens that each token of a text attends to most, for one pattern (T, T)."""
    top = pattern.topk(min(3, len(labels)), dim=-1)
    rows = [
        (str(i), labels[i], "   ".join(f"{labels[k]} {w:.2f}" for w, k in zip(*row, strict=True) if w > 0.005))
        for i, row in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True))
    ]
    return format_table([("", "token", "attends to"), *rows], numbers=False)


def lens_report(source: Checkpoint, text: str) -> Report:
    """Report what the head reads from the residual stream after every layer."""
    trace = trace_ids(source.model, encode_text(source, text))
    readings, labels = logit_lens(trace), token_labels(source, trace.ids[0])
    chosen = token_labels(source, torch.cat([reading.top for reading in readings]))
    tops = [chosen[i : i + len(labels)] for i in range(0, len(chosen), len(labels))]  # by layer and position
    header = ("", "token", *(reading.name for reading in readings))
    rows = [(str(t), labels[t], *(clip(top[t], 12) for top in tops)) for t in range(len(labels))]
    sums = [("", "KL from the end", *(f"{float(reading.kl.mean()):.3f}" for reading in readings))]
    table = format_table([header, *rows, *sums], numbers=False)
    table += "\n\nthe most probable next token after each layer; KL in nats, mean over positions"
    layers = [
        {
            "name": r.name, "top": r.top.tolist(), "top_text": top, "top_prob": r.top_prob.tolist(),
            "next_prob": r.next_prob.tolist(), "rank": r.rank.tolist(), "kl": r.kl.tolist(),
        }
        for r, top in zip(readings, tops, strict=True)
    ]  # fmt: skip
    names = [reading.name for reading in readings]
    probs = torch.stack([reading.top_prob for reading in readings], 1)  # (T, layers)
    texts = [[clip(top[t], 12) for top in tops] for t in range(len(labels))]
    figure = Heatmap("Most probable next token after each layer", labels, names, round_matrix(probs), "probability",
                     texts=texts)  # fmt: skip
    return Report(f"Logit lens: {clip(text, 60)!r}", {"tokens": labels, "layers": layers}, table, [figure])


def attribution_report(source: Checkpoint, text: str, answer: str, against: str | None) -> Report:
    """Report what each part of the model adds to the logit of `answer` after a text, minus that of `against`.

    Raises UserError for an answer that is not one token, and for a model whose logit is not a sum.
    """
    token = token_id(answer, source.tokenizer)
    other = None if against is None else token_id(against, source.tokenizer)
    trace = trace_ids(source.model, encode_text(source, text))
    found = attribute(trace, token, other)
    named = token_labels(source, torch.tensor([token] if other is None else [token, other]))
    title = f"logit of {named[0]}" if other is None else f"logit of {named[0]} minus logit of {named[1]}"
    terms = sorted(found.terms, key=lambda term: -abs(term.value))
    shown, rest = terms[:TERMS], terms[TERMS:]
    bars = {term.name: term.value for term in shown}
    if rest:
        bars[f"{len(rest)} others"] = sum(term.value for term in rest)
    rows = [*bars.items(), ("sum", sum(bars.values()))]
    table = format_table([("term", title), *((name, f"{value:+.4f}") for name, value in rows)])
    notes = ["The final norm keeps the scale that it has on this text. A head's term includes the bias of its values."]
    if source.model.config.logit_softcap:
        notes.append(f"The logit is the one before the soft cap of {source.model.config.logit_softcap:g}.")
    figure = Bars(title, list(bars), list(bars.values()), "logits")
    data = {
        "tokens": token_labels(source, trace.ids[0]), "answer": named[0], "against": named[1] if named[1:] else None,
        "logit": found.logit, "terms": [asdict(term) for term in found.terms],
    }  # fmt: skip
    return Report(f"Attribution: {clip(text, 60)!r}", data, "\n\n".join([table, *notes]), [figure], notes)


def norms_report(source: Checkpoint, ids: Tensor, name: str) -> Report:
    """Report the sizes of the residual stream and of what attention and MLP add, by layer, on a text (1, T)."""
    layers = stream_norms(trace_ids(source.model, ids))
    names = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "attn_cosine", "mlp_cosine")
    rows = [(f"L{x.layer}", *(f"{getattr(x, name):.4g}" for name in names)) for x in layers]
    table = format_table([("layer", *names), *rows])
    table += "\n\nroot mean square per channel, mean over positions; cosine with the stream that is added to"
    if source.model.config.norm_stream:
        table += "\nmodel.norm_stream=true: the blocks normalize the stream, so that it is not the sum of its branches"
    at = [x.layer for x in layers]
    sizes = {name: [getattr(x, name) for x in layers] for name in names[:5]}
    cosines = {name: [getattr(x, name) for x in layers] for name in names[5:]}
    figures: list[Figure] = [
        Lines("Size of stream and branches", at, "layer", sizes, "root mean square per channel"),
        Lines("Direction of branches", at, "layer", cosines, "cosine with the stream"),
    ]
    return Report(f"Norms: {clip(name, 60)}", {"layers": [asdict(x) for x in layers]}, table, figures)


def heads_report(source: Checkpoint, seed: int, half: int | None) -> Report:
    """Report how strongly each head is an induction, previous-token or duplicate-token head."""
    found = score_heads(source.model, seed, half)
    columns = []
    for kind in KINDS:
        scores, errors = found.scores[kind], found.errors[kind]
        order = scores.flatten().argsort(descending=True)[:BEST].tolist()
        places = [divmod(i, scores.size(1)) for i in order]
        columns.append([kind, *(f"L{i}.H{h} {scores[i, h]:.3f} ± {errors[i, h]:.3f}" for i, h in places)])
    table = format_table(list(zip(*columns, strict=True)), numbers=False)
    table += (
        f"\n\nmean attention on random tokens that are repeated; chance is {found.chance:.3f}"
        f"\nloss {found.first_loss:.3f} where nothing repeats, {found.second_loss:.3f} where copying predicts it"
    )
    L, H = found.scores["induction"].shape
    names = [f"L{i}" for i in range(L)], [f"H{h}" for h in range(H)]
    figures: list[Figure] = [
        Heatmap(f"{kind} score", *names, round_matrix(found.scores[kind]), "mean attention") for kind in KINDS
    ]
    return Report("Attention heads on repeated random tokens", heads_data(found), table, figures)


def heads_data(found: HeadScores) -> dict[str, Any]:
    return {
        "scores": {kind: found.scores[kind].tolist() for kind in KINDS},
        "errors": {kind: found.errors[kind].tolist() for kind in KINDS},
        "chance": found.chance, "first_loss": found.first_loss, "second_loss": found.second_loss,
    }  # fmt: skip


def formation_report(run: Path, seed: int, half: int | None, progress: Callable[[str], None]) -> Report:
    """Report the head scores of every checkpoint of a run, in the order of training.

    Raises UserError if the run has fewer than two checkpoints.
    """
    stages: dict[int, tuple[HeadScores, float]] = {}  # by step: scores and val/loss
    for path in checkpoints_of(run):
        progress(path.name)
        source = load(path)
        if source.step not in stages:
            stages[source.step] = score_heads(source.model, seed, half), source.metrics.get("val/loss", math.nan)
    steps = sorted(stages)
    found, losses = [stages[step][0] for step in steps], [stages[step][1] for step in steps]
    best = {kind: [scores.best(kind) for scores in found] for kind in KINDS}
    rows = [
        (str(step), *(f"L{best[k][i][0]}.H{best[k][i][1]} {best[k][i][2]:.3f}" for k in KINDS),
         f"{x.first_loss:.3f}", f"{x.second_loss:.3f}", f"{loss:.4f}")
        for i, (step, x, loss) in enumerate(zip(steps, found, losses, strict=True))
    ]  # fmt: skip
    table = format_table([("step", *KINDS, "first half", "second half", "val/loss"), *rows])
    table += f"\n\nthe best head of each kind at each checkpoint; chance is {found[0].chance:.3f}"
    curves = {f"best {kind} score": [score for *_, score in best[kind]] for kind in KINDS}
    falls = {"first half": [x.first_loss for x in found], "second half": [x.second_loss for x in found]}
    falls["val/loss of the run"] = losses
    figures: list[Figure] = [
        Lines("Best head of each kind", steps, "step", curves, "mean attention"),
        Lines("Loss on random tokens, their repetition, and the run's text", steps, "step", falls, "nats per token"),
    ]
    data = {
        "checkpoints": [
            {"step": step, "val/loss": loss, **heads_data(x)}
            for step, loss, x in zip(steps, losses, found, strict=True)
        ]
    }
    return Report(f"Attention heads of {run.name} during training", data, table, figures)


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints of a run. Raises UserError if it has fewer than two."""
    paths = sorted((run / "checkpoints").glob("step_*.ckpt"))
    if (last := run / "checkpoints" / "last.ckpt").exists():
        paths.append(last)
    if len(paths) < 2:
        raise UserError(
            f"{run} has no checkpoints of several steps; --checkpoints needs a run directory, trained with "
            "callbacks.checkpoint.keep_last=100"
        )
    return paths
