"""Text x Tokenizer -> memory-mapped token files, keyed by content, published atomically.

A cache entry is a folder that is filled aside and renamed into place. So a killed build leaves nothing that looks
finished, and of two processes that build one entry the second discards its own, which is equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers

from lm.corpus import Text
from lm.files import replacing
from lm.tokenizer import Tokenizer, TokenizerConfig, from_json


@dataclass(frozen=True)
class Tokens:
    """A corpus as ids: train (N,) and val (M,), read-only memory maps of uint16 or uint32."""

    train: np.ndarray
    val: np.ndarray


def cached_tokenizer(config: TokenizerConfig, text: Text, root: Path) -> Tokenizer:
    """`config.build(text)`, or the same tokenizer from root/cache when it was built before."""

    def build(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(config.build(text).to_json(), encoding="utf-8")

    key = digest(text.digest, type(config).__name__, json.dumps(asdict(config), sort_keys=True), tokenizers.__version__)
    entry = _entry(root / "cache" / f"tokenizer-{key}", build)
    return from_json((entry / "tokenizer.json").read_text(encoding="utf-8"))


def cache_tokens(text: Text, tokenizer: Tokenizer, root: Path) -> Tokens:
    """Both splits of `text` in ids, encoded now or found in root/cache."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    splits = {"train.bin": text.train, "val.bin": text.val}

    def build(folder: Path) -> None:
        for name, split in splits.items():
            tokenizer.encode(split).astype(dtype).tofile(folder / name)

    entry = _entry(root / "cache" / f"tokens-{digest(text.digest, tokenizer.to_json(), np.dtype(dtype).name)}", build)
    return Tokens(*(np.memmap(entry / name, dtype=dtype, mode="r") for name in splits))


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _entry(path: Path, build: Callable[[Path], None]) -> Path:
    """The finished folder `path`; `build` fills it when it is not there yet."""
    if not path.exists():
        try:
            with replacing(path) as aside:
                aside.mkdir(exist_ok=True)
                build(aside)
        except OSError:
            if not path.exists():  # another process was first: its folder is as good as ours
                raise
    return path
