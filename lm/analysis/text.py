"""Texts as token ids for an analysis, and labels of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from lm.analysis.tokens import quote_token, token_names
from lm.base.errors import UserError
from lm.run.checkpoint import Checkpoint


def encode_text(source: Checkpoint, text: str) -> Tensor:
    """Return the ids (1, T) of a text. Raises UserError if it has no token or more than the context holds."""
    ids = torch.from_numpy(source.tokenizer.encode(text)).long()
    block = source.model.config.block_size
    if not len(ids):
        raise UserError(f"the text {text!r} has no tokens; give at least one character")
    if len(ids) > block:
        raise UserError(f"the text has {len(ids):,} tokens, and the model sees at most {block:,}: shorten the text")
    return ids[None]


def token_labels(source: Checkpoint, ids: Tensor) -> list[str]:
    """Return a label for each id (T,): its text, with a space as ␣ and bytes that are no whole character as \\xNN."""
    return token_names(source.tokenizer, ids.tolist(), label)


def label(spelling: bytes) -> str:
    """Return the text of a token without quotes, in which every space is visible."""
    return quote_token(spelling)[1:-1].replace(" ", "␣")
