"""Text x Tokenizer -> memory-mapped token files, keyed by content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers

from lm import cache
from lm.console import progress
from lm.corpus import Split, Text
from lm.corpus.pieces import LONGEST
from lm.corpus.text import VAL_FRACTION
from lm.download import Downloads
from lm.tokenizer import Tokenizer, TokenizerConfig, from_json

AT_ONCE = 1 << 21  # characters encoded at a time: the tokenizers library holds some 50 bytes for each


@dataclass(frozen=True)
class Tokens:
    """A corpus as ids: train (N,) and val (M,), read-only memory maps of uint16 or uint32."""

    train: np.ndarray
    val: np.ndarray
    val_key: str = VAL_FRACTION  # as that of the text


def cached_tokenizer(config: TokenizerConfig, text: Text, downloads: Downloads) -> Tokenizer:
    """`config.build(text)`, or the same tokenizer from the cache when it was built before."""

    def build(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(config.build(text, downloads).to_json(), encoding="utf-8")

    name, options = type(config).__name__, json.dumps(asdict(config), sort_keys=True)
    key = cache.digest(text.digest, name, options, config.identity(), tokenizers.__version__, str(LONGEST))
    entry = cache.entry(downloads.root, "tokenizer", key, cache.brief(config), build)
    return from_json((entry / "tokenizer.json").read_text(encoding="utf-8"))


def cache_tokens(text: Text, tokenizer: Tokenizer, downloads: Downloads) -> Tokens:
    """Both splits of `text` in ids, encoded now or found in the cache.

    Raises ValueError when the text has documents and the tokenizer nothing to put between them.
    """
    if text.documents and tokenizer.end_of_text is None:
        raise ValueError(
            "the corpus has documents, but the tokenizer that init_from brings has no end-of-text token; train that "
            "run with 'tokenizer.special_tokens=[\"<|endoftext|>\"]', or start this one with init_tokenizer=new"
        )
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    splits = {"train.bin": text.train, "val.bin": text.val}

    def build(folder: Path) -> None:
        with progress("tokenizing", text.train.size + text.val.size) as advance:
            for name, split in splits.items():
                with (folder / name).open("wb") as file:
                    for ids, size in encoded(split, tokenizer, text.documents):
                        file.write(ids.astype(dtype).tobytes())
                        advance(size)
                if not (folder / name).stat().st_size:  # which cannot be mapped
                    raise ValueError(f"the tokenizer finds no token in the text of {name}")

    key = cache.digest(text.digest, tokenizer.to_json(), dtype.name, str(LONGEST))
    about = f"{tokenizer.vocab_size:,} ids, {text.train.size + text.val.size:,} bytes of text {text.digest[:12]}"
    entry = cache.entry(downloads.root, "tokens", key, about, build)
    train, val = (np.memmap(entry / name, dtype=dtype, mode="r") for name in splits)
    return Tokens(train, val, text.val_key)


def encoded(
    split: Split, tokenizer: Tokenizer, documents: bool, at_once: int = AT_ONCE
) -> Iterator[tuple[np.ndarray, int]]:
    """A split as stretches of ids, each with the bytes of text it stands for; memory is that of `at_once` characters.

    If the text has `documents`, the end-of-text token stands behind each.
    """
    end = np.array([tokenizer.end_of_text] if documents else [], np.int64)
    batch: list[tuple[str, bool]] = []
    chars = 0

    def encode() -> tuple[np.ndarray, int]:
        parts: list[np.ndarray] = []
        for ids, (_, ends) in zip(tokenizer.encode_batch([piece for piece, _ in batch]), batch, strict=True):
            parts += [ids, end] if ends else [ids]
        return np.concatenate(parts), sum(len(piece.encode()) for piece, _ in batch)

    for piece in split.pieces(border=tokenizer.border):
        batch.append(piece)
        chars += len(piece[0])
        if chars >= at_once:
            yield encode()
            batch, chars = [], 0
    if batch:
        yield encode()
