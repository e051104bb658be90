"""corpus.clean: what most people would tidy up in a text before training on it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm.data.corpus.text import Stream

# control characters but for tab and newline, and the marks that are invisible: soft hyphen, zero width, direction, BOM
# (what stands between words there, such as a form feed, becomes a space)
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]")
SPACES = re.compile(r"[ \t\u00a0\x0b\x0c\x1c-\x1f\x85]{2,}|[\t\u00a0\x0b\x0c\x1c-\x1f\x85]")


def clean(stream: Stream) -> Iterator[str | None]:
    """Control characters go; line ends of any system become newlines; runs of spaces become one, and none ends a line;
    of several blank lines one stays, and none at a document's ends. A document's last line ends in a newline.
    """
    rest: list[str] = []  # of an unfinished line
    blank, begun = False, False  # a blank line held back; any line seen

    def finish(lines: list[str]) -> str:
        nonlocal blank, begun
        out = []
        for line in (part for whole in lines for part in whole.rstrip("\r").split("\r")):
            line = SPACES.sub(" ", INVISIBLE.sub("", line)).rstrip(" ")
            if not line:
                blank = begun
                continue
            out.append("\n" + line if blank else line)
            blank, begun = False, True
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
        rest, blank, begun = [], False, False
    yield finish(["".join(rest)])
