"""Read text that the user gives on the command line. It must be UTF-8; the locale does not matter."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from lm.base.errors import UserError
from lm.data.corpus import reading
from lm.data.corpus.encodings import readings
from lm.data.corpus.unreadable import encoding_of_byte_order_mark, guess_utf16_or_utf32


def read(name: str | Path) -> str:
    """Return the text of a file (also .gz, .zst and .zip), or of standard input for "-", without a byte-order mark.

    Raises UserError, which says what to do, if it is not UTF-8 text.
    """
    if str(name) != "-":
        return reading.read_all(Path(name))
    data = sys.stdin.buffer.read()
    head = data[:4096]
    if encoding := encoding_of_byte_order_mark(head):
        raise UserError(f"standard input is {encoding}; {_convert(encoding)}")
    if b"\0" in head and (encoding := guess_utf16_or_utf32(head)):
        raise UserError(f"standard input is {encoding} without a byte-order mark; {_convert(encoding)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, offset = data[error.start], error.start
        candidates = readings(data[max(0, offset - 1000) : offset + 1000])
        advice = f"; {_convert(candidates[0][0])}" if candidates else ""
        raise UserError(f"standard input is not UTF-8: byte 0x{byte:02x} at offset {offset}{advice}") from error
    if not text or "\0" in text:
        raise UserError(f"standard input is {'binary, not text' if text else 'empty'}")
    return text


def _convert(encoding: str) -> str:
    return f"convert it with: iconv -f {encoding} -t UTF-8"


def lines(text: str) -> list[str]:
    r"""Split a text at \n and \r\n only. The other characters that end a line in Unicode do not separate lines here."""
    return re.split(r"\r?\n", text)


def argument(flag: str, typed: str) -> str:
    """Return the text of a command-line argument. Raises UserError if it is not UTF-8."""
    data = os.fsencode(typed)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{flag}={typed!r} is not UTF-8: byte 0x{data[error.start]:02x}") from error
