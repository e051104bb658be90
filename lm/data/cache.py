"""The cache in data/cache: folders that are built once, with a key computed from everything they depend on.

An entry is built in a temporary folder under its own lock and then renamed. A killed build therefore leaves nothing
that looks finished. If several processes need the same entry, the first one builds it and the others wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lm.base import commands
from lm.base.files import atomic_replace, explain_full_disk, remove, tag_cache

ABOUT = "about.json"  # in each entry: a description of its content, for people


def explain_full_cache(folder: Path, root: Path) -> AbstractContextManager[None]:
    """Raise a UserError that says what to do if the disk is full or read-only while the block writes to `folder`.

    `folder` is inside data.root=`root`.
    """
    prune = commands.script("corpora", "cache", "--prune", "--dir", root)
    return explain_full_disk(folder, "choose another place with data.root=", f"free some space, e.g. {prune}")


def digest(*parts: str) -> str:
    """Return a short key that depends on each of `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def summarize(config: Any) -> str:
    """Describe a config for people: its kind, and its short fields that differ from the defaults."""
    parts = [type(config).__name__.removesuffix("Config").lower()]
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default and len(str(value)) <= 40 and field.name != "licence":
            parts.append(f"{field.name}={value}")
    return " ".join(parts)


def open_entry(root: Path, kind: str, key: str, about: str, build: Callable[[Path], None]) -> Path:
    """Return the finished folder root/cache/<kind>-<key>. If it does not exist, `build` fills it first.

    `about` describes the content in listings of the cache.
    """
    path = root / "cache" / f"{kind}-{key}"
    if not (path / ABOUT).exists():
        with explain_full_cache(path.parent, root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path).acquire()
        with lock:
            if not (path / ABOUT).exists():
                with explain_full_cache(path.parent, root), atomic_replace(path) as temporary:
                    temporary.mkdir()
                    build(temporary)
                    (temporary / ABOUT).write_text(json.dumps({"of": about}), encoding="utf-8")
                    remove(path)  # an incomplete entry, e.g. from an interrupted copy or an older version
                tag_cache(root)
    with suppress(OSError):  # the entry may belong to another user, or the disk may be read-only
        os.utime(path)  # the time of last use, which pruning reads
    return path


@dataclass(frozen=True)
class Entry:
    """A folder of the cache."""

    path: Path
    kind: str  # text, tokenizer or tokens
    about: str
    bytes: int
    used: float  # time of last use, seconds since 1970


def list_entries(root: Path) -> Iterator[Entry]:
    """Yield the entries of the cache, the least recently used first."""
    entries = []
    for path in (root / "cache").glob("[!.]*/"):
        about = "corrupted"
        with suppress(OSError, ValueError):
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))["of"]
        with suppress(FileNotFoundError):  # another process has pruned it
            size = sum(file.stat().st_size for file in path.iterdir())
            entries.append(Entry(path, path.name.partition("-")[0], about, size, path.stat().st_mtime))
    yield from sorted(entries, key=lambda entry: entry.used)


def prune(root: Path, unused_days: float = 0.0) -> list[Entry]:
    """Remove the entries not used for `unused_days` and the remains of killed builds. Return the removed entries.

    A run that has an entry open can read its data until the run ends.
    """
    removed = [e for e in list_entries(root) if e.used <= time.time() - unused_days * 86400]
    for e in removed:
        temporary = e.path.with_name(f".{e.path.name}~pruned~{os.getpid()}")
        with _lock(e.path), suppress(FileNotFoundError):  # another process has pruned it
            e.path.replace(temporary)  # so that no process takes a half-removed folder for an entry
            remove(temporary)
    for temporary in (root / "cache").glob(".*~*~*"):
        with suppress(Timeout), _lock(temporary.with_name(temporary.name[1:].partition("~")[0]), timeout=0):
            remove(temporary)  # a process that is still building it would hold the lock
    return removed


def _lock(path: Path, timeout: float = -1) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
