"""What every corpus has: where its text comes from is its own business, how it is split and kept is not."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from lm.base.checks import Check
from lm.base.files import sha256
from lm.data import cache
from lm.data.corpus.cleaning import clean
from lm.data.corpus.text import VAL_FRACTION, Stream, Text, is_near, write
from lm.data.download import Downloads

log = logging.getLogger("lm")


@dataclass
class CorpusConfig:
    """A kind of corpus adds its fields, `identity` and `streams`."""

    located: ClassVar[set[str]] = {"licence"}  # fields that say where text lies, not what it is: `identity` does
    val_key: ClassVar[str] = ""  # the setting that names validation text of its own, if any

    licence: str = ""  # license of the text, as shown by scripts/corpora.py
    # share of the text that is held out for validation if the corpus has no validation text of its own
    val_fraction: float = 0.1
    # never cut a document to reach val_fraction, however large or small the validation text gets
    whole_documents: bool = False
    max_chars: int | None = None  # use only this many characters from the beginning of the text; null: all
    clean: bool = False  # drop control characters, repeated spaces and repeated blank lines

    def __post_init__(self) -> None:
        check = Check("corpus", self)
        check.that(0 < self.val_fraction < 1, "val_fraction", "lie between 0 and 1")
        check.at_least("max_chars", 1)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Range checks of the fields a kind of corpus adds."""

    @property
    def download_size(self) -> int | None:
        """Bytes; None where nobody knows before."""
        return 0

    def identity(self, downloads: Downloads) -> str:
        """Digests of the sources, which this call fetches where need be; "" when the fields say it all."""
        return ""

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        """`train`, and where the corpus has them `val` and `test`. Raises UserError when there is no usable text."""
        raise NotImplementedError

    @property
    def counted(self) -> tuple[str, ...]:
        """Words whose number in the text `notes` needs."""
        return ()

    def notes(self, text: Text) -> list[str]:
        """Return what the user should know about the choice of the text, line by line."""
        return []

    def log_prob(self, window: str) -> float | None:
        """Log-probability, in nats, that a stretch of this text begun at a random character reads `window`.

        None where nobody knows: only corpora made from a known law can say.
        """
        return None

    def load(self, downloads: Downloads) -> Text:
        """Raises UserError, ready to be shown, when there is no usable text."""
        fields = {key: value for key, value in asdict(self).items() if key not in self.located}
        options = json.dumps(fields, sort_keys=True)
        name = type(self).__name__
        key = cache.digest(name, options, self.identity(downloads), _code())

        def build(folder: Path) -> None:
            streams = self.streams(downloads)
            if self.clean:
                streams = {name: clean(stream) for name, stream in streams.items()}
            write(folder, streams, self.val_fraction, self.max_chars, self.whole_documents, self.counted)

        text = Text.open(cache.open_entry(downloads.root, "text", key, cache.summarize(self), build), self.val_key)
        for note in self.notes(text):
            log.info("note      %s", note)
        share = text.val.size / (text.train.size + text.val.size)
        if self.whole_documents and text.val_key == VAL_FRACTION and not is_near(share, self.val_fraction):
            own = f", name validation text with {self.val_key}" if self.val_key else ""
            log.info("warning   validation is %.1f %% of the text, not corpus.val_fraction=%g, as no document is cut: "
                     "choose another val_fraction%s, or set corpus.whole_documents=false",
                     100 * share, self.val_fraction, own)  # fmt: skip
        return text


def _code() -> str:
    """What prepares a text is part of what it becomes: with other code it is prepared again."""
    return "".join(sha256(path) for path in sorted(Path(__file__).parent.glob("*.py")))
