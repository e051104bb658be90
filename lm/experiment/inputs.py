"""The inputs of a run: text, tokenizer and token files."""

from __future__ import annotations

from dataclasses import dataclass

from lm.config import Config
from lm.data.corpus import Text
from lm.data.token_files import Tokens, cache_tokens, cached_tokenizer
from lm.data.tokenizer import Tokenizer
from lm.experiment.start import Start


@dataclass(frozen=True)
class Inputs:
    """Text, tokenizer and tokens of a run."""

    text: Text
    tokenizer: Tokenizer
    tokens: Tokens  # memory maps of both splits, as ids of `tokenizer`

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size


def load_text(config: Config) -> Text:
    """Download, prepare and cache the corpus, unless that is done already. Raises UserError."""
    return config.corpus.load(config.data.downloads())


def prepare_inputs(config: Config, text: Text, start: Start) -> Inputs:
    """Tokenize the text with the tokenizer of the checkpoint, or with the configured one if there is none to keep.

    Raises UserError if the tokenizer cannot encode the text.
    """
    downloads, source = config.data.downloads(), start.checkpoint
    if source and (start.path or config.init_tokenizer == "keep"):
        tokenizer = source.tokenizer
    else:
        tokenizer = cached_tokenizer(config.tokenizer, text, downloads)
    return Inputs(text, tokenizer, cache_tokens(text, tokenizer, downloads, config.tokenizer.parse_special))
