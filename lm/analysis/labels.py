"""Labeled texts for probes: a JSONL file, one text per line, with a label of the text or of spans in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.analysis.text import encode_text
from lm.base.errors import UserError
from lm.run.checkpoint import Checkpoint

FORM = '{"text": "...", "label": "x"} or {"text": "...", "spans": [[start, end, "x"], ...]}'


@dataclass(frozen=True)
class Example:
    """A token with a label: the last one of the text or of the span, which has seen all of it."""

    document: int
    position: int
    label: str


@dataclass(frozen=True)
class Labeled:
    """Texts as ids, and the labeled tokens in them."""

    texts: list[Tensor]  # each (1, T)
    examples: list[Example]


def read_labels(path: Path, source: Checkpoint) -> Labeled:
    """Read labeled texts. Raises UserError that names the line if it does not have the form or does not fit."""
    texts: list[Tensor] = []
    examples: list[Example] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            spans = read_spans(item)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: it must be {FORM}") from error
        try:
            ids = encode_text(source, item["text"])
            places = [(last_token(item["text"], start, end, ids, source), label) for start, end, label in spans]
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        examples += [Example(len(texts), place, label) for place, label in places]
        texts.append(ids)
    if len({example.label for example in examples}) < 2:
        raise UserError(f"{path} has {len({e.label for e in examples})} different labels; a probe needs at least 2")
    return Labeled(texts, examples)


def read_spans(item: Any) -> list[tuple[int, int, str]]:
    """Return start, end and label of the spans of a line; a label of the whole text is a span of all of it."""
    if not isinstance(item["text"], str) or ("label" in item) == ("spans" in item):
        raise ValueError
    if "label" in item:
        return [(0, len(item["text"]), str(item["label"]))]
    spans = [(start, end, str(label)) for start, end, label in item["spans"]]
    if not all(type(start) is int and type(end) is int for start, end, _ in spans):
        raise ValueError
    return spans


def last_token(text: str, start: int, end: int, ids: Tensor, source: Checkpoint) -> int:
    """Return the position of the token that ends a span of characters. Raises UserError for a span outside the text."""
    if not 0 <= start < end <= len(text):
        raise UserError(f"the span [{start}, {end}] is not in the text, which has {len(text)} characters")
    ends = np.cumsum(source.tokenizer.token_bytes[ids[0].numpy()])
    if ends[-1] != len(text.encode()):
        raise UserError("the tokenizer changes this text, so that characters cannot be matched to tokens")
    return int(np.searchsorted(ends, len(text[:end].encode())))


def label_numbers(examples: list[Example]) -> tuple[list[str], Tensor]:
    """Return the labels in alphabetical order, and the number of each example's label (N,)."""
    names = sorted({example.label for example in examples})
    return names, torch.tensor([names.index(example.label) for example in examples])
