"""The configuration: Hydra composes it, and what leaves this package is plain, typed and checked."""

from lm.config.help import CONF
from lm.config.load import composed, option, plain, section, usual
from lm.config.resolve import resolve
from lm.config.schema import SCHEMAS, Config, register

__all__ = ["CONF", "SCHEMAS", "Config", "composed", "option", "plain", "register", "resolve", "section", "usual"]
