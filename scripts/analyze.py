"""Analyze a trained model.

  python scripts/analyze.py outputs/mine tokens                      tokens with the most similar embeddings
  python scripts/analyze.py outputs/mine tokens A ' the' '#17'       the nearest tokens of each
  python scripts/analyze.py outputs/mine weights                     statistics of every tensor
  python scripts/analyze.py outputs/mine diff outputs/other          difference between two checkpoints
  python scripts/analyze.py outputs/mine chunks text.txt --easiest   passages of a text by their loss

`analyze.py outputs/mine tokens --help` describes the options of a subcommand. With --json, print JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.analysis.difference import compare_checkpoints
from lm.analysis.passages import split_passages
from lm.analysis.report import format_difference, format_pairs, format_passages, format_stats
from lm.analysis.tensors import total_stats, weight_stats
from lm.analysis.tokens import nearest_tokens, token_id
from lm.base.errors import UserError
from lm.data import user_text
from lm.evaluate.score import score
from lm.run.checkpoint import load
from lm.run.directory import find_run, parses_special
from lm.run.init_from import shared_tokens

PASSAGES = 10  # default number of passages in the table


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    for name, minimum in (("nearest", 1), ("top", 1), ("size", 2)):
        if (n := getattr(args, name, None)) is not None and n < minimum:
            raise UserError(f"--{name}={n} must be at least {minimum}")
    data, text = args.command(args)
    if args.json:
        encoded = json.dumps({"run": str(args.run), **data})
        text = json.dumps(json.loads(encoded, parse_constant=lambda nan: None))  # JSON has no nan: write null
    print(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory (its best checkpoint is used), a "
                        ".ckpt file or hf:DIRECTORY")  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="tokens|weights|diff|chunks")
    parsers = {}
    for name, command in (("tokens", tokens), ("weights", weights), ("diff", diff), ("chunks", chunks)):
        parsers[name] = sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
    sub = parsers["tokens"]
    sub.add_argument("tokens", nargs="*", metavar="TOKEN", help="a text that is one token, or a token id: '#17'")
    sub.add_argument("--nearest", type=int, default=10, metavar="N", help="number of pairs, or of tokens near each "
                     "TOKEN (default: 10)")  # fmt: skip
    sub.add_argument("--by-head", action="store_true", help="compare the n_embd / n_head channels of each head "
                     "separately")  # fmt: skip
    sub = parsers["diff"]
    sub.add_argument("other", type=cli.path, metavar="OTHER", help="another run or checkpoint")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="number of tokens whose embeddings differ most "
                     "(default: 10)")  # fmt: skip
    sub = parsers["chunks"]
    sub.add_argument("file", type=cli.path, metavar="FILE", help="a UTF-8 text file, or - for standard input")
    sub.add_argument("--size", type=int, metavar="N", help="tokens per passage (default: half the context)")
    sub.add_argument("--top", type=int, metavar="N", help="number of passages (default: 10; with --json, all)")
    order = sub.add_mutually_exclusive_group()
    order.add_argument("--hardest", action="store_true", help="sort by loss, highest first (the default)")
    order.add_argument("--easiest", action="store_true", help="sort by loss, lowest first")
    return parser.parse_args(argv)


def tokens(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """List the tokens whose embeddings are most similar, by cosine."""
    source = load(args.run)
    ids = [token_id(name, source.tokenizer) for name in args.tokens]
    pairs = nearest_tokens(source, args.nearest, ids, args.by_head)
    return {"pairs": [asdict(pair) for pair in pairs]}, format_pairs(pairs, args.by_head)


def weights(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Print statistics of every tensor."""
    parts = weight_stats(load(args.run).model)
    total = total_stats(parts)
    return {"tensors": [asdict(part) for part in parts], "total": asdict(total)}, format_stats(parts, total)


def diff(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure the difference between RUN and OTHER: the cosine, and the distance ||a - b|| / ||a||."""
    run, other = load(args.run), load(args.other)
    difference = compare_checkpoints(run, other, shared_tokens(run.tokenizer, other.tokenizer), args.top)
    return {"other": str(args.other), **asdict(difference)}, format_difference(difference)


def chunks(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Split a text into passages and sort them by loss.

    nats is the loss per token, sqrt(1-p) the mean of sqrt(1 - p), the measure of femtoGPT. Every token is predicted
    from at least half a context, or from all tokens before it if there are fewer.
    """
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
    return data | {"chunks": [asdict(p) for p in top]}, format_passages(top, len(passages), size)


if __name__ == "__main__":
    main()
