"""The subcommands of scripts/analyze.py: their arguments, and the report that each makes of a model."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from lm.analysis import inside, interventions
from lm.analysis.ablation import KINDS
from lm.analysis.difference import compare_checkpoints
from lm.analysis.figures import Report
from lm.analysis.labels import FORM
from lm.analysis.passages import split_passages
from lm.analysis.report import format_difference, format_pairs, format_passages, format_stats
from lm.analysis.tensors import total_stats, weight_stats
from lm.analysis.text import encode_text
from lm.analysis.tokens import nearest_tokens, token_id
from lm.base.errors import UserError
from lm.base.files import expand_path
from lm.data import user_text
from lm.evaluate.score import score
from lm.experiment.evaluation import EvaluationOptions, select_text
from lm.run.checkpoint import load
from lm.run.directory import find_run, parses_special
from lm.run.init_from import shared_tokens

PASSAGES = 10  # default number of passages in the table


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


def tokens(args: Namespace) -> Report:
    """List the tokens whose embeddings are most similar, by cosine."""
    require_at_least("nearest", args.nearest, 1)
    source = load(args.run)
    ids = [token_id(name, source.tokenizer) for name in args.tokens]
    pairs = nearest_tokens(source, args.nearest, ids, args.by_head)
    return Report("Similar tokens", {"pairs": [asdict(pair) for pair in pairs]}, format_pairs(pairs, args.by_head))


def add_tokens(parser: ArgumentParser) -> None:
    parser.add_argument("tokens", nargs="*", metavar="TOKEN", help="a text that is one token, or a token id: '#17'")
    parser.add_argument("--nearest", type=int, default=10, metavar="N", help="number of pairs, or of tokens near each "
                        "TOKEN (default: 10)")  # fmt: skip
    parser.add_argument("--by-head", action="store_true", help="compare the n_embd / n_head channels of each head "
                        "separately")  # fmt: skip


def weights(args: Namespace) -> Report:
    """Print statistics of every tensor."""
    parts = weight_stats(load(args.run).model)
    total = total_stats(parts)
    data = {"tensors": [asdict(part) for part in parts], "total": asdict(total)}
    return Report("Statistics of the weights", data, format_stats(parts, total))


def diff(args: Namespace) -> Report:
    """Measure the difference between RUN and OTHER: the cosine, and the distance ||a - b|| / ||a||."""
    require_at_least("top", args.top, 1)
    run, other = load(args.run), load(args.other)
    difference = compare_checkpoints(run, other, shared_tokens(run.tokenizer, other.tokenizer), args.top)
    data = {"other": str(args.other), **asdict(difference)}
    return Report(f"Difference to {args.other}", data, format_difference(difference))


def add_diff(parser: ArgumentParser) -> None:
    parser.add_argument("other", type=expand_path, metavar="OTHER", help="another run or checkpoint")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="number of tokens whose embeddings differ "
                        "most (default: 10)")  # fmt: skip


def chunks(args: Namespace) -> Report:
    """Split a text into passages and sort them by loss.

    nats is the loss per token, sqrt(1-p) the mean of sqrt(1 - p), the measure of femtoGPT. Every token is predicted
    from at least half a context, or from all tokens before it if there are fewer.
    """
    require_at_least("size", args.size, 2)
    require_at_least("top", args.top, 1)
    source = load(args.run)
    block = source.model.config.block_size
    size = args.size or max(2, block // 2)
    text = user_text.read(args.file)
    ids = source.tokenizer.encode(text, special=parses_special(find_run(source.path)))
    nats = score(source.model, ids, stride=min(size, max(1, block // 2))).nats
    passages = split_passages(ids, nats, source.tokenizer, size, len(text.encode()))
    ordered = sorted(passages, key=lambda p: p.nats, reverse=not args.easiest)
    top = ordered[: args.top or (None if args.json else PASSAGES)]
    data = {"file": str(args.file), "tokens": len(ids), "size": size, "passages": len(passages)}
    data |= {"chunks": [asdict(p) for p in top]}
    return Report(f"Passages of {args.file}", data, format_passages(top, len(passages), size))


def add_chunks(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=expand_path, metavar="FILE", help="a UTF-8 text file, or - for standard input")
    parser.add_argument("--size", type=int, metavar="N", help="tokens per passage (default: half the context)")
    parser.add_argument("--top", type=int, metavar="N", help="number of passages (default: 10; with --json, all)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--hardest", action="store_true", help="sort by loss, highest first (the default)")
    order.add_argument("--easiest", action="store_true", help="sort by loss, lowest first")


def require_at_least(name: str, value: int | None, minimum: int) -> None:
    if value is not None and value < minimum:
        raise UserError(f"--{name}={value} must be at least {minimum}")


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
    "tokens": (tokens, add_tokens),
    "weights": (weights, lambda parser: None),
    "diff": (diff, add_diff),
    "chunks": (chunks, add_chunks),
}
