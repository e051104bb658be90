"""The front door: load a trained model and use it in a few lines of Python."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm.analysis.text import encode_text
from lm.analysis.trace import Trace, record
from lm.data.tokenizer import Tokenizer
from lm.evaluate.score import Scores, score
from lm.generate import GenerationRequest, Sampling, complete
from lm.model import GPT
from lm.run import checkpoint


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its tokenizer: `model = lm.load("outputs/mine")`."""

    source: checkpoint.Checkpoint

    @property
    def model(self) -> GPT:
        """The network, in evaluation mode on the CPU."""
        return self.source.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.source.tokenizer

    @torch.no_grad()
    def __call__(self, text: str) -> Tensor:
        """Return the logits (T, V) of a text of T tokens: row t predicts token t + 1.

        Raises UserError if the text has no token or more than the context holds.
        """
        ids = encode_text(self.source, text).to(self.model.wte.weight.device)
        return self.model(ids)[0]

    def generate(
        self, prompt: str, max_new_tokens: int = 200, seed: int = 1337, stop: tuple[str, ...] = (), **sampling: Any
    ) -> str:
        """Return the text that the model writes after `prompt`.

        `sampling` are fields of lm.generate.Sampling: temperature, top_k, top_p, min_p, repetition_penalty. The same
        seed gives the same text. Raises UserError for a value out of range and a prompt that cannot be encoded.
        """
        request = GenerationRequest(max_new_tokens, Sampling(**sampling), seed=seed, stop=stop)
        (completion,) = complete(self.model, self.tokenizer, [prompt], request)
        return completion.text

    def score(self, text: str, stride: int | None = None) -> Scores:
        """Return the loss of every token of a text of any length, except the first (see lm.evaluate.score)."""
        return score(self.model, self.tokenizer.encode(text), stride)

    def record(self) -> AbstractContextManager[Trace]:
        """Record what the model computes: `with model.record() as trace: model(text)` (see lm.analysis.trace)."""
        return record(self.model)


def load(path: Path | str) -> LoadedModel:
    """Load a run (its best checkpoint), a checkpoint, an exported file, or a directory in Hugging Face format.

    Raises UserError with a message of one line if there is no such model or it cannot be read.
    """
    return LoadedModel(checkpoint.load(path))
