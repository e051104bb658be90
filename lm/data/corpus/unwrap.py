"""Lines that were broken to fit a printed page, put together again: one line for a paragraph of prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

# In characters. Prose is wrapped at 60 to 80; shorter lines end where their author wants them to end, longer ones are
# whole paragraphs.
NARROWEST, WIDEST = 50, 100
NARROWEST_CAPITAL = 60  # the narrowest when all lines but the first begin with a capital: a couplet, or a signature
SLIP = 3  # how far a correction may have moved the end of a line that a program had filled

# Shares. Where lines end as they did in print they are not all full, and only their look tells prose from verse.
FULL = 0.85  # of the longest line: with the next word, a line is at least so long
MOSTLY = 0.9  # of the lines are full; one in ten may be short
SHORT = 0.6  # of the longest line: none is shorter, unless it is a speaker's name or "Dear Sir,"
CAPITALS = 0.75  # of the lines begin with a capital in verse, and far fewer in prose
LISTED, HEADED = 0.3, 0.5  # of the lines look the part, in a list or table and in a heading

ITEM = re.compile(r"[-*•]\s|[(\[]?(?:\d{1,3}|[ivxlc]+|[IVXLC]+|[a-z])[.)\]]\s")  # how an item of a list begins
COLUMNS = re.compile(r"\t|\||\S {3,}\S|[\w,] {2,}\S")  # two spaces may also stand between sentences
CAPITAL = re.compile(r"[\W_]*[A-Z\u00c0-\u00d6\u00d8-\u00de]")
HALF = re.compile(r"((?:[^\W_]+-)?[^\W\d_]+)-$")  # the first part of a word that goes on in the next line,
OTHER = re.compile(r"([a-z\u00df-\u00f6\u00f8-\u00ff]+)['\u2019]?(-?)")  # and the second
DASH = re.compile(r"[^\s-](?:--?|[\u2013\u2014])$")  # not ----, which stands for a word: "Mr. B---- came"
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def unwrap(text: str) -> str:
    """`text` with one line for each paragraph of prose and one blank line between blocks.

    A block is what stands between blank lines. One that looks like a list, a table, a heading or verse, or is indented,
    keeps its lines. No word changes, but for those put together that a hyphen split. Of what comes out, nothing
    changes when it is put in again.
    """
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    words = Words(lines)
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return "\n\n".join("\n".join(_unwrap(block, words)) for block in blocks if block) + ("\n" if blocks[0] else "")


class Words:
    """The words of a book, looked up only for one that has hyphens at the ends of lines: most have none."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    @cached_property
    def known(self) -> set[str]:
        whole = re.sub(r"(?<!\S)\S+-\n\S+", " ", "\n".join(self.lines).lower())
        return {*WORD.findall(whole), *WORD.findall(whole.replace("-", " "))}

    def compound(self, half: str, other: str) -> bool:
        """Whether a word at whose hyphen a line ends has that hyphen elsewhere too.

        Transcribers have put most split words together, so the hyphens that are left are often those of compounds. The
        rest of the book tells which; and where it has neither form, two words of their own make a compound.
        """
        half, other = half.lower(), other.lower()
        if f"{half}-{other}" in self.known or "-" in half:
            return True
        return half + other not in self.known and {half, other} <= self.known and min(len(half), len(other)) > 2


def _unwrap(block: list[str], words: Words) -> Iterator[str]:
    """The lines of one block. An indented line begins a paragraph, where most are not, and none goes on with one."""
    indented = [line[0].isspace() for line in block]
    hanging = any(line.lstrip()[0].islower() for line, inside in zip(block, indented, strict=True) if inside)
    if hanging or sum(indented) > len(block) / 2:
        yield from block
        return
    starts = [0, *(i for i, inside in enumerate(indented) if inside and i), len(block)]
    for start, end in pairwise(starts):
        lines = block[start:end]
        if len(lines) > 1 and _prose(lines):
            yield "".join(_spaced(line, after, words) for line, after in pairwise(lines)) + lines[-1]
        else:
            yield from lines


def _prose(lines: list[str]) -> bool:
    """Whether lines end where the next word did not fit, and only there."""
    longest = max(map(len, lines))
    capitals = sum(CAPITAL.match(line) is not None for line in lines[1:])
    if not (NARROWEST_CAPITAL if capitals == len(lines) - 1 else NARROWEST) <= longest <= WIDEST:
        return False
    items = sum(ITEM.match(line) is not None for line in lines)  # one alone is a numbered paragraph,
    rows = sum(COLUMNS.search(line) is not None for line in lines)  # or has lost a word
    if max(items, rows) >= max(2, LISTED * len(lines)) or sum(map(str.isupper, lines)) >= HEADED * len(lines):
        return False
    reach = [len(line) + 1 + len(after.split(None, 1)[0]) for line, after in pairwise(lines)]
    if min(reach) >= longest - SLIP:
        return True  # wrapped by a program: verse does not look so by chance
    full = sum(r >= FULL * longest for r in reach)
    return min(reach) >= SHORT * longest and full >= MOSTLY * len(reach) and capitals < CAPITALS * len(reach)


def _spaced(line: str, after: str, words: Words) -> str:
    """`line` with what must stand between it and the line `after`: a space, or nothing around dashes and in a word."""
    if line.endswith("-") and (half := HALF.search(line)) and (other := OTHER.match(after)):
        return line if other[2] or words.compound(half[1], other[1]) else line[:-1]
    return line if DASH.search(line) or re.match(r"(?:--|—)\w", after) else line + " "
