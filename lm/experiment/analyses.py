"""The subcommands of scripts/analyze.py about what a model computes, and the table of all subcommands."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import numpy as np
import torch

from lm.analysis import inside, interventions
from lm.analysis.ablation import KINDS
from lm.analysis.figures import Report
from lm.analysis.labels import FORM
from lm.analysis.text import encode_text
from lm.base.errors import UserError
from lm.base.files import expand_path
from lm.experiment.evaluation import EvaluationOptions, select_text
from lm.experiment.weight_analyses import add_chunks, add_diff, add_tokens, chunks, diff, tokens, weights
from lm.run.checkpoint import load


def attention(args: Namespace) -> Report:
    """Show where each head looks in a text, and with --html or --png the patterns."""
    patterns = bool(args.html or args.png or args.json)
    return inside.attention_report(load(args.run), args.text, args.layer, args.head, patterns)


def add_attention(parser: ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="the text that the model reads")
    parser.add_argument("--layer", type=int, metavar="N", help="only this layer; the first is 0")
    parser.add_argument("--head", type=int, metavar="N", help="only this head of each layer; the first is 0")


def lens(args: Namespace) -> Report:
    """Show what the model would predict if it stopped after each layer (the logit lens)."""
    if args.tuned == (args.text is not None):
        raise UserError("lens needs a text, or --tuned to train on the run's validation text; give one of them")
    if not args.tuned:
        return inside.lens_report(load(args.run), args.text)
    source = load(args.run)
    name, ids, _ = select_text(EvaluationOptions(str(args.run)), source)
    return interventions.tuned_lens_report(source, ids, name, args.windows, report_progress)


def add_lens(parser: ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text that the model reads")
    parser.add_argument("--tuned", action="store_true", help="train a map for each layer on the run's validation text, "
                        "and compare it with the plain lens")  # fmt: skip
    parser.add_argument("--windows", type=int, default=32, metavar="N", help="contexts of the validation text to train "
                        "on (default: 32)")  # fmt: skip


def add_text(parser: ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="the text that the model reads")


def attribute(args: Namespace) -> Report:
    """Divide the logit of the token after a text among embeddings, heads, MLPs and biases."""
    return inside.attribution_report(load(args.run), args.text, args.answer, args.against)


def add_attribute(parser: ArgumentParser) -> None:
    add_text(parser)
    parser.add_argument("answer", metavar="TOKEN", help="a text that is one token, or a token id: '#17'")
    parser.add_argument("--against", metavar="TOKEN", help="explain the difference to the logit of this token")


def patch(args: Namespace) -> Report:
    """Put values of a clean text into a corrupted one, and measure how much of the answer returns."""
    return interventions.patch_report(load(args.run), args.clean, args.corrupted, args.answer, args.against)


def add_patch(parser: ArgumentParser) -> None:
    parser.add_argument("clean", metavar="CLEAN", help="a text after which the model gives the answer")
    parser.add_argument("corrupted", metavar="CORRUPTED", help="a text of as many tokens after which it does not")
    parser.add_argument("--answer", required=True, metavar="TOKEN", help="a text that is one token, or an id: '#17'")
    parser.add_argument("--against", metavar="TOKEN", help="measure the difference to the logit of this token")


def ablate(args: Namespace) -> Report:
    """Measure the loss of a text without each head or MLP, which is replaced by its mean."""
    kinds = tuple(dict.fromkeys(args.sites.split(",")))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"--sites={args.sites}: {unknown[0]!r} must be one of {', '.join(KINDS)}")
    source = load(args.run)
    name, ids, end = select_text(EvaluationOptions(str(args.run), [str(args.text)] if args.text else []), source)
    return interventions.ablation_report(source, ids, name, kinds, args.windows, end, report_progress)


def add_ablate(parser: ArgumentParser) -> None:
    parser.add_argument("--sites", default="heads,mlps", metavar="SITES", help="heads, mlps or both (default)")
    parser.add_argument(
        "--text", type=expand_path, metavar="FILE", help="a text file (default: the run's validation text)"
    )
    parser.add_argument("--windows", type=int, default=16, metavar="N", help="contexts of the text (default: 16)")


def probe(args: Namespace) -> Report:
    """Train linear probes on every layer to predict the labels of a JSONL file."""
    return interventions.probe_report(load(args.run), args.labels, args.seed)


def add_probe(parser: ArgumentParser) -> None:
    parser.add_argument("labels", type=expand_path, metavar="LABELS.jsonl", help=f"each line is {FORM}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the division of the texts and of the "
                        "control task (default: 0)")  # fmt: skip


def features(args: Namespace) -> Report:
    """Train a sparse autoencoder on the residual stream, and show where its features are active."""
    source = load(args.run)
    name, ids, end = select_text(EvaluationOptions(str(args.run)), source)
    return interventions.features_report(
        source, ids, name, args.layer, args.ratio, args.active, args.windows, args.top, args.seed, end
    )


def add_features(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--layer", type=int, metavar="N", help="the stream before this layer (default: the middle one)")
    add("--ratio", type=int, default=8, metavar="N", help="features per channel of the model (default: 8)")
    add("--active", type=int, default=16, metavar="N", help="active features per token, on average (default: 16)")
    add("--windows", type=int, default=128, metavar="N", help="contexts of the run's validation text (default: 128)")
    add("--top", type=int, default=20, metavar="N", help="number of features to show (default: 20)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the initialization and the batches (default: 0)")


def report_progress(name: str) -> None:
    """Show the name of the current part in a terminal; the next text overwrites it."""
    if sys.stderr.isatty():
        print(f"{name:<20}\r", end="", file=sys.stderr, flush=True)


def heads(args: Namespace) -> Report:
    """Score all heads on repeated random tokens: induction, previous-token and duplicate-token heads."""
    if not args.checkpoints:
        return inside.heads_report(load(args.run), args.seed, args.repeat)
    return inside.formation_report(args.run, args.seed, args.repeat, report_progress)


def add_heads(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoints", action="store_true", help="score every checkpoint of the run")
    parser.add_argument("--repeat", type=int, metavar="N", help="random tokens that are repeated (default: as many as "
                        "fit, at most 64)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random tokens (default: 0)")


def norms(args: Namespace) -> Report:
    """Show the size of the residual stream and of what each block adds to it."""
    source = load(args.run)
    if args.text is not None:
        return inside.norms_report(source, encode_text(source, args.text), args.text)
    name, ids, _ = select_text(EvaluationOptions(str(args.run)), source)
    first = torch.from_numpy(ids[: source.model.config.block_size].astype(np.int64))
    return inside.norms_report(source, first[None], f"the first {len(first)} tokens of {name}")


def add_norms(parser: ArgumentParser) -> None:
    parser.add_argument("--text", metavar="TEXT", help="the text that the model reads (default: the beginning of the "
                        "run's validation text)")  # fmt: skip


# name: the function that makes the report, and the one that adds its arguments
COMMANDS: dict[str, tuple[Callable[[Namespace], Report], Callable[[ArgumentParser], None]]] = {
    "attention": (attention, add_attention),
    "lens": (lens, add_lens),
    "attribute": (attribute, add_attribute),
    "patch": (patch, add_patch),
    "ablate": (ablate, add_ablate),
    "heads": (heads, add_heads),
    "norms": (norms, add_norms),
    "probe": (probe, add_probe),
    "features": (features, add_features),
    "tokens": (tokens, add_tokens),
    "weights": (weights, lambda parser: None),
    "diff": (diff, add_diff),
    "chunks": (chunks, add_chunks),
}
