"""Text generation: sampling a token, continuing batches of prompts, and decoding the tokens to text."""

from lm.generate.decoding import decode
from lm.generate.sampling import Sampling
from lm.generate.writing import Completion, GenerationRequest, Piece, complete, drawable_tokens, find_special_tokens

__all__ = [
    "Completion",
    "GenerationRequest",
    "Piece",
    "Sampling",
    "complete",
    "decode",
    "drawable_tokens",
    "find_special_tokens",
]
