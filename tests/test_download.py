"""Downloads from a local server that misbehaves in many ways."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lm import __version__
from lm.data import download
from lm.data.download import Downloads

BODY = random.Random(0).randbytes(50_000)
SHA = hashlib.sha256(BODY).hexdigest()
LOGIN = b"\n <!DOCTYPE HTML><title>Please sign in</title>"
WEDNESDAY = "Wed, 21 Oct 2015 07:28:00 GMT"
Answer = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            nth = self.server.paths.count(self.path)
            self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.server.answers.get(self.path, status(404))(self, nth)

    def head(self, code: int, headers: dict[str, object]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that answers each path by a function of the request and of the number of earlier requests for it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client has left


def whole(body: bytes = BODY, stop: int | None = None, **extra: object) -> Answer:
    """Answer with a file and the headers that resuming needs (default: a strong ETag); disconnect before byte `stop`."""
    extra = {key.replace("_", "-"): value for key, value in (extra or {"ETag": '"v1"'}).items()}

    def answer(handler: Handler, nth: int) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range") in (None, *extra.values())
        start = int(asked[1]) if asked and same else 0
        if start >= len(body) > 0:
            return handler.head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": 0})
        span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        handler.head(206 if start else 200, {"Content-Length": len(body) - start} | span | extra)
        handler.wfile.write(body[start:stop])

    return answer


def status(code: int, **extra: object) -> Answer:
    extra = {key.replace("_", "-"): value for key, value in extra.items()}
    return lambda handler, nth: handler.head(code, {"Content-Length": 0} | extra)


def plain(body: bytes = BODY, code: int = 200, **headers: object) -> Answer:
    """Answer every request with exactly these headers and bytes."""
    headers = {key.replace("_", "-"): value for key, value in headers.items()}

    def answer(handler: Handler, nth: int) -> None:
        handler.head(code, headers)
        handler.wfile.write(body)

    return answer


def stalling(stop: int) -> Answer:
    def answer(handler: Handler, nth: int) -> None:
        whole(stop=stop)(handler, nth)
        handler.wfile.flush()
        handler.server.over.wait()

    return answer


def chunked(body: bytes = BODY, end: bytes = b"0\r\n\r\n", forever: bool = False) -> Answer:
    def answer(handler: Handler, nth: int) -> None:
        handler.head(200, {"Transfer-Encoding": "chunked", "ETag": '"v1"'})
        while True:
            handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
            if not forever:
                break
        handler.wfile.write(end)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Give each answer once, and then always the last one."""
    return lambda handler, nth: answers[min(nth, len(answers) - 1)](handler, nth)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between attempts in seconds, instead of sleeping."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    slept: list[float] = []
    monkeypatch.setattr(download, "sleep", slept.append)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    return slept


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "lm")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "lm"]


def left(root: Path) -> set[str]:
    """Return all files in root/corpora except locks."""
    files = (path for path in (root / "corpora").rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root / "corpora")) for path in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted_download(
    root: Path, url: str, stop: int = 20_000, body: bytes = BODY, version: str | None = '"v1"'
) -> None:
    """Create the files that an interrupted download of `url` leaves."""
    (root / "corpora").mkdir(parents=True)
    (root / "corpora/a.txt.part").write_bytes(body[:stop])
    (root / "corpora/a.txt.part.json").write_text(json.dumps({"url": url, "version": version}))


# Which files are downloaded


def test_a_file_is_downloaded_once_and_recorded(tmp_path, server, slept, lines):
    server.answers["/a.txt"] = whole()
    path = Downloads(tmp_path).get("books/a.txt", [f"{server.url}/a.txt"])
    assert path == tmp_path / "corpora/books/a.txt" and path.read_bytes() == BODY
    assert (tmp_path / "corpora/books/a.txt.sha256").read_text() == f"{SHA}  a.txt\n"
    assert names(path.parent) == ["a.txt", "a.txt.sha256"]  # the lock is removed too
    host = server.url.removeprefix("http://")
    assert lines() == [f"downloading books/a.txt from {host} (50.0 kB)", "downloaded books/a.txt (50.0 kB)"]
    headers = server.requests[0][1]
    assert headers["Accept-Encoding"] == "identity" and headers["User-Agent"] == f"lm/{__version__}"
    assert Downloads(tmp_path).get("books/a.txt", [f"{server.url}/a.txt"]) == path
    assert len(server.requests) == 1 and slept == [] and len(lines()) == 2


@pytest.mark.parametrize("pin", [{}, {"sha256": SHA}, {"size": len(BODY)}, {"sha256": SHA, "size": len(BODY)}])
def test_a_file_is_downloaded_with_or_without_sha256_and_size(tmp_path, server, pin):
    server.answers["/a.txt"] = whole()
    for _ in range(2):
        assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], **pin).read_bytes() == BODY
    assert server.ranges == [None] and left(tmp_path) == {"a.txt", "a.txt.sha256"}


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("pin", [{}, {"sha256": SHA}, {"size": len(BODY)}])
def test_an_existing_file_is_used(tmp_path, server, pin, offline):
    path = tmp_path / "corpora/a.txt"
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert Downloads(tmp_path, offline=offline).get("a.txt", [f"{server.url}/a.txt"], **pin) == path
    assert server.requests == [] and names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("corrupted", [BODY[:-1], BODY[:-1] + b"?", b"", LOGIN])
@pytest.mark.parametrize("pin", ["sha256", "size", "record"])
def test_a_corrupted_file_is_downloaded_again(tmp_path, server, pin, corrupted):
    server.answers["/a.txt"] = whole()
    path = tmp_path / "corpora/a.txt"
    path.parent.mkdir()
    path.write_bytes(corrupted)
    if pin == "record":
        path.with_name("a.txt.sha256").write_text(f"{SHA}  a.txt\n")
    known = {"sha256": {"sha256": SHA}, "size": {"size": len(BODY)}, "record": {}}[pin]
    unseen = pin == "size" and len(corrupted) == len(BODY)  # the size alone cannot show it
    Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], **known)
    assert len(server.requests) == (0 if unseen else 1)
    assert path.read_bytes() == (corrupted if unseen else BODY)


def test_a_corrupted_file_is_kept_if_it_cannot_be_downloaded_again(tmp_path, server):
    path = tmp_path / "corpora/a.txt"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"a.txt is corrupted .expected sha256 {SHA}, got .*the download failed"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../a.txt", "books/../../a.txt", "/a.txt"])
def test_names_outside_of_the_folder_are_refused(tmp_path, server, name):
    server.answers["/a.txt"] = whole()
    with pytest.raises(ValueError, match="is outside of .*corpora"):
        Downloads(tmp_path / "data").get(name, [f"{server.url}/a.txt"])
    assert list(tmp_path.iterdir()) == [] and server.requests == []


# Offline


def test_the_offline_message_says_where_to_put_the_file(tmp_path):
    urls = ["https://one.example/a.txt", "https://two.example/a.txt"]
    with pytest.raises(ValueError) as error:
        Downloads(tmp_path, offline=True).get("a.txt", urls, SHA)
    assert str(error.value) == (
        f"{tmp_path}/corpora/a.txt does not exist, and data.offline=true forbids downloading it; put the file there yourself, from\n"
        "  https://one.example/a.txt\n"
        "  https://two.example/a.txt\n"
        f"its sha256 is {SHA}"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        (
            {"sha256": SHA},
            f"a.txt is corrupted .expected sha256 {SHA}, got {hashlib.sha256(b'mine').hexdigest()}.*offline",
        ),
        ({"size": 50_000}, "a.txt has 4 bytes, not 50,000, and data.offline=true"),
    ],
)
def test_the_offline_message_names_the_problem_of_a_file(tmp_path, pin, message):
    path = tmp_path / "corpora/a.txt"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=message):
        Downloads(tmp_path, offline=True).get("a.txt", ["http://one.example/a.txt"], **pin)
    assert path.read_bytes() == b"mine" and names(path.parent) == ["a.txt"]


# Resuming


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"ETag": '"v1"'}, '"v1"'),
        ({"ETag": '"v1"', "Last_Modified": WEDNESDAY}, '"v1"'),
        ({"ETag": 'W/"v1"', "Last_Modified": WEDNESDAY}, WEDNESDAY),
        ({"Last_Modified": WEDNESDAY}, WEDNESDAY),
    ],
)
def test_a_dropped_connection_is_resumed(tmp_path, server, slept, headers, if_range):
    server.answers["/a.txt"] = in_turn(whole(stop=20_000, **headers), whole(stop=35_000, **headers), whole(**headers))
    path = Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert path.read_bytes() == BODY and left(tmp_path) == {"a.txt", "a.txt.sha256"}
    assert (tmp_path / "corpora/a.txt.sha256").read_text().startswith(SHA)
    assert server.ranges == [None, "bytes=20000-", "bytes=35000-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, if_range, if_range]
    assert len(slept) == 2


@pytest.mark.parametrize("etag", [{"ETag": 'W/"v1"'}, {"Server": "plain"}])
def test_without_a_version_only_files_with_a_known_sha256_are_resumed(tmp_path, server, etag):
    server.answers["/a.txt"] = in_turn(whole(stop=20_000, **etag), whole(**etag))
    server.answers["/b.txt"] = in_turn(whole(stop=20_000, **etag), whole(**etag))
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert Downloads(tmp_path).get("b.txt", [f"{server.url}/b.txt"], SHA).read_bytes() == BODY
    assert server.ranges == [None, None, None, "bytes=20000-"]
    assert all("If-Range" not in headers for _, headers in server.requests)


def test_a_stalled_connection_is_resumed(tmp_path, server, slept, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.answers["/a.txt"] = in_turn(stalling(20_000), whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges[0] is None and len(server.ranges) == 2 and len(slept) == 1
    start = int(re.fullmatch(r"bytes=(\d+)-", server.ranges[1])[1])
    assert 10_000 < start <= 20_000  # a read that stalls can lose its last few bytes


def test_a_server_that_never_answers_fails_after_all_attempts(tmp_path, server, slept, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    server.answers["/a.txt"] = lambda handler, nth: handler.server.over.wait()
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"/a.txt: timed out \(5 attempts\)"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert 0.25 <= time.monotonic() - began < 3
    assert len(server.requests) == 5 and len(slept) == 4 and left(tmp_path) == set()


def test_the_next_run_resumes_a_failed_download(tmp_path, server):
    server.answers["/a.txt"] = whole(stop=20_000)
    with pytest.raises(ValueError, match=r"5 attempts"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert server.ranges == [None] + ["bytes=20000-"] * 4  # the range was not answered either
    assert left(tmp_path) == {"a.txt.part", "a.txt.part.json"}
    assert (tmp_path / "corpora/a.txt.part").read_bytes() == BODY[:20_000]
    server.answers["/a.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges[5:] == ["bytes=20000-"] and left(tmp_path) == {"a.txt", "a.txt.sha256"}


def test_a_part_file_is_not_resumed_from_another_address(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt", body=b"!" * 50_000)
    server.answers["/b.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/b.txt"]).read_bytes() == BODY
    assert server.ranges == [None]


def test_an_address_without_the_file_keeps_the_part_file_of_another(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt")
    server.answers["/a.txt"] = whole()
    server.answers["/login"] = plain(LOGIN, Content_Type="text/html")
    urls = [f"{server.url}/missing", f"{server.url}/login", f"{server.url}/a.txt"]
    assert Downloads(tmp_path).get("a.txt", urls).read_bytes() == BODY
    assert server.ranges == [None, None, "bytes=20000-"]


@pytest.mark.parametrize("note", ["", "{}", None])
def test_a_part_file_of_unknown_origin_is_not_resumed(tmp_path, server, note):
    interrupted_download(tmp_path, f"{server.url}/a.txt", body=b"!" * 50_000)
    path = tmp_path / "corpora/a.txt.part.json"
    path.unlink() if note is None else path.write_text(note)
    server.answers["/a.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA).read_bytes() == BODY
    assert server.ranges == [None]


def test_a_download_starts_over_if_the_server_ignores_ranges(tmp_path, server):
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), plain(Content_Length=len(BODY), ETag='"v1"'))
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-"]
    assert (tmp_path / "corpora/a.txt.sha256").read_text().startswith(SHA)


@pytest.mark.parametrize(
    "span", ["bytes 0-49999/50000", "bytes 20001-49999/50000", "bytes 20000-49999/*", "items 20000-49999/50000", None]
)
def test_a_download_starts_over_if_the_range_is_another(tmp_path, server, slept, span):
    headers = {"Content_Range": span} if span else {}
    wrong = plain(BODY[20_000:], 206, Content_Length=30_000, ETag='"v1"', **headers)
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), wrong, whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-", None]
    assert len(slept) == 1  # starting over does not count as a failure


def test_a_range_that_is_too_short_is_completed(tmp_path, server):
    some = plain(BODY[20_000:30_000], 206, Content_Length=10_000, Content_Range="bytes 20000-29999/50000")
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), some, whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]
    assert server.requests[2][1]["If-Range"] == '"v1"'  # the shorter answer did not repeat the ETag


@pytest.mark.parametrize("stop", [50_000, 60_000])
def test_a_download_starts_over_after_status_416(tmp_path, server, slept, stop):
    interrupted_download(tmp_path, f"{server.url}/a.txt", stop, BODY + b"!" * 10_000)
    server.answers["/a.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == [f"bytes={stop}-", None] and slept == []


def test_status_416_for_a_whole_file_is_an_error(tmp_path, server):
    server.answers["/a.txt"] = status(416)
    with pytest.raises(ValueError, match="HTTP Error 416"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert server.ranges == [None]


def test_a_complete_part_file_needs_no_request(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt", len(BODY))
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA).read_bytes() == BODY
    assert server.requests == [] and left(tmp_path) == {"a.txt", "a.txt.sha256"}


def test_a_file_that_has_changed_is_downloaded_from_the_beginning(tmp_path, server):
    new = BODY[::-1]
    server.answers["/a.txt"] = in_turn(
        whole(stop=20_000), whole(new, ETag='"v2"', stop=30_000), whole(new, ETag='"v2"')
    )
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == new
    assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"v1"', '"v2"']


def test_a_changed_file_is_noticed_if_the_server_ignores_if_range(tmp_path, server):
    new = BODY[::-1]
    careless = plain(new[20_000:], 206, Content_Length=30_000, Content_Range="bytes 20000-49999/50000", ETag='"v2"')
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), careless, whole(new, ETag='"v2"'))
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == new
    assert server.ranges == [None, "bytes=20000-", None]


# Wrong bytes


def test_after_wrong_bytes_the_next_address_is_tried(tmp_path, server, slept):
    server.answers["/bad"], server.answers["/good"] = whole(BODY[::-1]), whole()
    path = Downloads(tmp_path).get("a.txt", [f"{server.url}/bad", f"{server.url}/good"], SHA)
    assert path.read_bytes() == BODY and server.paths == ["/bad", "/good"] and slept == []


def test_wrong_bytes_are_reported_and_removed(tmp_path, server):
    server.answers["/bad"] = whole(BODY[::-1])
    with pytest.raises(
        ValueError, match=f"/bad: expected sha256 {SHA}, got {hashlib.sha256(BODY[::-1]).hexdigest()}\n"
    ):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/bad"], SHA)
    assert server.ranges == [None] and left(tmp_path) == set()


def test_a_resumed_file_with_wrong_bytes_is_downloaded_once_more_from_scratch(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt", body=b"!" * 50_000)
    server.answers["/a.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA).read_bytes() == BODY
    assert server.ranges == ["bytes=20000-", None]


def test_a_resumed_file_that_is_wrong_twice_fails(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt")
    server.answers["/a.txt"] = whole(BODY[::-1])
    with pytest.raises(ValueError, match=f"got {hashlib.sha256(BODY[::-1]).hexdigest()}"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA)
    assert server.ranges == ["bytes=20000-", None] and left(tmp_path) == set()


def test_wrong_bytes_are_requested_once_if_ranges_are_ignored(tmp_path, server):
    interrupted_download(tmp_path, f"{server.url}/a.txt")
    server.answers["/a.txt"] = plain(BODY[::-1], Content_Length=len(BODY))
    with pytest.raises(ValueError, match=f"got {hashlib.sha256(BODY[::-1]).hexdigest()}"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], SHA)
    assert server.ranges == ["bytes=20000-"] and left(tmp_path) == set()


@pytest.mark.parametrize(
    ("body", "kind", "pin", "message"),
    [
        (LOGIN, "text/plain", {"sha256": SHA}, "expected sha256 .*, got .*: an HTML page, not the file .a login or"),
        (LOGIN, "text/html", {"sha256": SHA}, "expected sha256 .*, got .*: an HTML page, not the file"),
        (LOGIN, "text/plain", {}, "/a.txt: an HTML page, not the file"),
        (b"\xef\xbb\xbf<HTML lang=en>", "text/plain", {}, "/a.txt: an HTML page, not the file"),
        (b"{}", "text/html; charset=utf-8", {}, "/a.txt: an HTML page, not the file"),
        (LOGIN, "text/html", {"sha256": SHA, "size": 50_000}, f"{len(LOGIN)} bytes of text/html, not 50,000"),
    ],
)
def test_a_login_page_is_refused(tmp_path, server, body, kind, pin, message):
    server.answers["/a.txt"] = plain(body, Content_Length=len(body), Content_Type=kind)
    with pytest.raises(ValueError, match=message):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], **pin)
    assert len(server.requests) == 1 and left(tmp_path) == set()


def test_a_file_with_a_known_sha256_can_be_html(tmp_path, server):
    server.answers["/a.txt"] = plain(LOGIN, Content_Length=len(LOGIN), Content_Type="text/html")
    path = Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], hashlib.sha256(LOGIN).hexdigest())
    assert path.read_bytes() == LOGIN


def test_a_text_that_mentions_html_is_not_html(tmp_path, server):
    text = b"How to write <!doctype html>: begin with <html>."
    server.answers["/a.txt"] = plain(text, Content_Length=len(text), Content_Type="text/plain")
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == text


# Lengths


def test_a_chunked_answer_without_a_length_is_accepted(tmp_path, server, lines):
    server.answers["/a.txt"] = chunked()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert lines() == [f"downloading a.txt from 127.0.0.1:{server.server_port}", "downloaded a.txt (50.0 kB)"]


@pytest.mark.parametrize("end", [b"", b"ff\r\nshort", b"no number\r\n"])
def test_a_chunked_answer_that_breaks_off_is_resumed(tmp_path, server, end):
    server.answers["/a.txt"] = in_turn(chunked(BODY[:20_000], end), whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert len(server.ranges) == 2 and 10_000 < int(server.ranges[1][6:-1]) <= 20_000


def test_an_answer_that_ends_with_the_connection_is_accepted(tmp_path, server):
    server.answers["/a.txt"] = plain(Connection="close")
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY


def test_fewer_bytes_than_the_known_size_are_a_lost_connection(tmp_path, server, slept):
    server.answers["/a.txt"] = in_turn(plain(BODY[:20_000], ETag='"v1"'), whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], size=50_000).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-"] and len(slept) == 1


def test_a_length_longer_than_the_body_is_a_lost_connection(tmp_path, server, slept):
    server.answers["/a.txt"] = plain(Content_Length=50_001)
    with pytest.raises(ValueError, match=r"the connection ended after 50,000 of 50,001 bytes \(5 attempts\)"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert len(server.requests) == 5 and len(slept) == 4 and "a.txt" not in left(tmp_path)


@pytest.mark.parametrize(
    ("pin", "message"),
    [({"sha256": SHA}, f"expected sha256 {SHA}, got"), ({"size": 50_000}, "49,999 bytes of .*, not 50,000")],
)
def test_a_length_shorter_than_the_body_is_noticed(tmp_path, server, pin, message):
    server.answers["/a.txt"] = plain(Content_Length=49_999)
    with pytest.raises(ValueError, match=message):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], **pin)
    assert len(server.requests) == 1 and left(tmp_path) == set()


def test_after_a_wrong_size_the_next_address_is_tried(tmp_path, server, slept):
    server.answers["/other"], server.answers["/a.txt"] = whole(BODY[1:]), whole()
    path = Downloads(tmp_path).get("a.txt", [f"{server.url}/other", f"{server.url}/a.txt"], size=50_000)
    assert path.read_bytes() == BODY and server.paths == ["/other", "/a.txt"] and slept == []


@pytest.mark.parametrize(("pin", "limit"), [({"size": 50_000}, "50,000"), ({}, "70,000"), ({"sha256": SHA}, "70,000")])
def test_an_endless_body_is_cut_off(tmp_path, server, monkeypatch, pin, limit):
    monkeypatch.setattr(download, "MAX_BYTES", 70_000)
    server.answers["/a.txt"] = chunked(BODY[:30_000], forever=True)
    with pytest.raises(ValueError, match=f"/a.txt: more than {limit} bytes\n"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], **pin)
    assert len(server.requests) == 1 and left(tmp_path) == set()


def test_a_length_above_the_limit_is_refused_before_reading(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 40_000)
    server.answers["/a.txt"] = whole()
    with pytest.raises(ValueError, match="50,000 bytes of text/plain, not 40,000"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert left(tmp_path) == set()


# Answers other than the file


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 501, 204, 206])
def test_after_a_refusal_the_next_address_is_tried_immediately(tmp_path, server, slept, code):
    server.answers["/no"], server.answers["/a.txt"] = status(code), whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/no", f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.paths == ["/no", "/a.txt"] and slept == []


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_temporary_errors_are_retried_after_a_wait(tmp_path, server, slept, code):
    server.answers["/a.txt"] = in_turn(status(code), status(code), whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert len(server.requests) == 3
    assert 0.5 <= slept[0] <= 1.5 and 1 <= slept[1] <= 3 and slept[1] != 2 * slept[0]  # with jitter


@pytest.mark.parametrize(
    ("after", "low", "high"),
    [
        ("7", 7, 7),
        (lambda: formatdate(time.time() + 3000, usegmt=True), 60, 60),
        ("86400", 60, 60),
        ("0", 0.5, 1.5),
        (WEDNESDAY, 0.5, 1.5),
        ("soon", 0.5, 1.5),
        ("-5", 0.5, 1.5),
    ],
)
def test_retry_after_is_followed_up_to_a_maximum(tmp_path, server, slept, after, low, high):
    after = after() if callable(after) else after  # a date in the name of a test would change every second
    server.answers["/a.txt"] = in_turn(status(429, Retry_After=after), whole())
    Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert len(slept) == 1 and low <= slept[0] <= high


def test_retry_after_can_be_a_date(tmp_path, server, slept):
    server.answers["/a.txt"] = in_turn(
        lambda handler, nth: status(503, Retry_After=formatdate(time.time() + 20, usegmt=True))(handler, nth), whole()
    )
    Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert len(slept) == 1 and 15 < slept[0] <= 20


def test_a_failure_names_every_address_and_the_alternatives(tmp_path, server, slept):
    server.answers["/b"] = status(503)
    server.answers["/c"] = lambda handler, nth: None  # hangs up
    closed = Server()
    closed.server_close()
    urls = [f"{server.url}/a", f"{server.url}/b", f"{server.url}/c", f"{closed.url}/d"]
    with pytest.raises(ValueError) as error:
        Downloads(tmp_path).get("a.txt", urls, SHA)
    first, a, b, c, d, *last = str(error.value).splitlines()
    assert first.startswith(f"{tmp_path}/corpora/a.txt does not exist") and "put the file there yourself" in first
    assert a == f"  {urls[0]}: HTTP Error 404: Not Found"
    assert b == f"  {urls[1]}: HTTP Error 503: Service Unavailable (5 attempts)"
    assert c == f"  {urls[2]}: Remote end closed connection without response (5 attempts)"
    assert d.startswith(f"  {urls[3]}: ") and "refused" in d and d.endswith("(5 attempts)")
    for way in ("data.mirror=", "corpus=text corpus.path=my.txt", "corpus=words"):
        assert way in " ".join(last)
    assert server.paths == ["/a"] + ["/b"] * 5 + ["/c"] * 5 and len(slept) == 12
    assert left(tmp_path) == set()


def test_redirects_are_followed_with_the_range(tmp_path, server):
    server.answers["/a.txt"] = status(302, Location="/there")
    server.answers["/there"] = in_turn(whole(stop=20_000), whole())
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.paths == ["/a.txt", "/there", "/a.txt", "/there"]
    assert server.ranges == [None, None, "bytes=20000-", "bytes=20000-"]


def test_redirects_to_local_files_are_refused(tmp_path, server):
    (tmp_path / "secret").write_text("secret")
    server.answers["/a.txt"] = status(302, Location=f"file://{tmp_path}/secret")
    server.answers["/round"] = status(302, Location="/round")
    with pytest.raises(ValueError, match="(?s)302.*not allowed.*infinite loop"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt", f"{server.url}/round"])
    assert left(tmp_path) == set()


@pytest.mark.parametrize("url", ["ftp://one.example/a.txt", "file:///etc/hostname", "one.example/a.txt", "http:///a"])
def test_only_http_addresses_are_accepted(tmp_path, url):
    with pytest.raises(ValueError, match=re.escape(f"{url} is not an http:// or https:// address")):
        Downloads(tmp_path).get("a.txt", [url])
    assert left(tmp_path) == set()


# Mirrors and proxies


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_mirror_is_tried_first(tmp_path, server, slash):
    server.answers["/m/one.example/books/a.txt?x=1"] = whole()
    path = Downloads(tmp_path, mirror=f"{server.url}/m{slash}").get("a.txt", ["https://one.example/books/a.txt?x=1"])
    assert path.read_bytes() == BODY and server.paths == ["/m/one.example/books/a.txt?x=1"]


def test_the_original_addresses_are_tried_after_the_mirror(tmp_path, server):
    host = server.url.removeprefix("http://")
    server.answers["/b"] = whole()
    urls = [f"{server.url}/a", f"{server.url}/b"]
    assert Downloads(tmp_path, mirror=f"{server.url}/m").get("a.txt", urls).read_bytes() == BODY
    assert server.paths == [f"/m/{host}/a", f"/m/{host}/b", "/a", "/b"]


def test_a_mirror_must_be_an_address(tmp_path, server):
    with pytest.raises(ValueError, match="data.mirror: /srv/mirror/127.0.0.1.* is not an http:// or https:// address"):
        Downloads(tmp_path, mirror="/srv/mirror").get("a.txt", [f"{server.url}/a.txt"])
    assert server.requests == []


def test_the_proxy_of_the_environment_is_used(tmp_path, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.answers["http://one.example/a.txt"] = whole()  # the form of a request to a proxy
    assert Downloads(tmp_path).get("a.txt", ["http://one.example/a.txt"]).read_bytes() == BODY
    assert server.paths == ["http://one.example/a.txt"]


# Log lines and the progress bar


def test_a_quiet_download_prints_nothing(tmp_path, server, lines, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    server.answers["/a.txt"] = whole()
    Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"], quiet=True)
    assert lines() == [] and capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_progress_bar_instead_of_lines(tmp_path, server, lines, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), whole())
    Downloads(tmp_path).get("books/a.txt", [f"{server.url}/a.txt"])
    shown = terminal.getvalue()
    assert "books/a.txt" in shown and "100%" in shown and "50.0/50.0 kB" in shown
    assert lines() == [] and capsys.readouterr().out == ""


def test_start_and_end_are_logged_once_for_any_number_of_attempts(tmp_path, server, lines):
    server.answers["/a.txt"] = in_turn(status(503), whole(stop=20_000), whole(stop=30_000), whole())
    Downloads(tmp_path).get("a.txt", [f"{server.url}/missing", f"{server.url}/a.txt"])
    said = lines()
    again = [line for line in said if "retrying in" in line]
    assert len(again) == 3 and all(f"{server.url}/a.txt" in line for line in again)
    assert [line.split()[0] for line in said if line not in again] == ["downloading", "downloaded"]


# The disk

Usage = namedtuple("Usage", "total used free")


def test_a_file_is_renamed_once_all_of_it_is_on_disk(tmp_path, server, monkeypatch):
    seen = []
    monkeypatch.setattr(download.os, "fsync", lambda file: seen.append((os.fstat(file).st_size, left(tmp_path))))
    server.answers["/a.txt"] = whole()
    Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert seen == [(len(BODY), {"a.txt.part", "a.txt.part.json"})]


@pytest.mark.parametrize("pin", [{}, {"size": len(BODY)}])
def test_too_little_disk_space_is_reported_before_the_download(tmp_path, server, monkeypatch, slept, pin):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 49_999, 49_999))
    server.answers["/a.txt"] = whole()
    message = f"not enough disk space in {tmp_path}/corpora: a.txt needs 50,000 bytes, 49,999 are free"
    with pytest.raises(ValueError, match=re.escape(message)):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt", f"{server.url}/b.txt"], **pin)
    assert left(tmp_path) == set() and server.paths == ["/a.txt"] and slept == []


def test_space_for_the_missing_bytes_is_sufficient(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 30_000, 30_000))
    interrupted_download(tmp_path, f"{server.url}/a.txt")
    server.answers["/a.txt"] = whole()
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == ["bytes=20000-"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_a_disk_that_becomes_full_is_reported(tmp_path, server, slept):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/a.txt.part").symlink_to("/dev/full")
    server.answers["/a.txt"] = whole()
    with pytest.raises(
        ValueError, match=r"not enough disk space in .*/corpora: a.txt needs 50,000 bytes, [\d,]+ are free .*No space"
    ):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt", f"{server.url}/b.txt"])
    assert names(tmp_path / "corpora") == ["a.txt.lock"] and server.paths == ["/a.txt"] and slept == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_exceeded_quota_is_reported(tmp_path, server, monkeypatch, number):
    def fsync(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(download.os, "fsync", fsync)
    server.answers["/a.txt"] = chunked()
    with pytest.raises(
        ValueError, match=rf"not enough disk space in .*/corpora: [\d,]+ are free .*{os.strerror(number)}"
    ):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert left(tmp_path) == set() and len(server.requests) == 1


def test_other_disk_errors_are_not_retried_as_network_errors(tmp_path, server, slept):
    (tmp_path / "corpora/a.txt.part").mkdir(parents=True)
    server.answers["/a.txt"] = whole()
    with pytest.raises(IsADirectoryError, match="a.txt.part"):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert len(server.requests) == 1 and slept == []


# Interruptions, and other processes


def test_ctrl_c_keeps_the_bytes_received_so_far(tmp_path, server, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "sleep", interrupt)
    server.answers["/a.txt"] = in_turn(whole(stop=20_000), whole())
    with pytest.raises(KeyboardInterrupt):
        Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert left(tmp_path) == {"a.txt.part", "a.txt.part.json"}
    assert Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"]).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-"]


SCRIPT = """
import logging, sys
from pathlib import Path
from lm.data.download import Downloads
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
print(Downloads(Path(sys.argv[1])).get("a.txt", [sys.argv[2]]), flush=True)
"""


def start(root: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(root), url]
    checkout = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_only_one_of_two_processes_downloads(tmp_path, server):
    requested, proceed = threading.Event(), threading.Event()

    def answer(handler: Handler, nth: int) -> None:
        requested.set()
        proceed.wait(10)
        whole()(handler, nth)

    server.answers["/a.txt"] = answer
    with start(tmp_path, f"{server.url}/a.txt") as first:
        assert requested.wait(10)
        with start(tmp_path, f"{server.url}/a.txt") as second:
            assert second.stdout.readline() == "waiting for another process to download a.txt\n"
            proceed.set()
            assert second.stdout.read() == f"{tmp_path}/corpora/a.txt\n"  # and nothing about downloading
        assert first.stdout.read().splitlines()[-1] == f"{tmp_path}/corpora/a.txt"
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(server.requests) == 1 and (tmp_path / "corpora/a.txt").read_bytes() == BODY
    assert names(tmp_path / "corpora") == ["a.txt", "a.txt.sha256"]


def test_the_download_of_a_killed_process_is_resumed(tmp_path, server):
    server.answers["/a.txt"] = in_turn(stalling(40_000), whole())
    part = tmp_path / "corpora/a.txt.part"
    with start(tmp_path, f"{server.url}/a.txt") as process:
        deadline = time.monotonic() + 10
        while not part.exists() or part.stat().st_size < 20_000:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    arrived = part.stat().st_size
    assert process.returncode == -signal.SIGKILL and 20_000 <= arrived < 50_000
    assert left(tmp_path) == {"a.txt.part", "a.txt.part.json"}
    path = Downloads(tmp_path).get("a.txt", [f"{server.url}/a.txt"])
    assert path.read_bytes() == BODY and left(tmp_path) == {"a.txt", "a.txt.sha256"}
    assert server.ranges == [None, f"bytes={arrived}-"]


# Listings


def test_json_is_read_and_not_stored(tmp_path, server, slept, lines):
    server.answers["/m/one.example/list"] = in_turn(status(503), plain(b'{"names": ["a"]}', Content_Length=16))
    downloads = Downloads(tmp_path, mirror=f"{server.url}/m")
    assert downloads.json("https://one.example/list") == {"names": ["a"]}
    assert downloads.json("https://one.example/list") == {"names": ["a"]}
    assert len(server.requests) == 3 and len(slept) == 1 and lines() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), "could not download http.*/list:\n  http.*/list: HTTP Error 404"),
        (plain(LOGIN, Content_Length=len(LOGIN)), "/list: an HTML page, not the file"),
        (plain(b"{", Content_Length=1), "/list is not JSON: "),
        (plain(b'"\xff"', Content_Length=3), "/list is not JSON: "),
        (plain(b'"' + b"x" * 999, Content_Length=1001), "/list: 1,001 bytes of text/plain, not 1,000"),
        (chunked(b"[" * 500, forever=True), "/list: more than 1,000 bytes"),
        (plain(b"[]", Content_Length=3), "/list: the connection ended after 2 of 3 bytes .5 attempts"),
    ],
)
def test_json_that_cannot_be_downloaded_is_reported(tmp_path, server, monkeypatch, answer, message):
    monkeypatch.setattr(download, "MAX_JSON", 1000)
    server.answers["/list"] = answer
    with pytest.raises(ValueError, match=message):
        Downloads(tmp_path).json(f"{server.url}/list")
    assert list(tmp_path.iterdir()) == []


def test_json_is_refused_offline(tmp_path, server):
    server.answers["/list"] = plain(b"[]", Content_Length=2)
    with pytest.raises(ValueError, match=f"data.offline=true forbids downloading {server.url}/list"):
        Downloads(tmp_path, offline=True).json(f"{server.url}/list")
    assert server.requests == []
