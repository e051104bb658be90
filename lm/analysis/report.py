"""Tables of scripts/analyze.py."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lm.analysis.difference import Difference
from lm.analysis.passages import Passage
from lm.analysis.tensors import TensorStats
from lm.analysis.tokens import Pair, quote_token
from lm.base.console import format_table

WIDTH = 100  # columns of a table
TOKEN_WIDTH = 28  # characters of a token in a table
LEGEND = """
N.x is blocks.N.x, and .weight is omitted; norm is the largest singular value, rank the stable
rank, ||W||_F^2 / ||W||_2^2"""


def format_pairs(pairs: Sequence[Pair], by_head: bool) -> str:
    """Return the table of similar tokens, with a column for the head if they were compared by head."""
    rows = [(clip(p.a), f"#{p.a_id}", clip(p.b), f"#{p.b_id}", f"{p.cosine:.4f}") for p in pairs]
    rows = [("token", "id", "token", "id", "cosine"), *rows]
    if by_head:
        heads = ["head", *(str(p.head) for p in pairs)]
        return format_table([(head, *row) for head, row in zip(heads, rows, strict=True)])
    return format_table(rows)


def format_stats(parts: Sequence[TensorStats], total: TensorStats) -> str:
    """Return the table of the tensors and a line for each that has nan or infinite numbers."""
    head = ("tensor", "shape", "count", "mean", "std", "rms", "min", "max", "zeros", "norm", "rank")
    text = format_table([head, *map(stats_row, parts), stats_row(total)]) + "\n" + LEGEND
    bad = [f"{p.name} has {p.nan:,} nan and {p.inf:,} infinite numbers" for p in parts if p.nan + p.inf]
    return "\n".join([text, "", *bad]) if bad else text


def stats_row(part: TensorStats) -> tuple[str, ...]:
    values = [format_number(x) for x in (part.mean, part.std, part.rms, part.min, part.max)]
    matrix = ["" if x is None else f"{x:.3g}" for x in (part.spectral_norm, part.stable_rank)]
    name, shape = shorten_name(part.name), format_shape(part.shape)
    return (name, shape, format_count(part.numbers), *values, f"{part.zeros:.0%}", *matrix)


def format_difference(difference: Difference) -> str:
    """Return the tables of tensors, heads and tokens, and the lists of tensors that cannot be compared."""
    some_by_token = any(p.tokens is not None for p in difference.tensors)
    rows = [
        (
            shorten_name(p.name) + ("" if p.tokens is None else " *"),
            format_shape(p.shape),
            f"{p.cosine:.4f}",
            f"{p.distance:.4f}",
        )
        for p in difference.tensors
    ]
    parts = [format_table([("tensor", "shape", "cosine", "distance"), *rows])]
    if some_by_token:
        parts.append(
            f"* the vocabularies differ: only the rows of the {difference.shared_tokens:,} shared tokens are compared"
        )
    reshaped = [
        f"{shorten_name(name)} ({format_shape(a)}, {format_shape(b)})"
        for name, (a, b) in difference.other_shape.items()
    ]
    lists = {
        "only in RUN": difference.only_run,
        "only in OTHER": difference.only_other,
        "different shapes": reshaped,
    }
    for title, names in lists.items():
        if names:
            line = f"{title}: {', '.join(map(shorten_name, names))}"
            parts.append(textwrap.fill(line, WIDTH, break_long_words=False))
    if difference.heads:
        heads = [
            (f"{h.block}.attn head {h.head}", *(f"{x:.4f}" for x in (h.q, h.k, h.v, h.proj))) for h in difference.heads
        ]
        parts.append(format_table([("cosine", "q", "k", "v", "proj"), *heads]))
    else:
        parts.append("heads are not compared: the models differ in the number or width of their heads")
    if difference.tokens:
        rows = [(clip(t.token), f"#{t.id}", f"#{t.other_id}", f"{t.cosine:.4f}") for t in difference.tokens]
        table = format_table([("token", "in RUN", "in OTHER", "cosine"), *rows])
        title = f"tokens whose embeddings differ most, of the {difference.shared_tokens:,} shared tokens:"
        parts.append(f"{title}\n{table}")
    return "\n\n".join(parts)


def format_passages(top: Sequence[Passage], total: int, size: int) -> str:
    """Return the table of the passages in `top`, out of `total` passages of `size` tokens."""
    rows = [
        (str(p.token), "" if p.byte is None else str(p.byte), f"{p.nats:.4f}", f"{p.sqrt_1_minus_p:.4f}") for p in top
    ]
    lines = format_table([("token", "byte", "nats", "sqrt(1-p)"), *rows]).split("\n")
    width = len(lines[0])
    texts = ["text", *(clip(quote_token(p.text.encode()), WIDTH - 2 - width) for p in top)]
    lines = [f"{line.ljust(width)}  {text}" for line, text in zip(lines, texts, strict=True)]
    return "\n".join([*lines, f"\n{len(top)} of {total:,} passages of {size} tokens"])


def shorten_name(name: str) -> str:
    return name.removeprefix("blocks.").removesuffix(".weight")


def format_shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def format_number(x: float) -> str:
    """Format a number with two digits, in at most seven characters unless its exponent has two digits."""
    text = f"{x:.1e}" if 0 < abs(x) < 1e-3 else f"{x:.2g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def format_count(n: int) -> str:
    if n < 10_000:
        return str(n)
    if n < 999_500:
        return f"{n / 1e3:.3g}k"
    return f"{n / 1e6:.3g}M"


def clip(text: str, width: int = TOKEN_WIDTH) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
