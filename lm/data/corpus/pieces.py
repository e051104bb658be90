"""Cut a long text into pieces that a tokenizer encodes one by one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

# A long document may be cut into pieces here: before a space or after a newline between two visible characters, or
# between a letter and a punctuation mark. Every byte-level BPE splits words there anyway, so the pieces have the same
# ids as the whole text. The classes contain only characters that have the same category in every version of Unicode.
PUNCTUATION = r",.;:!?\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f"
LETTER = r"0-9A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
BORDER = re.compile(rf"(?<=[!-~\w])(?= [!-~\w])|(?<=[!-~\w]\n)(?=[!-~\w])|(?<=[{LETTER}])(?=[{PUNCTUATION}])")

ANYWHERE = re.compile(r"(?<=.)(?=.)", re.DOTALL)  # the border of a tokenizer with a token per character
LONGEST = 1 << 16  # characters without a border; a longer run is cut anyway, because it would have to fit in memory
AHEAD = 2  # number of characters after a border that decide whether it is one


class OutsideNames:
    """Borders that match `pattern`, except inside a name, right before one of `before` or right after one of `after`.

    The text after a border may not have been read yet, so a border counts as inside a name if the text before it is a
    beginning of the name and the next character continues it. Sets are used because one regular expression of all
    names takes minutes to compile for tens of thousands of them.
    """

    def __init__(
        self, pattern: re.Pattern[str], names: Iterable[str], before: Iterable[str] = (), after: Iterable[str] = ()
    ) -> None:
        self.pattern, self.before, self.after = pattern, {name[0] for name in before}, set(after)
        self.continued: dict[str, set[str]] = defaultdict(set)  # beginning of a name: the characters that follow it
        for name in names:
            for at in (match.start() - 1 for match in pattern.finditer(f"a{name}a")):
                if 0 < at < len(name):
                    self.continued[name[:at]].add(name[at])
        self.lengths = sorted({len(text) for text in (*self.continued, *self.after)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutsideNames) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def finditer(self, text: str, start: int = 0, end: int | None = None) -> Iterator[re.Match[str]]:
        end = len(text) if end is None else min(end, len(text))
        for match in self.pattern.finditer(text, start, end):
            at = match.start()
            following = text[at] if at < end else ""
            if following in self.before:
                continue
            preceding = [text[at - length : at] for length in self.lengths if length <= at]
            if not any(p in self.after or following in self.continued.get(p, ()) for p in preceding):
                yield match


Border = re.Pattern[str] | OutsideNames


def in_pieces(chunks: Iterable[str], border: Border | None) -> Iterator[str]:
    """Cut the text of `chunks` at borders, into pieces of about the size of the chunks, and yield them.

    A run of more than LONGEST characters without a border is cut every LONGEST characters, counted from the beginning
    of the run. Therefore the ids of a text do not depend on its division into chunks. Without a `border` the text is
    one piece, and so is a text of one chunk that has no such run.
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


def _cut(border: Border, text: str, ended: bool = False) -> int:
    """Return the position of the next cut in `text`, which begins at a cut; 0 if more text is needed to decide.

    If the text has `ended`, it is cut only because of a run of more than LONGEST characters.
    """
    last = 0  # the last border up to which no run is longer than LONGEST
    while found := _last_border(border, text, last + 1, last + LONGEST):
        last = found
    if ended:
        return 0 if len(text) - last <= LONGEST else last or LONGEST
    return last or (LONGEST if len(text) >= LONGEST + AHEAD else 0)


def _last_border(border: Border, text: str, low: int, high: int) -> int:
    """Return the last border from `low` to `high`, or 0."""
    high = min(high, len(text))
    for start in (max(low, high - 1000), low):  # borders are frequent, so the tail almost always has one
        cuts = [at for match in border.finditer(text, start, high + AHEAD) if low <= (at := match.start()) <= high]
        if cuts:
            return cuts[-1]
    return 0
