"""Join lines that were wrapped for print, so that each paragraph of prose becomes one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

# Lengths in characters. Prose is wrapped at 60 to 80. Shorter lines end where the author wants them to end, and longer
# ones are whole paragraphs.
NARROWEST, WIDEST = 50, 100
NARROWEST_CAPITAL = 60  # instead, if all lines except the first begin with a capital: a couplet, or a signature
SLIP = 3  # a correction may have moved the end of a line that a program had filled by this much

# Shares. If the lines end where they did in print, they are not all full, and only their shape tells prose from verse.
FULL = 0.85  # of the longest line: a line is full if it is at least this long together with the next word
MOSTLY = 0.9  # of the lines of prose are full; one in ten may be short
SHORT = 0.6  # of the longest line: no line of prose is shorter; a speaker's name or "Dear Sir," is
CAPITALS = 0.75  # of the lines of verse begin with a capital, and far fewer in prose
LISTED, HEADED = 0.3, 0.5  # of the lines look like it, in a list or table and in a heading

ITEM = re.compile(r"[-*•]\s|[(\[]?(?:\d{1,3}|[ivxlc]+|[IVXLC]+|[a-z])[.)\]]\s")  # the beginning of an item of a list
COLUMNS = re.compile(r"\t|\||\S {3,}\S|[\w,] {2,}\S")  # two spaces may also be between sentences
CAPITAL = re.compile(r"[\W_]*[A-Z\u00c0-\u00d6\u00d8-\u00de]")
HALF = re.compile(r"((?:[^\W_]+-)?[^\W\d_]+)-$")  # the first part of a word that continues on the next line
OTHER = re.compile(r"([a-z\u00df-\u00f6\u00f8-\u00ff]+)['\u2019]?(-?)")  # the second part
DASH = re.compile(r"[^\s-](?:--?|[\u2013\u2014])$")  # not ----, which replaces a word: "Mr. B---- came"
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def unwrap(text: str) -> str:
    """Return `text` with one line for each paragraph of prose and one blank line between blocks.

    Blocks are separated by blank lines. A block that is indented, or that looks like a list, a table, a heading or
    verse, keeps its lines. No word changes, except that words split by a hyphen are joined. Unwrapping the result
    again changes nothing.
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
    """The words of a book. They are collected only if a line ends in a hyphen, which is not the case in most books."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    @cached_property
    def known(self) -> set[str]:
        whole = re.sub(r"(?<!\S)\S+-\n\S+", " ", "\n".join(self.lines).lower())
        return {*WORD.findall(whole), *WORD.findall(whole.replace("-", " "))}

    def is_compound(self, half: str, other: str) -> bool:
        """Tell whether a word that is split by a hyphen at the end of a line keeps its hyphen.

        Transcribers have joined most split words, so the remaining hyphens are often those of compounds. The form in
        the rest of the book decides. If it has neither form, the word is a compound if both parts are words.
        """
        half, other = half.lower(), other.lower()
        if f"{half}-{other}" in self.known or "-" in half:
            return True
        return half + other not in self.known and {half, other} <= self.known and min(len(half), len(other)) > 2


def _unwrap(block: list[str], words: Words) -> Iterator[str]:
    """Yield the lines of one block.

    The block keeps its lines if most are indented, or if an indented one begins with a small letter and therefore
    continues the line before. Otherwise an indented line begins a paragraph.
    """
    indented = [line[0].isspace() for line in block]
    hanging = any(line.lstrip()[0].islower() for line, inside in zip(block, indented, strict=True) if inside)
    if hanging or sum(indented) > len(block) / 2:
        yield from block
        return
    starts = [0, *(i for i, inside in enumerate(indented) if inside and i), len(block)]
    for start, end in pairwise(starts):
        lines = block[start:end]
        if len(lines) > 1 and _is_prose(lines):
            yield "".join(_with_separator(line, after, words) for line, after in pairwise(lines)) + lines[-1]
        else:
            yield from lines


def _is_prose(lines: list[str]) -> bool:
    """Tell whether the lines are wrapped prose: they end where the next word did not fit, and only there."""
    longest = max(map(len, lines))
    capitals = sum(CAPITAL.match(line) is not None for line in lines[1:])
    if not (NARROWEST_CAPITAL if capitals == len(lines) - 1 else NARROWEST) <= longest <= WIDEST:
        return False
    items = sum(ITEM.match(line) is not None for line in lines)  # a single one is a numbered paragraph
    rows = sum(COLUMNS.search(line) is not None for line in lines)  # a single one has lost a word
    if max(items, rows) >= max(2, LISTED * len(lines)) or sum(map(str.isupper, lines)) >= HEADED * len(lines):
        return False
    reach = [len(line) + 1 + len(after.split(None, 1)[0]) for line, after in pairwise(lines)]
    if min(reach) >= longest - SLIP:
        return True  # wrapped by a program: verse does not look like this by chance
    full = sum(r >= FULL * longest for r in reach)
    return min(reach) >= SHORT * longest and full >= MOSTLY * len(reach) and capitals < CAPITALS * len(reach)


def _with_separator(line: str, after: str, words: Words) -> str:
    """Return `line` with its separator from the line `after`: a space, or nothing next to dashes and inside a word."""
    if line.endswith("-") and (half := HALF.search(line)) and (other := OTHER.match(after)):
        return line if other[2] or words.is_compound(half[1], other[1]) else line[:-1]
    return line if DASH.search(line) or re.match(r"(?:--|—)\w", after) else line + " "
