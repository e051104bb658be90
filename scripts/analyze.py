"""Look into a trained model.

  python scripts/analyze.py outputs/mine tokens                      the tokens whose embeddings are most alike
  python scripts/analyze.py outputs/mine tokens A ' the' '#17'       the nearest of each
  python scripts/analyze.py outputs/mine weights                     every tensor in figures
  python scripts/analyze.py outputs/mine diff outputs/other          what training on, or another seed, changed
  python scripts/analyze.py outputs/mine chunks text.txt --easiest   passages by how hard they are for the model

`analyze.py outputs/mine tokens --help` says what each takes; all take --json.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.analysis.difference import Difference, compare_checkpoints
from lm.analysis.passages import Passage, passages
from lm.analysis.tensors import Stats, overall, weight_stats
from lm.analysis.tokens import nearest_tokens, quote_token, token_id
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.data import user_text
from lm.evaluate.score import score
from lm.run.checkpoint import load
from lm.run.directory import find_run, parses_special
from lm.run.init_from import shared_tokens

SHOWN = 10  # passages, where no number is named
WIDTH = 100  # columns of a table
CLIPPED = 28  # characters of a token in one
LEGEND = """
N.x is blocks.N.x, and .weight is left out; norm is the largest singular value, rank the stable
rank, ||W||_F^2 / ||W||_2^2"""


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show é shows \xe9
    for name, least in (("nearest", 1), ("top", 1), ("size", 2)):
        if (n := getattr(args, name, None)) is not None and n < least:
            raise UserError(f"--{name}={n} must be at least {least}")
    found, text = args.command(args)
    if args.json:
        written = json.dumps({"run": str(args.run), **found})
        text = json.dumps(json.loads(written, parse_constant=lambda nan: None))  # for which JSON has no number
    print(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=cli.path, metavar="RUN", help="a run (its best checkpoint), a .ckpt or hf:DIRECTORY"
    )
    commands = parser.add_subparsers(required=True, metavar="tokens|weights|diff|chunks")
    made = {}
    for command in (of_tokens, of_weights, of_diff, of_chunks):
        name = command.__name__.removeprefix("of_")
        made[name] = sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
    sub = made["tokens"]
    sub.add_argument("tokens", nargs="*", metavar="TOKEN", help="a text that is one token, or its id: '#17'")
    sub.add_argument("--nearest", type=int, default=10, metavar="N", help="pairs, or tokens of each TOKEN "
                     "(default: 10)")  # fmt: skip
    sub.add_argument("--by-head", action="store_true", help="by each head's n_embd / n_head channels for themselves")
    sub = made["diff"]
    sub.add_argument("other", type=cli.path, metavar="OTHER", help="another run or checkpoint")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="tokens that turned most (default: 10)")
    sub = made["chunks"]
    sub.add_argument("file", type=cli.path, metavar="FILE", help="a text in UTF-8, - for standard input")
    sub.add_argument("--size", type=int, metavar="N", help="tokens of a passage (default: half the context)")
    sub.add_argument("--top", type=int, metavar="N", help="how many (default: 10, with --json all)")
    order = sub.add_mutually_exclusive_group()
    order.add_argument("--hardest", action="store_true", help="those of the highest loss first (the default)")
    order.add_argument("--easiest", action="store_true", help="those of the lowest loss first")
    return parser.parse_args(argv)


def of_tokens(args: argparse.Namespace) -> tuple[dict, str]:
    """The tokens whose embeddings are most alike, by cosine."""
    source = load(args.run)
    ids = [token_id(typed, source.tokenizer) for typed in args.tokens]
    pairs = nearest_tokens(source, args.nearest, ids, args.by_head)
    rows = [(clip(p.a), f"#{p.a_id}", clip(p.b), f"#{p.b_id}", f"{p.cosine:.4f}") for p in pairs]
    rows = [("token", "id", "token", "id", "cosine"), *rows]
    if args.by_head:
        rows = [(head, *row) for head, row in zip(["head", *(str(p.head) for p in pairs)], rows, strict=True)]
    return {"pairs": [asdict(pair) for pair in pairs]}, format_table(rows)


def of_weights(args: argparse.Namespace) -> tuple[dict, str]:
    """Every tensor in figures."""
    parts = weight_stats(load(args.run).model)
    whole = overall(parts)
    head = ("tensor", "shape", "count", "mean", "std", "rms", "min", "max", "zeros", "norm", "rank")
    bad = [f"{p.name} has {p.nan:,} nan and {p.inf:,} infinite numbers" for p in parts if p.nan + p.inf]
    text = format_table([head, *map(figures, parts), figures(whole)]) + "\n" + LEGEND
    found = {"tensors": [asdict(part) for part in parts], "total": asdict(whole)}
    return found, "\n".join([text, *(["", *bad] if bad else [])])


def figures(part: Stats) -> tuple[str, ...]:
    values = [number(x) for x in (part.mean, part.std, part.rms, part.min, part.max)]
    matrix = ["" if x is None else f"{x:.3g}" for x in (part.spectral_norm, part.stable_rank)]
    return (short(part.name), shape(part.shape), count(part.numbers), *values, f"{part.zeros:.0%}", *matrix)


def of_diff(args: argparse.Namespace) -> tuple[dict, str]:
    """How far OTHER is from RUN: cosines, and ||a - b|| / ||a||."""
    run, other = load(args.run), load(args.other)
    found = compare_checkpoints(run, other, shared_tokens(run.tokenizer, other.tokenizer), args.top)
    return {"other": str(args.other), **asdict(found)}, "\n\n".join(differences(found))


def differences(found: Difference) -> list[str]:
    """The parts of what is printed."""
    rows = [
        (short(p.name) + " *" * (p.tokens is not None), shape(p.shape), f"{p.cosine:.4f}", f"{p.distance:.4f}")
        for p in found.tensors
    ]
    parts = [format_table([("tensor", "shape", "cosine", "distance"), *rows])]
    if any(p.tokens is not None for p in found.tensors):
        parts.append(f"* another vocabulary: the rows of the {found.shared_tokens:,} tokens that both have")
    reshaped = [f"{short(name)} ({shape(a)}, {shape(b)})" for name, (a, b) in found.other_shape.items()]
    lists = {"only in RUN": found.only_run, "only in OTHER": found.only_other, "of another shape": reshaped}
    named = [f"{what}: {', '.join(map(short, names))}" for what, names in lists.items() if names]
    parts += [textwrap.fill(line, WIDTH, break_long_words=False) for line in named]
    if found.heads:
        rows = [(f"{h.block}.attn head {h.head}", *(f"{x:.4f}" for x in (h.q, h.k, h.v, h.proj))) for h in found.heads]
        parts.append(format_table([("cosine", "q", "k", "v", "proj"), *rows]))
    else:
        parts.append("heads are of another number or width: not compared")
    if found.tokens:
        rows = [(clip(t.token), f"#{t.id}", f"#{t.other_id}", f"{t.cosine:.4f}") for t in found.tokens]
        turned = format_table([("token", "in RUN", "in OTHER", "cosine"), *rows])
        parts.append(f"of {found.shared_tokens:,} tokens that both have, whose embedding turned the most:\n{turned}")
    return parts


def of_chunks(args: argparse.Namespace) -> tuple[dict, str]:
    """A text in passages, the hardest first: nats per token, and the mean of sqrt(1 - p), femtoGPT's measure.

    Every token is predicted from half a context or more, but where the text has less before it.
    """
    source = load(args.run)
    block = source.model.config.block_size
    size = args.size or max(2, block // 2)
    text = user_text.read(args.file)
    ids = source.tokenizer.encode(text, special=parses_special(find_run(source.path)))
    nats = score(source.model, ids, stride=min(size, max(1, block // 2))).nats
    found = passages(ids, nats, source.tokenizer, size, len(text.encode()))
    order = sorted(found, key=lambda p: p.nats, reverse=not args.easiest)
    top = order[: args.top or (None if args.json else SHOWN)]
    about = {"file": str(args.file), "tokens": len(ids), "size": size, "passages": len(found)}
    return about | {"chunks": [asdict(p) for p in top]}, listed(top, about)


def listed(top: Sequence[Passage], about: dict) -> str:
    rows = [
        (str(p.token), "" if p.byte is None else str(p.byte), f"{p.nats:.4f}", f"{p.sqrt_1_minus_p:.4f}") for p in top
    ]
    lines = format_table([("token", "byte", "nats", "sqrt(1-p)"), *rows]).split("\n")
    texts = ["text", *(clip(quote_token(p.text.encode()), WIDTH - 2 - len(lines[0])) for p in top)]
    lines = [f"{line.ljust(len(lines[0]))}  {text}" for line, text in zip(lines, texts, strict=True)]
    return "\n".join([*lines, f"\n{len(top)} of {about['passages']:,} passages of {about['size']} tokens"])


def short(name: str) -> str:
    return name.removeprefix("blocks.").removesuffix(".weight")


def shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def number(x: float) -> str:
    """Of two digits, in seven characters at most where exponents are below ten."""
    return (f"{x:.1e}" if 0 < abs(x) < 1e-3 else f"{x:.2g}").replace("e-0", "e-").replace("e+0", "e")


def count(n: int) -> str:
    return str(n) if n < 10_000 else f"{n / 1e3:.3g}k" if n < 999_500 else f"{n / 1e6:.3g}M"


def clip(text: str, width: int = CLIPPED) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


if __name__ == "__main__":
    main()
