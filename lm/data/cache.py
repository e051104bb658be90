"""The cache under data/cache: folders keyed by what they were made from, built once, published whole.

An entry is filled aside and renamed into place, under a lock of its own: so a killed build leaves nothing that looks
finished, and of several processes that want one entry the first builds it and the others wait for it.
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
from lm.base.files import explain_full_disk, remove, replacing, tag_cache

ABOUT = "about.json"  # in each entry: of what it was made, for people


def make_room(folder: Path, root: Path) -> AbstractContextManager[None]:
    """Explain a full or read-only disk while something is written to `folder`, which is below data.root=`root`."""
    prune = commands.script("corpora", "cache", "--prune", "--dir", root)
    return explain_full_disk(folder, "name another place with data.root=", f"make room, e.g. {prune}")


def digest(*parts: str) -> str:
    """A short key for all of `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def summarize(config: Any) -> str:
    """A config as people know it: its kind, and the short fields that are not its class's defaults."""
    parts = [type(config).__name__.removesuffix("Config").lower()]
    for field in fields(config):
        value = getattr(config, field.name)
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if value != usual and len(str(value)) <= 40 and field.name != "licence":
            parts.append(f"{field.name}={value}")
    return " ".join(parts)


def open_entry(root: Path, kind: str, key: str, about: str, build: Callable[[Path], None]) -> Path:
    """The finished folder root/cache/<kind>-<key>; `build` fills it when it is not there yet."""
    path = root / "cache" / f"{kind}-{key}"
    if not (path / ABOUT).exists():
        with make_room(path.parent, root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path).acquire()
        with lock:
            if not (path / ABOUT).exists():
                with make_room(path.parent, root), replacing(path) as aside:
                    aside.mkdir()
                    build(aside)
                    (aside / ABOUT).write_text(json.dumps({"of": about}), encoding="utf-8")
                    remove(path)  # half an entry, of a copy or an older version
                tag_cache(root)
    with suppress(OSError):  # another user's entry, or a read-only disk
        os.utime(path)  # when it was last used: what pruning goes by
    return path


@dataclass(frozen=True)
class Entry:
    path: Path
    kind: str  # text, tokenizer or tokens
    about: str
    bytes: int
    used: float  # seconds since 1970


def list_entries(root: Path) -> Iterator[Entry]:
    """What lies in the cache, longest unused first."""
    found = []
    for path in (root / "cache").glob("[!.]*/"):
        about = "damaged"
        with suppress(OSError, ValueError):
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))["of"]
        with suppress(FileNotFoundError):  # pruned meanwhile
            size = sum(file.stat().st_size for file in path.iterdir())
            found.append(Entry(path, path.name.partition("-")[0], about, size, path.stat().st_mtime))
    yield from sorted(found, key=lambda open_entry: open_entry.used)


def prune(root: Path, unused_days: float = 0.0) -> list[Entry]:
    """Remove entries not used for so many days, and what killed builds left. Returns what went.

    A run that has an entry open keeps its data until it ends.
    """
    gone = [e for e in list_entries(root) if e.used <= time.time() - unused_days * 86400]
    for e in gone:
        aside = e.path.with_name(f".{e.path.name}~pruned~{os.getpid()}")
        with _lock(e.path), suppress(FileNotFoundError):  # pruned meanwhile
            e.path.replace(aside)  # so that nobody takes the rest of it for an entry
            remove(aside)
    for aside in (root / "cache").glob(".*~*~*"):
        with suppress(Timeout), _lock(aside.with_name(aside.name[1:].partition("~")[0]), timeout=0):
            remove(aside)  # whoever still fills it would hold the lock
    return gone


def _lock(path: Path, timeout: float = -1) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
