"""Text that a user names or types on a command line. It is UTF-8, whatever the locale says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from lm.base.errors import UserError
from lm.data.corpus import reading
from lm.data.corpus.encodings import readings
from lm.data.corpus.unreadable import has_byte_order_mark, strip_byte_order_mark


def read(name: str | Path) -> str:
    """Return the text of a file (.gz, .zst and .zip too), or of standard input for "-", without a byte-order mark.

    Raises UserError, with what to do, for what is not text in UTF-8.
    """
    if str(name) != "-":
        return reading.whole(Path(name))
    data = sys.stdin.buffer.read()
    head = data[:4096]
    if encoding := has_byte_order_mark(head):
        raise UserError(f"standard input is {encoding}; {_convert(encoding)}")
    if b"\0" in head and (encoding := strip_byte_order_mark(head)):
        raise UserError(f"standard input is {encoding} without a byte-order mark; {_convert(encoding)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, offset = data[error.start], error.start
        found = readings(data[max(0, offset - 1000) : offset + 1000])
        cure = f"; {_convert(found[0][0])}" if found else ""
        raise UserError(f"standard input is not UTF-8: byte 0x{byte:02x} at offset {offset}{cure}") from error
    if not text or "\0" in text:
        raise UserError(f"standard input is {'binary, not text' if text else 'empty'}")
    return text


def _convert(encoding: str) -> str:
    return f"convert it with: iconv -f {encoding} -t UTF-8"


def lines(text: str) -> list[str]:
    r"""Split a text at \n and \r\n, and nowhere else: other characters that end a line in Unicode belong to it."""
    return re.split(r"\r?\n", text)


def argument(flag: str, typed: str) -> str:
    """Return the text of a command-line argument. Raises UserError when it was not typed in UTF-8."""
    data = os.fsencode(typed)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{flag}={typed!r} is not UTF-8: byte 0x{data[error.start]:02x}") from error
