"""Prompts in, text out: piece by piece as it is made, up to an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer
from lm.generate.decoding import decode
from lm.generate.sampling import Sampling, Uniforms
from lm.generate.streaming import Row
from lm.model import GPT

BATCH = 128  # completions that are written side by side
MOST = 1_000_000  # completions of one call: they all stay in memory


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be written, apart from the prompts. Raises UserError for what cannot be."""

    max_new_tokens: int = 200
    sampling: Sampling = field(default_factory=Sampling)
    num_samples: int = 1  # of each prompt
    seed: int = 1337
    stop: tuple[str, ...] = ()  # the text ends in front of the first of these
    end_of_text: bool = True  # and in front of the end-of-text token; False: it is a token like others
    alternatives: int = 0  # so many of the likeliest tokens are told at each place, and the probability of the chosen
    cached: bool = True
    parse_special: bool = False  # a prompt that spells a special token gives that token
    document_start: bool = False  # each prompt follows an end-of-text token, and may be empty

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.num_samples < 1:
            raise UserError(f"num_samples={self.num_samples} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} must be at least 0 and below 2**63")
        if not all(self.stop):
            raise UserError("stop must not be empty: every text holds the empty text")
        if self.alternatives < 0:
            raise UserError(f"alternatives={self.alternatives} must be at least 0")


@dataclass(frozen=True)
class Piece:
    """One new token, by the model's own distribution: at temperature 1, before any filter."""

    id: int
    prob: float
    top: list[tuple[int, float]]  # the likeliest ids and their probabilities


@dataclass
class Completion:
    prompt: str
    sample: int  # which of the prompt's
    text: str = ""  # what follows the prompt
    ended: str = "length"  # or stop, end_of_text
    ids: list[int] = field(default_factory=list)  # of the new tokens; a stop string's are among them
    pieces: list[Piece] = field(default_factory=list)  # one for each id, where alternatives were asked for


Watch = Callable[[int, str], None]  # which completion, and what has been added to its text


def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    wanted: GenerationRequest,
    watch: Watch = lambda row, text: None,
    numbers: Sequence[int] | None = None,
) -> list[Completion]:
    """Return the completions of each prompt, its samples side by side, written BATCH at a time.

    `watch` is told of text as soon as it is certain: characters that are whole, and no beginning of a stop string.
    Sample n of every prompt is drawn with the same random numbers, those that it would have alone; `numbers` gives
    other n, one for each completion.
    Raises UserError for an empty prompt, for one that the tokenizer cannot spell, and for too many completions.
    """
    if not prompts or not (all(prompts) or wanted.document_start):
        raise UserError("the prompt is empty: give at least one character to go on from")
    total = len(prompts) * wanted.num_samples
    if total > MOST:
        raise UserError(f"num_samples={wanted.num_samples} of {len(prompts):,} prompts are {total:,} texts, and must "
                         f"be at most {MOST:,} in all")  # fmt: skip
    encoded = [prompt_ids(tokenizer, prompt, wanted) for prompt in prompts]
    mask, found = drawable_tokens(tokenizer, model.vocab_size), []
    for start in range(0, total, BATCH):
        places = range(start, min(start + BATCH, total))
        batch = [encoded[i // wanted.num_samples] for i in places]
        drawn = Uniforms(wanted.seed, [numbers[i] if numbers else i % wanted.num_samples for i in places],
                         wanted.max_new_tokens)  # fmt: skip
        completions = [Completion(prompts[i // wanted.num_samples], i % wanted.num_samples) for i in places]
        found += completions

        def emit(row: int, text: str, start: int = start) -> None:
            watch(start + row, text)

        write_batch(model, tokenizer, batch, completions, wanted, drawn, mask, emit)
    return found


def write_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Tensor],
    completions: Sequence[Completion],
    wanted: GenerationRequest,
    drawn: Uniforms,
    mask: Tensor | None,
    watch: Watch,
) -> None:
    """Fill the completions of prompts (T_b,), one of each."""
    rows = [Row(tokenizer, wanted, c, ids.tolist()) for c, ids in zip(completions, prompts, strict=True)]
    at = min(map(len, prompts))
    for column, logits in decode(model, prompts, wanted.sampling, drawn, wanted.cached, mask):
        told = None
        if wanted.alternatives:
            probs = logits.softmax(-1)
            told = probs.cpu(), probs.topk(min(wanted.alternatives, probs.size(-1)))
        for i, (row, ids, token) in enumerate(zip(rows, prompts, column.tolist(), strict=True)):
            if row.done or at < len(ids):
                continue
            if text := row.add(token):
                watch(i, text)
            if told and len(row.completion.ids) > len(row.completion.pieces):
                probs, top = told
                likeliest = list(zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True))
                row.completion.pieces.append(Piece(token, float(probs[i, token]), likeliest))
        at += 1
        if all(row.done for row in rows):
            return


def prompt_ids(tokenizer: Tokenizer, prompt: str, wanted: GenerationRequest) -> Tensor:
    """Encode a prompt: (T,). Raises UserError when no token comes of it."""
    ids = torch.from_numpy(tokenizer.encode(prompt, special=wanted.parse_special))
    if wanted.document_start:
        if tokenizer.end_of_text is None:
            raise UserError("the tokenizer has no end-of-text token, so no prompt can follow the start of a document")
        ids = torch.cat((torch.tensor([tokenizer.end_of_text]), ids))
    if not len(ids):
        raise UserError(f"the tokenizer makes no token of the prompt {prompt!r}")
    return ids


def drawable_tokens(tokenizer: Tokenizer, rows: int) -> Tensor | None:
    """Mark the ids of a model with `rows` ids that have a token: (V,), or None when all have one.

    A model may have more ids than its tokenizer, and the ids of a tokenizer may have gaps.
    """
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[: tokenizer.vocab_size] = True
    mask[tokenizer.unused_ids] = False
    return None if mask.all() else mask


def find_special_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[str]:
    """Return the special tokens whose names stand in the prompts."""
    return [name for name in tokenizer.special_tokens if any(name in prompt for prompt in prompts)]
