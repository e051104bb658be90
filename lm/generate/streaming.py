"""Text that grows token by token, told as soon as no later token can change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm.generate.writing import Completion, GenerationRequest

WINDOW = 16  # tokens decoded with the next one, at least


class Row:
    """A completion as it grows behind the ids of its prompt.

    Its text is what decoding all ids at once gives behind the characters that the prompt's ids give alone, up to the
    first stop string. Only a window of the last ids is decoded at each step; the result is the same.
    """

    def __init__(
        self, tokenizer: Tokenizer, wanted: GenerationRequest, completion: Completion, prompt: list[int]
    ) -> None:
        self.tokenizer, self.wanted, self.completion = tokenizer, wanted, completion
        self.window = tail(tokenizer, prompt)
        self.offset = len(tokenizer.decode(self.window))  # characters of the window before `settled` ends
        self.settled = ""  # the beginning of the completion's text that the window is no longer needed for
        self.told = 0  # characters of the text that have been given away
        self.done = False

    def add(self, token: int) -> str:
        """Return the text that has become certain with this token."""
        c, w = self.completion, self.wanted
        if w.end_of_text and token == self.tokenizer.end_of_text:
            return self.end("end_of_text")
        c.ids.append(token)
        self.window.append(token)
        c.text = self.settled + self.tokenizer.decode(self.window)[self.offset :]
        if len(c.ids) == w.max_new_tokens:
            return self.end("length")
        certain = self.certain()
        if (place := first(w.stop, c.text, self.told, certain)) is not None:
            c.text = c.text[:place]
            return self.end("stop")
        if len(self.window) > 2 * WINDOW and len(kept := tail(self.tokenizer, self.window)) < len(self.window):
            self.offset = len(self.tokenizer.decode(kept)) - (len(c.text) - certain)
            self.settled, self.window = c.text[:certain], kept
        return self.tell(certain - begun(w.stop, c.text, certain))

    def certain(self) -> int:
        """Return how many characters of the text no later token changes.

        The last one may be half a character, which decodes as U+FFFD.
        """
        count, text = self.tokenizer.settled(self.window), self.completion.text
        if count < len(self.window):
            text = self.settled + self.tokenizer.decode(self.window[:count])[self.offset :]
        return len(text) - text.endswith("\ufffd")

    def end(self, why: str) -> str:
        c = self.completion
        self.done, c.ended = True, why
        if (place := first(self.wanted.stop, c.text, self.told, len(c.text))) is not None:
            c.text, c.ended = c.text[:place], "stop"
        return self.tell(len(c.text))

    def tell(self, upto: int) -> str:
        text = self.completion.text[self.told : upto]
        self.told = max(self.told, upto)
        return text


def tail(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Return the last ids, WINDOW or more, whose text tells how later ids go on from all of `ids`.

    They begin where earlier ids cannot change any more. Some of them spell text for certain: a decoder may treat the
    first token or the first space otherwise, and that is behind it then.
    """
    size = WINDOW
    while size < len(ids):
        kept = ids[tokenizer.settled(ids[:-size]) :]
        if len(tokenizer.decode(kept[: tokenizer.settled(kept)])) > 1:  # one may be half a character
            return kept
        size *= 2
    return list(ids)


def first(stops: Sequence[str], text: str, start: int, end: int) -> int | None:
    """Return where the first of the stop strings begins that is within text[start:end]; None: there is none."""
    return min((place for s in stops if (place := text.find(s, start, end)) >= 0), default=None)


def begun(stops: Sequence[str], text: str, end: int) -> int:
    """Return how many characters at the end of text[:end] may be the beginning of a stop string."""
    return max((n for s in stops for n in range(1, min(len(s), end + 1)) if text.endswith(s[:n], 0, end)), default=0)
