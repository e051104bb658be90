"""Files over HTTP: resumed where a download broke off, checked, and under their name whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from http.client import HTTPException
from pathlib import Path
from socket import gaierror
from tempfile import TemporaryDirectory
from time import sleep, time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from filelock import FileLock, Timeout
from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from lm import __version__
from lm.base import files
from lm.base.errors import UserError

TIMEOUT = 30.0  # seconds to connect in, and seconds without a byte after which a connection counts as lost
ATTEMPTS = 5  # per address
BACKOFF, MAX_WAIT = 1.0, 60.0  # seconds: about so long before the second attempt, doubled up to this before others
MAX_BYTES, MAX_JSON = 16 * 2**30, 64 * 2**20
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
HTML = "an HTML page, not the file (a login or error page?)"
IS_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", re.IGNORECASE)
WAYS_OUT = """or name a mirror (data.mirror=http://...), train on a text of yours (corpus=text corpus.path=my.txt)
or on generated words, which need no download (corpus=words)"""

log = logging.getLogger("lm")


class _Refused(Exception): ...  # this address does not give the file; the next one may


class _Spoilt(_Refused): ...  # nor is what lies in the part file a beginning of it


@dataclass(frozen=True)
class Downloads:
    """Where downloaded files lie, and how those that are not there may be had."""

    root: Path  # files lie under root/"corpora"
    offline: bool = False  # data.offline
    mirror: str | None = None  # data.mirror: asked first, for MIRROR/<host>/<path> of every address

    def get(
        self, name: str, urls: Sequence[str], sha256: str | None = None, size: int | None = None, quiet: bool = False
    ) -> Path:
        """The file root/corpora/<name>, fetched from the first of `urls` that has it unless it is there and whole."""
        path = self.root / "corpora" / name
        if Path(name).is_absolute() or ".." in Path(name).parts:  # it may come from a listing
            raise UserError(f"{name} is not below {self.root / 'corpora'}")
        if not (fault := _fault(path, sha256, size)):
            return path
        if self.offline:
            failed = f"{path} {fault}, and data.offline=true forbids fetching it: put it there by hand, from"
            raise UserError("\n  ".join([failed, *urls]) + (f"\nits sha256 is {sha256}" if sha256 else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.log(logging.DEBUG if quiet else logging.INFO, "waiting for another process, which fetches %s", name)
            lock.acquire()
        try:
            if fault := _fault(path, sha256, size):
                shown = not quiet and sys.stderr.isatty()
                level = logging.DEBUG if quiet or shown else logging.INFO
                columns = *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn()
                with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
                    failed = f"{path} {fault}, and it could not be fetched; put it there by hand, or see to this:"
                    self._fetch(urls, _Download(name, path, bar, level, MAX_BYTES, sha256, size), failed)
                log.log(level, "fetched %s (%s)", name, decimal(path.stat().st_size))
            files.remove(Path(lock.lock_file))  # whoever gets this lock, or a new one, finds the file whole
        finally:
            lock.release()
        return path

    def json(self, url: str) -> Any:
        """The JSON document at `url`, such as a listing of files; it is not kept."""
        if self.offline:
            raise UserError(f"data.offline=true forbids asking for {url}")
        with TemporaryDirectory() as folder:
            document = Path(folder, "document")
            download = _Download(url, document, Progress(disable=True), logging.DEBUG, MAX_JSON)
            self._fetch([url], download, f"{url} could not be had:")
            try:
                return json.loads(document.read_bytes())
            except ValueError as error:
                raise UserError(f"{url} is not JSON: {error}") from None

    def _fetch(self, urls: Sequence[str], download: _Download, failed: str) -> None:
        """From the first address that gives the file. Raises UserError with what each of them said."""
        mirrored = [f"{self.mirror.rstrip('/')}/{url.partition('://')[2]}" for url in urls] if self.mirror else []
        for url in [*mirrored, *urls]:
            if not re.match("https?://[^/]", url):
                raise UserError(f"{'data.mirror: ' * (url in mirrored)}{url} is no http:// or https:// address")
            if not (trouble := download.fetch(url)):
                return
            failed += f"\n  {url}: {trouble}"
        raise UserError(f"{failed}\n{WAYS_OUT}")


@dataclass
class _Download:
    """One file under way. A note lies beside its part file: from which address it is, and which version of the file."""

    name: str
    path: Path
    bar: Progress
    level: int  # of log lines
    limit: int
    sha256: str | None = None
    size: int | None = None
    total: int | None = None  # bytes of the whole file, once known
    resumed: bool = False  # whether the part file began with an earlier answer

    def fetch(self, url: str) -> str:
        """What kept this address from giving the file, after as many attempts as it is worth; "" when it gave it."""
        for attempt in range(ATTEMPTS):
            try:
                self.attempt(url)
                return ""
            except _Refused as error:
                return str(error)
            except HTTPError as error:
                trouble, asked = str(error), error.headers.get("Retry-After", "")  # seconds, or a date
                if error.code not in TRANSIENT:
                    return trouble
                date = parsedate_tz(asked)
                after = mktime_tz(date) - time() if date else float(asked) if asked.isdecimal() else 0.0
            except (OSError, HTTPException) as error:
                if getattr(error, "filename", None):
                    raise  # of this machine's disk
                trouble, after = str(error), 0.0
                if isinstance(getattr(error, "reason", None), gaierror):
                    return trouble  # who has no name server will not have one in a minute
            if attempt + 1 < ATTEMPTS:
                backoff = BACKOFF * 2**attempt * random.SystemRandom().uniform(0.5, 1.5)  # from no seeded stream
                pause = min(max(after, backoff), MAX_WAIT)
                log.log(self.level, "%s: %s; trying again in %.0f s", url, trouble, pause)
                sleep(pause)
        return f"{trouble} ({ATTEMPTS} attempts)"

    def attempt(self, url: str) -> None:
        part, note, record = (self.path.with_name(self.path.name + end) for end in (".part", ".part.json", ".sha256"))
        try:
            digest = self.request(url, part, note)
            files.write_text(record, f"{digest}  {self.path.name}\n")
            part.replace(self.path)
            files.remove(note)
        except (_Spoilt, OSError) as error:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            if not (full or isinstance(error, _Spoilt) or getattr(error, "code", None) == 416):
                raise
            files.remove(part)
            files.remove(note)
            if full:
                needs = "" if self.total is None else f"{self.name} needs {self.total:,} bytes, "
                needs += f"{shutil.disk_usage(part.parent).free:,} are free"
                raise UserError(f"no room in {part.parent}: {needs} ({error})") from error
            if not self.resumed:
                raise
            self.attempt(url)  # from scratch

    def request(self, url: str, part: Path, note: Path) -> str:
        """The sha256 of the file, all of which lies in `part` then."""
        lying = part.stat().st_size if part.exists() else 0
        known = json.loads(note.read_text(encoding="utf-8") or "{}") if note.exists() else {}
        digest, have, headers = hashlib.sha256(), 0, {"User-Agent": f"lm/{__version__}", "Accept-Encoding": "identity"}
        if lying and known.get("url") == url and (known["version"] or self.sha256):
            with part.open("rb") as file:
                digest, have = hashlib.file_digest(file, "sha256"), lying
            if digest.hexdigest() == self.sha256:  # killed just before it took its name
                return digest.hexdigest()
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known["version"]} if known["version"] else {})
        self.resumed = have > 0
        with build_opener().open(Request(url, headers=headers), timeout=TIMEOUT) as response:
            etag = response.headers.get("ETag", "W/")  # a weak one may stand for other bytes too
            version = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            span = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if response.status == 200:
                digest, have, self.resumed = hashlib.sha256(), 0, False
                self.total = self.size if response.length is None else response.length
            elif span and int(span[1]) == have and version in (None, known.get("version")):
                self.total = int(span[2])
            else:
                raise _Spoilt(f"HTTP status {response.status} without the bytes that were asked for")
            kind, most = response.headers.get_content_type(), self.limit if self.total is None else self.total
            if kind == "text/html" and not self.sha256:
                raise _Refused(HTML)
            if self.size not in (None, self.total) or most > self.limit:
                raise _Refused(f"{most:,} bytes of {kind}, not {self.size or self.limit:,}")
            if (self.total or 0) - lying > shutil.disk_usage(part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if not self.bar.tasks:  # the first answer
                self.bar.add_task(self.name, total=self.total)
                size = f" ({decimal(self.total)})" if self.total else ""
                log.log(self.level, "fetching %s from %s%s", self.name, Request(url).host, size)
            with part.open("ab" if have else "wb") as file:
                if not have:  # not before the part file is empty: old bytes never go by a new version
                    files.write_text(note, json.dumps({"url": url, "version": version}))
                while chunk := response.read(2**13):
                    have += len(chunk)
                    if have > most:
                        raise _Spoilt(f"more than {most:,} bytes")
                    file.write(chunk)
                    digest.update(chunk)
                    self.bar.update(self.bar.task_ids[0], completed=have, total=self.total)
                file.flush()
                os.fsync(file.fileno())
        if have < (self.total or 0):
            raise ConnectionError(f"the connection ended after {have:,} of {self.total:,} bytes")
        with part.open("rb") as file:
            html = f": {HTML}" if IS_HTML.match(file.read(512)) else ""
        if digest.hexdigest() != self.sha256 and (self.sha256 or html):
            raise _Spoilt(f"expected sha256 {self.sha256}, got {digest.hexdigest()}{html}" if self.sha256 else HTML)
        return digest.hexdigest()


def _fault(path: Path, sha256: str | None, size: int | None) -> str:
    """What is wrong with the file, to be read on from its name; "" when it is there and whole."""
    if not path.is_file():
        return "is not there"
    if sha256 is None and size is not None:
        return "" if (have := path.stat().st_size) == size else f"has {have:,} bytes, not {size:,}"
    record = path.with_name(path.name + ".sha256")
    expected = sha256 or (record.read_text().partition(" ")[0] if record.exists() else "")
    got = files.sha256(path) if expected else ""
    return "" if got == expected else f"is spoilt (expected sha256 {expected}, got {got})"
