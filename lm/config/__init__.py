"""Configuration: Hydra composes it, and this package returns it as plain, typed and checked values."""

from lm.config.help import CONF
from lm.config.load import compose_config, default_values, load_option, load_section, to_dict
from lm.config.resolve import resolve
from lm.config.schema import SCHEMAS, Config, register

__all__ = [
    "CONF", "SCHEMAS", "Config", "compose_config", "default_values", "load_option", "load_section", "register",
    "resolve", "to_dict",
]  # fmt: skip
