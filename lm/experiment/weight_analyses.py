"""The subcommands of scripts/analyze.py about weights and texts: their arguments, and the report of each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from lm.analysis.difference import compare_checkpoints
from lm.analysis.figures import Report
from lm.analysis.passages import split_passages
from lm.analysis.report import format_difference, format_pairs, format_passages, format_stats
from lm.analysis.tensors import total_stats, weight_stats
from lm.analysis.tokens import nearest_tokens, token_id
from lm.base.errors import UserError
from lm.base.files import expand_path
from lm.data import user_text
from lm.evaluate.score import score
from lm.run.checkpoint import load
from lm.run.directory import find_run, parses_special
from lm.run.init_from import shared_tokens

PASSAGES = 10  # default number of passages in the table


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
