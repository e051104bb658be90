"""Corpora: the sources of text.

A corpus is a dataclass. Its method `load` writes the text to disk once, split into training and validation text, and
opens it.
"""

from lm.data.corpus.base import CorpusConfig
from lm.data.corpus.generated import AdditionConfig, TenActionsConfig, WordsConfig
from lm.data.corpus.json_lines import JSONLConfig
from lm.data.corpus.own import CodeConfig, HFConfig, StdlibConfig, TextConfig
from lm.data.corpus.pg19 import PG19Config
from lm.data.corpus.remote import DownloadConfig, PackageConfig, TinyStoriesConfig
from lm.data.corpus.repeats import RepeatsConfig
from lm.data.corpus.sequences import Sequence2Config, SequenceConfig
from lm.data.corpus.text import Split, Text

CORPORA: list[type] = [
    PackageConfig, DownloadConfig, TinyStoriesConfig, PG19Config, TextConfig, JSONLConfig, CodeConfig, StdlibConfig,
    HFConfig, WordsConfig, AdditionConfig, TenActionsConfig, SequenceConfig, Sequence2Config,
    RepeatsConfig,
]  # fmt: skip

__all__ = [
    "CORPORA",
    "AdditionConfig", "CodeConfig", "CorpusConfig", "DownloadConfig", "HFConfig", "JSONLConfig", "PG19Config",
    "PackageConfig", "RepeatsConfig",
    "Sequence2Config", "SequenceConfig", "Split", "StdlibConfig", "TenActionsConfig", "Text",
    "TextConfig", "TinyStoriesConfig", "WordsConfig",
]  # fmt: skip
