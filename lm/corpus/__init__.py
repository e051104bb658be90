"""Where text comes from. A corpus is a dataclass; `load` writes its text to disk once, split, and opens it."""

from lm.corpus.base import CorpusConfig
from lm.corpus.generated import AdditionConfig, TenActionsConfig, WordsConfig
from lm.corpus.json_lines import JSONLConfig
from lm.corpus.own import CodeConfig, HFConfig, StdlibConfig, TextConfig
from lm.corpus.pg19 import PG19Config
from lm.corpus.remote import DownloadConfig, PackageConfig, TinyStoriesConfig
from lm.corpus.sequences import Sequence2Config, SequenceConfig
from lm.corpus.text import Split, Text

CORPORA: list[type] = [
    PackageConfig, DownloadConfig, TinyStoriesConfig, PG19Config, TextConfig, JSONLConfig, CodeConfig, StdlibConfig,
    HFConfig, WordsConfig, AdditionConfig, TenActionsConfig, SequenceConfig, Sequence2Config,
]  # fmt: skip

__all__ = [
    "CORPORA",
    "AdditionConfig", "CodeConfig", "CorpusConfig", "DownloadConfig", "HFConfig", "JSONLConfig", "PG19Config",
    "PackageConfig", "Sequence2Config", "SequenceConfig", "Split", "StdlibConfig", "TenActionsConfig", "Text",
    "TextConfig", "TinyStoriesConfig", "WordsConfig",
]  # fmt: skip
