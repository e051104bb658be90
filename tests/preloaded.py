"""Start Python scripts as real processes that do not spend seconds on importing torch and Lightning.

A server process imports the libraries once. For each script it forks a child, which then runs the script as `python
script.py` would: with its own process id, signals, standard streams, working directory, environment and exit status.
Tests of what the start of the interpreter decides, such as encodings, start it with `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

STATUS_BYTES = 4  # of the process id and of the exit status


class Preloaded(subprocess.Popen):
    """A Popen whose child is forked by the server. The command is [sys.executable, script, *arguments]."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals,
                       start_new_session, *unused):  # type: ignore[override]  # fmt: skip
        assert args[0] == sys.executable and not (preexec_fn or shell or pass_fds), args
        streams = [parent if child == -1 else child for parent, child in enumerate((p2cread, c2pwrite, errwrite))]
        request = {"argv": [str(word) for word in args[1:]], "cwd": str(cwd or Path.cwd()),
                   "env": dict(os.environ if env is None else env), "session": start_new_session}  # fmt: skip
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server_address())
        socket.send_fds(self._server, [json.dumps(request).encode() + b"\n"], streams)
        for child, parent in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if child != -1 and parent != -1:
                os.close(child)
        self.pid = int.from_bytes(self._server.recv(STATUS_BYTES, socket.MSG_WAITALL), "big")
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Return what os.waitpid would, if this process were the parent."""
        self._server.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = self._server.recv(STATUS_BYTES)
        except BlockingIOError:
            return 0, 0
        self._server.close()
        return self.pid, int.from_bytes(status, "big")

    def _internal_poll(self, *unused: Any, **options: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid == self.pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Do what subprocess.run(command, capture_output=True, text=True, **options) does."""
    with Preloaded(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
                   **options) as process:  # fmt: skip
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@cache
def server_address() -> str:
    """Start the server of this test process, which ends with it, and return the address of its socket."""
    short = "/tmp" if Path("/tmp").is_dir() else None  # the path of a socket has at most 107 characters
    folder = tempfile.TemporaryDirectory(prefix="lm-tests-", dir=short)
    address = f"{folder.name}/socket"
    command = [sys.executable, __file__, address]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    assert server.stdout and server.stdout.readline() == b"ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return address


def serve(address: str) -> list[str]:
    """Fork a child for each request. Return only in the children, with the words of their command."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        if 0 in select.select([listener, 0], [], [])[0]:
            sys.exit()  # standard input is closed: the tests have ended
        connection, _ = listener.accept()
        message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        while not message.endswith(b"\n"):
            message += connection.recv(1 << 16)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel removes the monitors
        if os.fork() == 0:  # a monitor, which is the child's parent, because only a parent learns the exit status
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (pid := os.fork()) == 0:
                connection.close()
                return become(json.loads(message), streams)
            for stream in streams:
                os.close(stream)
            connection.sendall(pid.to_bytes(STATUS_BYTES, "big"))
            status = os.waitpid(pid, 0)[1]
            connection.sendall(status.to_bytes(STATUS_BYTES, "big"))
            os._exit(0)
        connection.close()
        for stream in streams:
            os.close(stream)


def become(request: Mapping[str, Any], streams: Sequence[int]) -> list[str]:
    """Give this process the streams, directory and environment of the request, and return its command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    for number, name in ((1, "stdout"), (2, "stderr")):  # buffered as the interpreter does it
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        text = io.TextIOWrapper(raw, "utf-8", errors="backslashreplace" if number == 2 else "strict",
                                line_buffering=number == 2 or os.isatty(number))  # fmt: skip
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    return request["argv"]


def main() -> None:
    sys.path[0] = str(Path(__file__).parents[1])
    gc.disable()
    for name in ("lightning.pytorch", "lm.training.module", "lm.training.trainer", "train"):
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    sys.argv = serve(sys.argv[1])
    sys.path[0] = str(Path(sys.argv[0]).parent)


if __name__ == "__main__":
    main()
    runpy.run_path(sys.argv[0], run_name="__main__")
