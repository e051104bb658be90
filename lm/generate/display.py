"""Display completions: as text, in a file, and with each token colored by its probability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lm.base.console import format_table
from lm.data.tokenizer import Tokenizer
from lm.generate.writing import Completion, drawable_tokens
from lm.model import GPT

# (lowest probability, color), from high to low
COLORS = [(0.8, "green"), (0.4, "cyan"), (0.1, "yellow"), (0.01, "magenta"), (0.0, "red")]


def format_texts(completions: Sequence[Completion]) -> str:
    """Return all texts with their prompts, separated by lines of three dashes."""
    return "\n---\n".join(c.prompt + c.text for c in completions)


def save_completions(completions: Sequence[Completion], path: Path) -> None:
    """Write completions to a file: one JSON object per line if its name ends in .jsonl, otherwise plain text."""
    if path.suffix == ".jsonl":
        content = "".join(json.dumps(asdict(c)) + "\n" for c in completions)
    else:
        content = format_texts(completions) + "\n"
    path.write_text(content, encoding="utf-8")


def print_probabilities(model: GPT, tokenizer: Tokenizer, completion: Completion) -> None:
    """Print the tokens of a completion: colored by probability if the console is a terminal, and as a table."""
    mask = drawable_tokens(tokenizer, model.vocab_size)

    def spell(token: int) -> str:
        return f"#{token} (no token)" if mask is not None and not mask[token] else repr(tokenizer.decode([token]))

    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        legend = Text("\nprobability ")
        for lowest, color in COLORS:
            legend.append(f"from {lowest:g} " if lowest else "below", color)
        console.print(legend, color_tokens(tokenizer, completion), sep="\n")
    rows = [
        (spell(p.id), f"{p.prob:.3f}", "  ".join(f"{spell(i)} {prob:.3f}" for i, prob in p.top))
        for p in completion.pieces
    ]
    width = max((len(row[2]) for row in rows), default=0)
    heading = ("token", "p", "most probable tokens".ljust(width))
    print(format_table([heading, *((a, b, c.ljust(width)) for a, b, c in rows)]))


def color_tokens(tokenizer: Tokenizer, completion: Completion) -> Text:
    """Return the prompt, dimmed, and the new tokens in the color of their probability."""
    text = Text()
    for piece in completion.pieces:
        color = next(color for lowest, color in COLORS if piece.prob >= lowest)
        text.append(tokenizer.decode([piece.id]), color)
    return Text(completion.prompt, "dim") + text
