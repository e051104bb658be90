"""Encode a text with a tokenizer into memory-mapped token files, which are cached by content."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers

from lm.base.console import progress
from lm.base.errors import UserError
from lm.data import cache
from lm.data.corpus import Split, Text
from lm.data.corpus.pieces import BORDER, LONGEST, OutsideNames
from lm.data.corpus.text import VAL_FRACTION
from lm.data.download import Downloads
from lm.data.tokenizer import Tokenizer, TokenizerConfig, from_json
from lm.data.tokenizer.base import any_of

log = logging.getLogger("lm")
SPELLED = "spelled.json"  # file of an entry: how often the training text contains the name of each special token
BATCH_CHARS = 1 << 21  # characters encoded at a time; the tokenizers library needs about 50 bytes for each


@dataclass(frozen=True)
class Tokens:
    """A corpus as token ids: train (N,) and val (M,), read-only memory maps of uint16 or uint32."""

    train: np.ndarray
    val: np.ndarray
    val_key: str = VAL_FRACTION  # the setting that provides more validation text, as in Text


def cached_tokenizer(config: TokenizerConfig, text: Text, downloads: Downloads) -> Tokenizer:
    """Return `config.build(text)`, from the cache if it was built before."""

    def build(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(config.build(text, downloads).to_json(), encoding="utf-8")

    fields = {key: value for key, value in asdict(config).items() if key != "parse_special" or value}
    name, options = type(config).__name__, json.dumps(fields, sort_keys=True)
    key = cache.digest(text.digest, name, options, config.identity(), tokenizers.__version__, str(LONGEST))
    entry = cache.open_entry(downloads.root, "tokenizer", key, cache.summarize(config), build)
    return from_json((entry / "tokenizer.json").read_text(encoding="utf-8"))


def cache_tokens(text: Text, tokenizer: Tokenizer, downloads: Downloads, parse_special: bool = False) -> Tokens:
    """Return both splits of `text` as token ids, encoded now or read from the cache.

    With `parse_special`, the name of a special token in the text becomes that token. Otherwise it is encoded as
    ordinary text, and a log line says how often the training text contains such names. Raises UserError when the text
    has documents and the tokenizer has no end-of-text token to put between them.
    """
    if text.documents and tokenizer.end_of_text is None:
        raise UserError(
            "the corpus has documents, but the tokenizer from init_from has no end-of-text token; train that "
            "run with 'tokenizer.special_tokens=[\"<|endoftext|>\"]', or start this one with init_tokenizer=new"
        )
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    splits = {"train.bin": text.train, "val.bin": text.val}

    def build(folder: Path) -> None:
        with progress("tokenizing", text.train.size + text.val.size) as advance:
            for name, split in splits.items():
                with (folder / name).open("wb") as file:
                    for ids, size in encode_split(split, tokenizer, text.documents, special=parse_special):
                        file.write(ids.astype(dtype).tobytes())
                        advance(size)
                if not (folder / name).stat().st_size:  # an empty file cannot be memory-mapped
                    raise UserError(f"the tokenizer produces no token for the text of {name}")
        if not parse_special:
            counts = count_spelled_names(text.train, tokenizer.special_tokens)
            (folder / SPELLED).write_text(json.dumps(counts), encoding="utf-8")

    key = cache.digest(text.digest, tokenizer.to_json(), dtype.name, str(LONGEST), *["parse_special"] * parse_special)
    about = f"{tokenizer.vocab_size:,} ids, {text.train.size + text.val.size:,} bytes of text {text.digest[:12]}"
    entry = cache.open_entry(downloads.root, "tokens", key, about, build)
    if (entry / SPELLED).exists():  # entries of older versions have no counts
        counts = json.loads((entry / SPELLED).read_text(encoding="utf-8"))
        for line in special_token_notes(counts, tokenizer):
            log.info("note      %s", line)
    train, val = (np.memmap(entry / name, dtype=dtype, mode="r") for name in splits)
    return Tokens(train, val, text.val_key)


def count_spelled_names(split: Split, names: Iterable[str]) -> dict[str, int]:
    """Count how often a text contains each of the names. Names that do not occur are left out."""
    names = sorted(set(names))
    starts, counts = {name[:2] for name in names}, Counter[str]()
    for piece, _ in split.pieces(border=OutsideNames(BORDER, names)):
        if any(start in piece for start in starts):  # a fast test that most texts fail
            counts.update(any_of(*names).findall(piece))
    return dict(counts.most_common())


def special_token_notes(counts: dict[str, int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a line that names the special tokens in the training text and the setting that parses them."""
    if known := {name: count for name, count in counts.items() if name in tokenizer.special_tokens}:
        names = ", ".join(f"{name} {count:,} times" for name, count in known.items())
        setting = "with tokenizer.parse_special=true they become special tokens"
        yield f"the training text contains {names}, encoded as ordinary text; {setting}"


def encode_split(
    split: Split, tokenizer: Tokenizer, documents: bool, batch_chars: int = BATCH_CHARS, *, special: bool = False
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the token ids (N,) of a split in parts, each with the number of bytes of its text.

    About `batch_chars` characters are encoded at a time, which bounds the memory. If the text has `documents`, the
    end-of-text token follows each of them, unless the document already ends with it. With `special`, the name of a
    special token in the text becomes that token.
    """
    end = np.array([tokenizer.end_of_text] if documents else [], np.int64)
    batch: list[tuple[str, bool]] = []
    chars = 0

    def encode() -> tuple[np.ndarray, int]:
        parts: list[np.ndarray] = []
        texts = [piece for piece, _ in batch]
        encoded = tokenizer.encode_batch(texts, special)
        for ids, (_, ends) in zip(encoded, batch, strict=True):
            parts += [ids, end] if ends and not np.array_equal(ids[-1:], end) else [ids]
        return np.concatenate(parts), sum(len(piece.encode()) for piece, _ in batch)

    for piece in split.pieces(border=tokenizer.border):
        batch.append(piece)
        chars += len(piece[0])
        if chars >= batch_chars:
            yield encode()
            batch, chars = [], 0
    if batch:
        yield encode()
