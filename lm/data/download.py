"""Download files over HTTP: resume interrupted downloads, verify the content, and rename only complete files."""

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

TIMEOUT = 30.0  # seconds to connect, and seconds without data after which a connection counts as lost
ATTEMPTS = 5  # per address
BACKOFF, MAX_WAIT = 1.0, 60.0  # seconds before the second attempt; doubled for each further one, up to the maximum
MAX_BYTES, MAX_JSON = 16 * 2**30, 64 * 2**20
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
HTML = "an HTML page, not the file (a login or error page?)"
IS_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", re.IGNORECASE)
ALTERNATIVES = """or set a mirror (data.mirror=http://...), train on your own text (corpus=text corpus.path=my.txt),
or train on generated words, which need no download (corpus=words)"""

log = logging.getLogger("lm")


class _Refused(Exception): ...  # this address does not provide the file, so the next one is tried


class _Corrupted(_Refused): ...  # in addition, the part file is not the beginning of the file and is removed


@dataclass(frozen=True)
class Downloads:
    """The folder of downloaded files, and the settings for downloading missing ones."""

    root: Path  # the files are in root/"corpora"
    offline: bool = False  # data.offline
    mirror: str | None = None  # data.mirror: tried first, with MIRROR/<host>/<path> of every address

    def get(
        self, name: str, urls: Sequence[str], sha256: str | None = None, size: int | None = None, quiet: bool = False
    ) -> Path:
        """Return root/corpora/<name>. Download it if it is missing, or has another sha256, size or recorded sha256."""
        path = self.root / "corpora" / name
        if Path(name).is_absolute() or ".." in Path(name).parts:  # it may come from a listing
            raise UserError(f"{name} is outside of {self.root / 'corpora'}")
        if not (fault := _find_fault(path, sha256, size)):
            return path
        if self.offline:
            failed = f"{path} {fault}, and data.offline=true forbids downloading it; put the file there yourself, from"
            raise UserError("\n  ".join([failed, *urls]) + (f"\nits sha256 is {sha256}" if sha256 else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.log(logging.DEBUG if quiet else logging.INFO, "waiting for another process to download %s", name)
            lock.acquire()
        try:
            if fault := _find_fault(path, sha256, size):
                show_bar = not quiet and sys.stderr.isatty()
                level = logging.DEBUG if quiet or show_bar else logging.INFO
                columns = *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn()
                with Progress(*columns, console=Console(stderr=True), disable=not show_bar) as bar:
                    failed = f"{path} {fault}, and the download failed; put the file there yourself, or fix the cause:"
                    self._fetch(urls, _Download(name, path, bar, level, MAX_BYTES, sha256, size), failed)
                log.log(level, "downloaded %s (%s)", name, decimal(path.stat().st_size))
            files.remove(Path(lock.lock_file))  # the file is complete now, for whoever gets this lock or a new one
        finally:
            lock.release()
        return path

    def json(self, url: str) -> Any:
        """Return the JSON document at `url`, such as a listing of files, without storing it."""
        if self.offline:
            raise UserError(f"data.offline=true forbids downloading {url}")
        with TemporaryDirectory() as folder:
            document = Path(folder, "document")
            download = _Download(url, document, Progress(disable=True), logging.DEBUG, MAX_JSON)
            self._fetch([url], download, f"could not download {url}:")
            try:
                return json.loads(document.read_bytes())
            except ValueError as error:
                raise UserError(f"{url} is not JSON: {error}") from None

    def _fetch(self, urls: Sequence[str], download: _Download, failed: str) -> None:
        """Download from the first address that provides the file. Raises UserError with all problems."""
        mirrored = [f"{self.mirror.rstrip('/')}/{url.partition('://')[2]}" for url in urls] if self.mirror else []
        for url in [*mirrored, *urls]:
            if not re.match("https?://[^/]", url):
                key = "data.mirror: " if url in mirrored else ""
                raise UserError(f"{key}{url} is not an http:// or https:// address")
            if not (problem := download.fetch(url)):
                return
            failed += f"\n  {url}: {problem}"
        raise UserError(f"{failed}\n{ALTERNATIVES}")


@dataclass
class _Download:
    """One download. <name>.part holds the bytes so far, <name>.part.json their address and the file's version."""

    name: str
    path: Path
    bar: Progress
    level: int  # logging level of its messages
    limit: int  # maximum number of bytes
    sha256: str | None = None
    size: int | None = None
    total: int | None = None  # bytes of the whole file, once known
    resumed: bool = False  # the part file holds bytes of an earlier response

    def fetch(self, url: str) -> str:
        """Download from this address, in at most ATTEMPTS attempts. Return the problem, or "" after success."""
        for attempt in range(ATTEMPTS):
            try:
                self.download(url)
                return ""
            except _Refused as error:
                return str(error)
            except HTTPError as error:
                problem, asked = str(error), error.headers.get("Retry-After", "")  # seconds, or a date
                if error.code not in TRANSIENT:
                    return problem
                after = float(asked) if asked.isdecimal() else 0.0
                if date := parsedate_tz(asked):
                    after = mktime_tz(date) - time()
            except (OSError, HTTPException) as error:
                if getattr(error, "filename", None):
                    raise  # a problem of the local disk
                problem, after = str(error), 0.0
                if isinstance(getattr(error, "reason", None), gaierror):
                    return problem  # without a name server, another attempt will not help
            if attempt + 1 < ATTEMPTS:
                backoff = BACKOFF * 2**attempt * random.SystemRandom().uniform(0.5, 1.5)  # not a seeded stream
                pause = min(max(after, backoff), MAX_WAIT)
                log.log(self.level, "%s: %s; retrying in %.0f s", url, problem, pause)
                sleep(pause)
        return f"{problem} ({ATTEMPTS} attempts)"

    def download(self, url: str) -> None:
        """Download the file and give it its name. If a resumed part file is not usable, start again from scratch."""
        part, about, record = (self.path.with_name(self.path.name + end) for end in (".part", ".part.json", ".sha256"))
        try:
            digest = self.request(url, part, about)
            files.write_text(record, f"{digest}  {self.path.name}\n")
            part.replace(self.path)
            files.remove(about)
        except (_Corrupted, OSError) as error:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            if not (full or isinstance(error, _Corrupted) or getattr(error, "code", None) == 416):
                raise
            files.remove(part)
            files.remove(about)
            if full:
                needs = "" if self.total is None else f"{self.name} needs {self.total:,} bytes, "
                needs += f"{shutil.disk_usage(part.parent).free:,} are free"
                raise UserError(f"not enough disk space in {part.parent}: {needs} ({error})") from error
            if not self.resumed:
                raise
            self.download(url)

    def request(self, url: str, part: Path, about: Path) -> str:
        """Download the rest of the file into `part`, which is complete afterwards. Return the sha256 of the file."""
        received = part.stat().st_size if part.exists() else 0
        known = json.loads(about.read_text(encoding="utf-8") or "{}") if about.exists() else {}
        digest, have, headers = hashlib.sha256(), 0, {"User-Agent": f"lm/{__version__}", "Accept-Encoding": "identity"}
        if received and known.get("url") == url and (known["version"] or self.sha256):
            with part.open("rb") as file:
                digest, have = hashlib.file_digest(file, "sha256"), received
            if digest.hexdigest() == self.sha256:  # the process was killed just before renaming
                return digest.hexdigest()
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known["version"]} if known["version"] else {})
        self.resumed = have > 0
        with build_opener().open(Request(url, headers=headers), timeout=TIMEOUT) as response:
            etag = response.headers.get("ETag", "W/")  # a weak ETag does not guarantee identical bytes
            version = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            content_range = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if response.status == 200:
                digest, have, self.resumed = hashlib.sha256(), 0, False
                self.total = self.size if response.length is None else response.length
            elif content_range and int(content_range[1]) == have and version in (None, known.get("version")):
                self.total = int(content_range[2])
            else:
                raise _Corrupted(f"HTTP status {response.status} without the requested bytes")
            kind, most = response.headers.get_content_type(), self.limit if self.total is None else self.total
            if kind == "text/html" and not self.sha256:
                raise _Refused(HTML)
            if self.size not in (None, self.total) or most > self.limit:
                raise _Refused(f"{most:,} bytes of {kind}, not {self.size or self.limit:,}")
            if (self.total or 0) - received > shutil.disk_usage(part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if not self.bar.tasks:  # the first response
                self.bar.add_task(self.name, total=self.total)
                size = f" ({decimal(self.total)})" if self.total else ""
                log.log(self.level, "downloading %s from %s%s", self.name, Request(url).host, size)
            with part.open("ab" if have else "wb") as file:
                if not have:  # only once the part file is empty, so that old bytes never count as a new version
                    files.write_text(about, json.dumps({"url": url, "version": version}))
                while chunk := response.read(2**13):
                    have += len(chunk)
                    if have > most:
                        raise _Corrupted(f"more than {most:,} bytes")
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
            raise _Corrupted(f"expected sha256 {self.sha256}, got {digest.hexdigest()}{html}" if self.sha256 else HTML)
        return digest.hexdigest()


def _find_fault(path: Path, sha256: str | None, size: int | None) -> str:
    """Return the problem of a file, as a predicate for its name, or "" if the file exists and is complete."""
    if not path.is_file():
        return "does not exist"
    if sha256 is None and size is not None:
        return "" if (have := path.stat().st_size) == size else f"has {have:,} bytes, not {size:,}"
    record = path.with_name(path.name + ".sha256")
    expected = sha256 or (record.read_text().partition(" ")[0] if record.exists() else "")
    got = files.sha256(path) if expected else ""
    return "" if got == expected else f"is corrupted (expected sha256 {expected}, got {got})"
