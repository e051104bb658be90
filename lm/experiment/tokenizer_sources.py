"""Find the tokenizer and the text that the arguments of scripts/tokenizer.py name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lm.base.errors import UserError
from lm.config import compose_config, load_section
from lm.config.words import split_files_and_settings
from lm.data.corpus import Text
from lm.data.download import Downloads
from lm.data.token_files import cached_tokenizer
from lm.data.tokenizer import Tokenizer, from_json
from lm.experiment.inputs import load_text
from lm.run import checkpoint
from lm.run.directory import parses_special


@dataclass(frozen=True)
class Source:
    """A tokenizer, and the text to analyze it with."""

    name: str
    tokenizer: Tokenizer
    text: Text | None
    parse_special: bool  # the names of special tokens in the text become those tokens
    downloads: Downloads | None  # the place of the cached ids, if a run trains on exactly this text and tokenizer


def find_source(words: Sequence[str]) -> Source:
    """Return the tokenizer and the text that the words name.

    Without a file, they are those that train.py would use with these settings. The text of a run's tokenizer is that of
    the run unless the settings name a corpus. Other files have a text only if the settings name one.
    """
    paths, settings = split_files_and_settings(words)
    if not paths:
        config = compose_config(settings)
        text, downloads = load_text(config), config.data.downloads()
        tokenizer = cached_tokenizer(config.tokenizer, text, downloads)
        return Source(describe_settings(settings), tokenizer, text, config.tokenizer.parse_special, downloads)
    if len(paths) > 1:
        raise UserError(f"name one run or file at a time, not {', '.join(paths)}")
    path = Path(paths[0])
    tokenizer, run_config = load_tokenizer(path)
    keys = {word.lstrip("+").partition("=")[0] for word in settings}
    groups = {key.partition(".")[0] for key in keys}
    if "tokenizer" in groups:
        raise UserError(f"the tokenizer is that of {path}; remove tokenizer= from the command")
    if "corpus" in groups and not keys & {"corpus", "experiment"}:
        raise UserError("a setting of the corpus requires corpus=..., which chooses the corpus")
    config, parse_special = compose_config(settings), parses_special(run_config.parent if run_config else None)
    if keys & {"corpus", "experiment"}:
        return Source(str(path), tokenizer, load_text(config), parse_special, None)
    if not run_config:
        return Source(str(path), tokenizer, None, parse_special, None)
    corpus = load_section(run_config, "corpus")
    data = config.data if "data" in groups else load_section(run_config, "data")
    return Source(str(path), tokenizer, corpus.load(data.downloads()), parse_special, data.downloads())


def describe_settings(words: Sequence[str]) -> str:
    """Return the settings that define text and tokenizer, as a title."""
    return " ".join(word for word in words if not word.startswith("data.")) or "corpus=shakespeare tokenizer=bpe"


def load_tokenizer(path: Path) -> tuple[Tokenizer, Path | None]:
    """Return the tokenizer of a run, a checkpoint or a file, and the config.yaml of its run, if it belongs to one."""
    if not path.exists():
        other = Path("outputs") / path
        raise UserError(f"{path}: no such run or file" + (f"; did you mean {other}?" if other.exists() else ""))
    run = path if path.is_dir() else path.parent
    if path.suffix == ".ckpt":
        content, run = checkpoint.read(path)["lm"]["tokenizer"], run.parent
    else:
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.exists():
            raise UserError(f"{path} contains no tokenizer.json; name a run, a checkpoint or a tokenizer.json")
        try:
            content = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{file}: neither a tokenizer.json nor a checkpoint (.ckpt)") from None
    config = run / "config.yaml"
    belongs_to_run = path.is_dir() or path.suffix == ".ckpt" or path.name == "tokenizer.json"
    try:
        return from_json(content), config if belongs_to_run and config.exists() else None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
