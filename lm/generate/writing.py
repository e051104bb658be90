"""Complete text prompts: encode them, generate in batches, and report the text while it is generated."""

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

BATCH = 128  # completions that are generated at the same time
MAX_COMPLETIONS = 1_000_000  # of one call; they all stay in memory


@dataclass(frozen=True)
class GenerationRequest:
    """Settings of a generation, except the prompts. Raises UserError for a value that is out of range."""

    max_new_tokens: int = 200
    sampling: Sampling = field(default_factory=Sampling)
    num_samples: int = 1  # completions of each prompt
    seed: int = 1337
    stop: tuple[str, ...] = ()  # the text ends before the first of these strings
    end_of_text: bool = True  # the text also ends before the end-of-text token; False: treat it as any other token
    alternatives: int = 0  # report the chosen token's probability and this many of the most probable tokens
    cached: bool = True
    parse_special: bool = False  # encode the name of a special token in a prompt as that token
    document_start: bool = False  # put an end-of-text token before each prompt; the prompt may then be empty

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.num_samples < 1:
            raise UserError(f"num_samples={self.num_samples} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} must be at least 0 and below 2**63")
        if not all(self.stop):
            raise UserError("stop must not be empty: an empty stop string would end every text at once")
        if self.alternatives < 0:
            raise UserError(f"alternatives={self.alternatives} must be at least 0")


@dataclass(frozen=True)
class Piece:
    """A generated token with its probability in the model's own distribution: temperature 1, before any filter."""

    id: int
    prob: float
    top: list[tuple[int, float]]  # the most probable ids and their probabilities


@dataclass
class Completion:
    """The generated text of one sample of one prompt."""

    prompt: str
    sample: int  # number of the sample among those of its prompt
    text: str = ""  # without the prompt
    ended: str = "length"  # or stop, end_of_text
    ids: list[int] = field(default_factory=list)  # new tokens, including those of a stop string
    pieces: list[Piece] = field(default_factory=list)  # one for each id, if alternatives were requested


OnText = Callable[[int, str], None]  # (number of the completion, text that has been added to it)


def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    request: GenerationRequest,
    on_text: OnText = lambda row, text: None,
    numbers: Sequence[int] | None = None,
) -> list[Completion]:
    """Return the completions of all prompts, with the samples of a prompt next to each other.

    `on_text` receives text as soon as it is certain: whole characters that cannot be part of a stop string. Sample n
    of every prompt is drawn with the same random numbers, independent of the other samples; `numbers` replaces n, one
    number for each completion.

    Raises UserError for an empty prompt, a prompt that the tokenizer cannot encode, and too many completions.
    """
    if not prompts or not (all(prompts) or request.document_start):
        raise UserError("the prompt is empty; give at least one character to continue")
    total = len(prompts) * request.num_samples
    if total > MAX_COMPLETIONS:
        raise UserError(
            f"num_samples={request.num_samples} with {len(prompts):,} prompts gives {total:,} texts; "
            f"at most {MAX_COMPLETIONS:,} are allowed"
        )
    encoded = [encode_prompt(tokenizer, prompt, request) for prompt in prompts]
    mask, completions = drawable_tokens(tokenizer, model.vocab_size), []
    for start in range(0, total, BATCH):
        places = range(start, min(start + BATCH, total))
        batch = [encoded[i // request.num_samples] for i in places]
        sample_numbers = [numbers[i] if numbers else i % request.num_samples for i in places]
        drawn = Uniforms(request.seed, sample_numbers, request.max_new_tokens)
        rows = [Completion(prompts[i // request.num_samples], i % request.num_samples) for i in places]
        completions += rows

        def emit(row: int, text: str, start: int = start) -> None:
            on_text(start + row, text)

        write_batch(model, tokenizer, batch, rows, request, drawn, mask, emit)
    return completions


def write_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Tensor],
    completions: Sequence[Completion],
    request: GenerationRequest,
    drawn: Uniforms,
    mask: Tensor | None,
    on_text: OnText,
) -> None:
    """Fill in the completions of prompts (T_b,), one completion for each prompt."""
    rows = [Row(tokenizer, request, c, ids.tolist()) for c, ids in zip(completions, prompts, strict=True)]
    at = min(map(len, prompts))
    for column, logits in decode(model, prompts, request.sampling, drawn, request.cached, mask):
        ranked = None
        if request.alternatives:
            probs = logits.softmax(-1)
            ranked = probs.cpu(), probs.topk(min(request.alternatives, probs.size(-1)))
        for i, (row, ids, token) in enumerate(zip(rows, prompts, column.tolist(), strict=True)):
            if row.done or at < len(ids):
                continue
            if text := row.add(token):
                on_text(i, text)
            if ranked and len(row.completion.ids) > len(row.completion.pieces):
                probs, top = ranked
                alternatives = list(zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True))
                row.completion.pieces.append(Piece(token, float(probs[i, token]), alternatives))
        at += 1
        if all(row.done for row in rows):
            return


def encode_prompt(tokenizer: Tokenizer, prompt: str, request: GenerationRequest) -> Tensor:
    """Encode a prompt: (T,). Raises UserError if the result has no token."""
    ids = torch.from_numpy(tokenizer.encode(prompt, special=request.parse_special))
    if request.document_start:
        if tokenizer.end_of_text is None:
            raise UserError("the tokenizer has no end-of-text token, so a prompt cannot follow the start of a document")
        ids = torch.cat((torch.tensor([tokenizer.end_of_text]), ids))
    if not len(ids):
        raise UserError(f"the tokenizer finds no token in the prompt {prompt!r}")
    return ids


def drawable_tokens(tokenizer: Tokenizer, rows: int) -> Tensor | None:
    """Return a mask (V,) of the ids that stand for a token, for a model with `rows` ids; None if all of them do.

    A model may have more ids than its tokenizer, and the ids of a tokenizer may have gaps.
    """
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[: tokenizer.vocab_size] = True
    mask[tokenizer.unused_ids] = False
    return None if mask.all() else mask


def find_special_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[str]:
    """Return the special tokens whose names occur in the prompts."""
    return [name for name in tokenizer.special_tokens if any(name in prompt for prompt in prompts)]
