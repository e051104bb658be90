"""Clean a text before training (`corpus.clean`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm.data.corpus.text import Stream

# Control characters except tab and newline, and invisible marks: soft hyphen, zero width, direction, byte-order mark.
# Control characters that separate words, such as a form feed, are in SPACES instead.
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]")
SPACES = re.compile(r"[ \t\u00a0\x0b\x0c\x1c-\x1f\x85]{2,}|[\t\u00a0\x0b\x0c\x1c-\x1f\x85]")


def clean(stream: Stream) -> Iterator[str | None]:
    """Yield the cleaned text of a stream.

    Control characters are removed. The line ends of all systems become newlines. A run of spaces becomes one space,
    and spaces at the end of a line are removed. Several blank lines become one, and blank lines at the beginning and
    the end of a document are removed. The last line of a document ends in a newline.
    """
    rest: list[str] = []  # the pieces of an unfinished line
    blank, started = False, False  # a blank line is pending; the document has a line already

    def finish(lines: list[str]) -> str:
        nonlocal blank, started
        out = []
        for line in (part for whole in lines for part in whole.rstrip("\r").split("\r")):
            line = SPACES.sub(" ", INVISIBLE.sub("", line)).rstrip(" ")
            if not line:
                blank = started
                continue
            out.append("\n" + line if blank else line)
            blank, started = False, True
        return "".join(line + "\n" for line in out)

    for piece in stream:
        if piece is not None:
            *lines, last = piece.split("\n")
            if lines:
                yield finish(["".join(rest) + lines[0], *lines[1:]])
                rest = []
            rest.append(last)
            continue
        yield finish(["".join(rest)])
        yield None
        rest, blank, started = [], False, False
    yield finish(["".join(rest)])
