"""Cut a long text into pieces that a tokenizer encodes one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# Where a long document may be cut for work in pieces: before a space or behind a newline between two visible
# characters, or between a letter and a punctuation mark. Every byte-level BPE splits words there in any case, so the
# pieces have the ids of the whole. Only characters are named that every version of Unicode puts in the same class.
PUNCTUATION = r",.;:!?\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f"
LETTER = r"0-9A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
BORDER = re.compile(rf"(?<=[!-~\w])(?= [!-~\w])|(?<=[!-~\w]\n)(?=[!-~\w])|(?<=[{LETTER}])(?=[{PUNCTUATION}])")

ANYWHERE = re.compile(r"(?<=.)(?=.)", re.DOTALL)  # the border of a tokenizer with a token per character
LONGEST = 1 << 16  # characters without a border; what is longer is cut all the same, or it would be held in memory
AHEAD = 2  # characters behind a border that decide whether it is one


def in_pieces(chunks: Iterable[str], border: re.Pattern[str] | None) -> Iterator[str]:
    """Yield the text that comes in `chunks` in pieces of about their size, cut at borders only.

    A run of more than LONGEST characters without a border is cut every LONGEST characters, counted from where the run
    begins. So the ids of a text do not depend on the chunks in which it comes. Without a `border` the text is one
    piece, and so is a text of one chunk that has no such run.
    """
    text = ""
    for chunk in chunks:
        while border and (cut := _cut(border, text)):
            yield text[:cut]
            text = text[cut:]
        text += chunk
    while border and len(text) > LONGEST and (cut := _cut(border, text, ended=True)):
        yield text[:cut]
        text = text[cut:]
    yield text


def _cut(border: re.Pattern[str], text: str, ended: bool = False) -> int:
    """Return where to cut `text`, which begins at a cut; 0: nowhere before more of it is known.

    If the text has `ended`, it is cut only because of a run of more than LONGEST characters.
    """
    last = 0  # border up to which no run is longer than LONGEST
    while found := _last_border(border, text, last + 1, last + LONGEST):
        last = found
    if ended:
        return 0 if len(text) - last <= LONGEST else last or LONGEST
    return last or (LONGEST if len(text) >= LONGEST + AHEAD else 0)


def _last_border(border: re.Pattern[str], text: str, low: int, high: int) -> int:
    """Return the last border from `low` to `high`, or 0."""
    high = min(high, len(text))
    for start in (max(low, high - 1000), low):  # borders are many: the tail almost always has one
        cuts = [at for match in border.finditer(text, start, high + AHEAD) if low <= (at := match.start()) <= high]
        if cuts:
            return cuts[-1]
    return 0
