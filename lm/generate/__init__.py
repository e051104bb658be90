"""What a trained model writes: how a token is chosen, how rows of tokens grow, and what text they are."""

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
]  # fmt: skip
