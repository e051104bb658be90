"""Build an untrained model from the configuration of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lm.config import compose_config
from lm.data.token_files import cached_tokenizer
from lm.experiment.inputs import load_text
from lm.model import GPT
from lm.run.checkpoint import Checkpoint


def build_untrained(overrides: Sequence[str]) -> Checkpoint:
    """Return the model and tokenizer that train.py starts from with these overrides, at step 0.

    Raises UserError for an invalid configuration.
    """
    config = compose_config(overrides)
    tokenizer = cached_tokenizer(config.tokenizer, load_text(config), config.data.downloads())
    torch.manual_seed(config.seed)
    return Checkpoint(Path("random"), GPT(config.model, tokenizer.vocab_size).eval(), tokenizer, 0, {})
