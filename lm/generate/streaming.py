"""Decode a growing row of tokens to text, and emit each character as soon as no later token can change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm.generate.writing import Completion, GenerationRequest

WINDOW = 16  # at least this many of the last tokens are decoded together with the next one


class Row:
    """A completion that grows token by token after the ids of its prompt.

    Its text is the decoded text of all ids without the characters that the prompt's ids give alone, up to the first
    stop string. Each step decodes only a window of the last ids; the result is the same.
    """

    def __init__(
        self, tokenizer: Tokenizer, request: GenerationRequest, completion: Completion, prompt: list[int]
    ) -> None:
        self.tokenizer, self.request, self.completion = tokenizer, request, completion
        self.window = trailing_ids(tokenizer, prompt)
        self.offset = len(tokenizer.decode(self.window))  # characters of the window that belong to `settled` or earlier
        self.settled = ""  # the first part of the completion's text, for which the window is no longer needed
        self.emitted = 0  # characters of the text that have been returned
        self.done = False

    def add(self, token: int) -> str:
        """Append a token, and return the text that has become certain with it."""
        c, request = self.completion, self.request
        if request.end_of_text and token == self.tokenizer.end_of_text:
            return self.finish("end_of_text")
        c.ids.append(token)
        self.window.append(token)
        c.text = self.settled + self.tokenizer.decode(self.window)[self.offset :]
        if len(c.ids) == request.max_new_tokens:
            return self.finish("length")
        certain = self.certain_length()
        if (place := find_first(request.stop, c.text, self.emitted, certain)) is not None:
            c.text = c.text[:place]
            return self.finish("stop")
        if len(self.window) > 2 * WINDOW:
            self.shorten_window(certain)
        return self.emit(certain - uncertain_suffix(request.stop, c.text, certain))

    def shorten_window(self, certain: int) -> None:
        """Drop ids that are no longer needed from the window; `certain` characters of the text are certain."""
        shorter = trailing_ids(self.tokenizer, self.window)
        if len(shorter) < len(self.window):
            self.offset = len(self.tokenizer.decode(shorter)) - (len(self.completion.text) - certain)
            self.settled, self.window = self.completion.text[:certain], shorter

    def certain_length(self) -> int:
        """Return the number of characters that no later token can change.

        The last one may be a part of a character, which decodes as U+FFFD, and then does not count.
        """
        count, text = self.tokenizer.stable_prefix_length(self.window), self.completion.text
        if count < len(self.window):
            text = self.settled + self.tokenizer.decode(self.window[:count])[self.offset :]
        return len(text) - text.endswith("\ufffd")

    def finish(self, reason: str) -> str:
        """End the completion for this reason, or at a stop string, and return the rest of its text."""
        c = self.completion
        self.done, c.ended = True, reason
        if (place := find_first(self.request.stop, c.text, self.emitted, len(c.text))) is not None:
            c.text, c.ended = c.text[:place], "stop"
        return self.emit(len(c.text))

    def emit(self, end: int) -> str:
        """Return the text up to `end` that has not been emitted yet."""
        text = self.completion.text[self.emitted : end]
        self.emitted = max(self.emitted, end)
        return text


def trailing_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Return the last ids, at least WINDOW of them, that suffice to decode later ids as they decode after all `ids`.

    The returned ids begin where earlier ids can no longer change. Some of their text is certain too, because a
    decoder may treat the first token or the first space of a text differently.
    """
    size = WINDOW
    while size < len(ids):
        last = ids[tokenizer.stable_prefix_length(ids[:-size]) :]
        stable = tokenizer.decode(last[: tokenizer.stable_prefix_length(last)])
        if len(stable) > 1:  # a single character may be a part of one
            return last
        size *= 2
    return list(ids)


def find_first(stops: Sequence[str], text: str, start: int, end: int) -> int | None:
    """Return the first index of any of the stop strings within text[start:end], or None if there is none."""
    return min((place for s in stops if (place := text.find(s, start, end)) >= 0), default=None)


def uncertain_suffix(stops: Sequence[str], text: str, end: int) -> int:
    """Return the number of characters at the end of text[:end] that may be the beginning of a stop string."""
    return max((n for s in stops for n in range(1, min(len(s), end + 1)) if text.endswith(s[:n], 0, end)), default=0)
