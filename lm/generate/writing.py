"""Prompts in, text out: piece by piece as it is made, up to an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from lm.generate.decoding import decode
from lm.generate.sampling import Sampling, uniforms
from lm.model import GPT
from lm.tokenizer import Tokenizer

WINDOW = 16  # tokens, at least


@dataclass(frozen=True)
class Wanted:
    """What is to be written, apart from the prompts. Raises ValueError for what cannot be."""

    max_new_tokens: int = 200
    sampling: Sampling = field(default_factory=Sampling)
    num_samples: int = 1  # of each prompt
    seed: int = 1337
    stop: tuple[str, ...] = ()  # the text ends in front of the first of these
    end_of_text: bool = True  # and in front of the end-of-text token; False: it is a token like others
    alternatives: int = 0  # so many of the likeliest tokens are told at each place, and the probability of the chosen
    cached: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be at least 0 and below 2**63")
        if not all(self.stop):
            raise ValueError("stop must not be empty: every text holds the empty text")
        if self.alternatives < 0:
            raise ValueError(f"alternatives={self.alternatives} must be at least 0")


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


def write(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    wanted: Wanted,
    watch: Watch = lambda row, text: None,
    numbers: Sequence[int] | None = None,
) -> list[Completion]:
    """The completions of each prompt, its samples side by side; all of them are one batch.

    `watch` is told of text as soon as it is certain: characters that are whole, and no beginning of a stop string.
    Sample n of every prompt is drawn with the same random numbers, those that it would have alone; `numbers` gives
    other n, one for each completion.
    Raises ValueError for an empty prompt, and for one that the tokenizer cannot spell.
    """
    if not prompts or not all(prompts):
        raise ValueError("the prompt is empty: give at least one character to go on from")
    encoded = [torch.from_numpy(ids) for ids in map(tokenizer.encode, prompts)]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not len(ids):
            raise ValueError(f"the tokenizer makes no token of the prompt {prompt!r}")
    samples = range(wanted.num_samples)
    batch = [ids for ids in encoded for _ in samples]
    found = [Completion(prompt, n) for prompt in prompts for n in samples]
    rows = [Row(tokenizer, wanted, c, ids.tolist()) for c, ids in zip(found, batch, strict=True)]
    drawn = uniforms(wanted.seed, numbers or [*samples] * len(prompts), wanted.max_new_tokens)  # (B, N)
    at = min(map(len, batch))
    for column, logits in decode(model, batch, wanted.sampling, drawn, wanted.cached):
        told = None
        if wanted.alternatives:
            probs = logits.softmax(-1)
            told = probs.cpu(), probs.topk(min(wanted.alternatives, probs.size(-1)))
        for i, (row, prompt_ids, token) in enumerate(zip(rows, batch, column.tolist(), strict=True)):
            if row.done or at < len(prompt_ids):
                continue
            if text := row.add(token):
                watch(i, text)
            if told and len(row.completion.ids) > len(row.completion.pieces):
                probs, top = told
                likeliest = list(zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True))
                row.completion.pieces.append(Piece(token, float(probs[i, token]), likeliest))
        at += 1
        if all(row.done for row in rows):
            break
    return found


class Row:
    """A completion as it grows behind the ids of its prompt."""

    def __init__(self, tokenizer: Tokenizer, wanted: Wanted, completion: Completion, prompt: list[int]) -> None:
        self.tokenizer, self.wanted, self.completion = tokenizer, wanted, completion
        # what is decoded with the next token, as a tokenizer may join or part what neighbours say
        self.window, self.said = prompt[-WINDOW:], tokenizer.decode(prompt[-WINDOW:])
        self.settled = ""  # of the completion's text, what the window says nothing of any more
        self.offset = len(self.said)  # characters of `said` that are not the completion's
        self.told = 0  # characters of the text that have been given away
        self.done = False

    def add(self, token: int) -> str:
        """The text that has become certain with this token."""
        c, w = self.completion, self.wanted
        if w.end_of_text and token == self.tokenizer.end_of_text:
            return self.end("end_of_text")
        c.ids.append(token)
        self.window.append(token)
        self.said = self.tokenizer.decode(self.window)
        c.text = self.settled + self.said[self.offset :]
        if found := [place for s in w.stop if (place := c.text.find(s, self.told)) >= 0]:
            c.text = c.text[: min(found)]
            return self.end("stop")
        if len(c.ids) == w.max_new_tokens:
            return self.end("length")
        if len(self.window) > 2 * WINDOW and not self.said.endswith("\ufffd"):
            self.settled, self.window = c.text, self.window[-1:]
            self.offset = len(self.tokenizer.decode(self.window))
        return self.tell(len(c.text) - unsure(c.text, w.stop))

    def end(self, why: str) -> str:
        self.done, self.completion.ended = True, why
        return self.tell(len(self.completion.text))

    def tell(self, upto: int) -> str:
        text = self.completion.text[self.told : upto]
        self.told = max(self.told, upto)
        return text


def unsure(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may still turn out otherwise: half a character, or a stop string begun."""
    half = len(text) - len(text.rstrip("\ufffd"))
    begun = [n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])]
    return max([half, *begun])
