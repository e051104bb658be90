"""Tokenizers: convert text to token ids and back.

A tokenizer is saved as one JSON text in the format of Hugging Face's `tokenizers`: in the run as tokenizer.json, in
every checkpoint, and as part of the cache key.
"""

from lm.data.tokenizer.base import END_OF_TEXT, Tokenizer, TokenizerConfig
from lm.data.tokenizer.foreign import FileConfig, GPT2Config
from lm.data.tokenizer.plain import AsciiConfig, ByteConfig, Bytes, CharConfig, Chars
from lm.data.tokenizer.subword import BPEConfig, Subword, from_json, spellings

TOKENIZERS: list[type] = [BPEConfig, CharConfig, ByteConfig, AsciiConfig, GPT2Config, FileConfig]

__all__ = [
    "END_OF_TEXT", "TOKENIZERS",
    "AsciiConfig", "BPEConfig", "ByteConfig", "Bytes", "CharConfig", "Chars", "FileConfig", "GPT2Config", "Subword",
    "Tokenizer", "TokenizerConfig", "from_json", "spellings",
]  # fmt: skip
