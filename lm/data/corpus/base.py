"""Base class of all corpora: it splits the text, caches it on disk and opens it. Subclasses supply the text."""

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
    """Settings common to all corpora. A subclass adds its own fields and defines `identity` and `streams`."""

    # Fields that are not part of the cache key, because they say where the text is and not what it contains.
    location_keys: ClassVar[set[str]] = {"licence"}
    val_key: ClassVar[str] = ""  # the setting that names separate validation text; "": there is none

    licence: str = ""  # license of the text, as shown by scripts/corpora.py
    # share of the text that is held out for validation if the corpus has no validation text of its own
    val_fraction: float = 0.1
    # never cut a document to reach val_fraction, however large or small the validation text gets
    whole_documents: bool = False
    max_chars: int | None = None  # use only this many characters from the beginning of the text; null: all
    clean: bool = False  # drop control characters, repeated spaces and repeated blank lines

    def __post_init__(self) -> None:
        check = Check("corpus", self)
        check.require(0 < self.val_fraction < 1, "val_fraction", "lie between 0 and 1")
        check.at_least("max_chars", 1)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Check the fields that a subclass adds."""

    @property
    def download_size(self) -> int | None:
        """Size of the download in bytes; None if it is not known in advance."""
        return 0

    def identity(self, downloads: Downloads) -> str:
        """Download the sources if necessary and return their digests; "" if the fields determine the text."""
        return ""

    def streams(self, downloads: Downloads) -> dict[str, Stream]:
        """Return the stream `train` and, if the corpus has them, `val` and `test`.

        Raises UserError if there is no usable text.
        """
        raise NotImplementedError

    @property
    def counted_words(self) -> tuple[str, ...]:
        """Words whose occurrences are counted in the text for `notes`."""
        return ()

    def notes(self, text: Text) -> list[str]:
        """Return notes for the user about which text was selected, one per line."""
        return []

    def log_prob(self, window: str) -> float | None:
        """Return the log-probability, in nats, that a text of this corpus reads `window` from a random character on.

        None if it is not known. Only synthetic corpora, which come from a known distribution, can compute it.
        """
        return None

    def load(self, downloads: Downloads) -> Text:
        """Prepare the text, or find it in the cache, and open it.

        Raises UserError if there is no usable text.
        """
        fields = {key: value for key, value in asdict(self).items() if key not in self.location_keys}
        options = json.dumps(fields, sort_keys=True)
        name = type(self).__name__
        key = cache.digest(name, options, self.identity(downloads), _source_digest())

        def build(folder: Path) -> None:
            streams = self.streams(downloads)
            if self.clean:
                streams = {name: clean(stream) for name, stream in streams.items()}
            write(folder, streams, self.val_fraction, self.max_chars, self.whole_documents, self.counted_words)

        text = Text.open(cache.open_entry(downloads.root, "text", key, cache.summarize(self), build), self.val_key)
        for note in self.notes(text):
            log.info("note      %s", note)
        share = text.val.size / (text.train.size + text.val.size)
        if self.whole_documents and text.val_key == VAL_FRACTION and not is_near(share, self.val_fraction):
            own = f", name validation files with {self.val_key}" if self.val_key else ""
            log.info("warning   validation is %.1f %% of the text, not corpus.val_fraction=%g, because no document is "
                     "cut: choose another val_fraction%s, or set corpus.whole_documents=false",
                     100 * share, self.val_fraction, own)  # fmt: skip
        return text


def _source_digest() -> str:
    """Return digests of the source files of this package, so that a text is prepared again after the code changes."""
    return "".join(sha256(path) for path in sorted(Path(__file__).parent.glob("*.py")))
