"""What a trained model writes: how a token is chosen, how rows of tokens grow, and what text they are."""

from lm.generate.decoding import decode
from lm.generate.sampling import Sampling
from lm.generate.writing import Completion, Piece, Wanted, drawable, spelled_specials, write

__all__ = [
    "Completion", "Piece", "Sampling", "Wanted", "decode", "drawable", "spelled_specials", "write",
]  # fmt: skip
