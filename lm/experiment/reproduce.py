"""Compare the code, versions, device, text and tokenizer that a run recorded with those of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.base import commands
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.files import sha256
from lm.base.hardware import device_name
from lm.config import load_section, register
from lm.data.token_files import cached_tokenizer
from lm.run.directory import collect_environment, read_config, read_record

Fact = tuple[str, object, object]  # name, recorded value, present value


def read_complete_record(run: Path) -> dict[str, Any]:
    """Read the run.json of a run directory. Raises UserError if it does not record how the run was created."""
    record = read_record(run / "run.json")
    if "sessions" not in record:
        raise UserError(f"{run} has no run.json that records how it was created; give a run directory")
    return record


def reproducing_command(record: dict[str, Any], name: str | None) -> str:
    """Return the command that repeats the run as `name`, by default its own name followed by `-again`."""
    return commands.resume(Path("outputs", name or f"{record['name']}-again"), record["overrides"], {})


def compare_facts(run: Path, record: dict[str, Any]) -> list[Fact]:
    """Return everything a run depends on besides its command, as recorded and as it is now. Raises UserError."""
    now = collect_environment()
    facts: list[Fact] = [
        ("commit", record.get("git_commit"), now["git_commit"]),
        ("uncommitted changes", record.get("git_diff"), now["git_diff"]),
    ]
    facts += [(name, record["versions"].get(name), version) for name, version in now["versions"].items()]
    try:
        device = device_name(record["device"])
    except (AssertionError, RuntimeError):  # PyTorch has no such device on this machine
        device = None
    facts.append(("device", record.get("device_name"), device))
    register()
    config = run / "config.yaml"
    downloads = load_section(config, "data").downloads()
    text = load_section(config, "corpus").load(downloads)
    facts.append(("text", record["text"], text.digest))
    if read_config(config)["tokenizer"]["kind"] != "InitFrom":  # otherwise the tokenizer came with the weights
        tokenizer = cached_tokenizer(load_section(config, "tokenizer"), text, downloads)
        facts.append(("tokenizer", record.get("tokenizer"), sha256(tokenizer.to_json())))
    return facts


def format_facts(facts: Sequence[Fact]) -> str:
    """Return a table of the facts with a column that says whether they are the same."""
    rows = [(name, "same" if then == now else "DIFFERS", shorten(then), shorten(now)) for name, then, now in facts]
    return format_table([("", "", "then", "now"), *rows])


def shorten(value: object) -> str:
    """Return a value as text, cut to its first 20 characters if it is longer than 60."""
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:20]}..."
