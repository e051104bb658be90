"""Text that a user names or types on a command line. It is UTF-8, whatever the locale says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from lm.corpus import reading


def read(name: str | Path) -> str:
    """Return the text of a file (.gz, .zst and .zip too), or of standard input for "-", without a byte-order mark.

    Raises ValueError, with what to do, for what is not text in UTF-8.
    """
    if str(name) != "-":
        return reading.whole(Path(name))
    data = sys.stdin.buffer.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("standard input is UTF-16; pass it through: iconv -f utf-16 -t utf-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, offset = data[error.start], error.start
        raise ValueError(f"standard input is not UTF-8: byte 0x{byte:02x} at offset {offset}") from error
    if not text or "\0" in text:
        raise ValueError(f"standard input is {'binary, not text' if text else 'empty'}")
    return text


def lines(text: str) -> list[str]:
    r"""Split a text at \n and \r\n, and nowhere else: other characters that end a line in Unicode belong to it."""
    return re.split(r"\r?\n", text)


def argument(flag: str, typed: str) -> str:
    """Return the text of a command-line argument. Raises ValueError when it was not typed in UTF-8."""
    data = os.fsencode(typed)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag}={typed!r} is not UTF-8: byte 0x{data[error.start]:02x}") from error
