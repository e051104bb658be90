"""Load configs without the command line, and turn them into plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING as MISSING_FIELD
from dataclasses import Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.base.errors import UserError
from lm.config.errors import explain
from lm.config.help import CONF, read_option
from lm.config.resolve import resolve
from lm.config.schema import SCHEMAS, Config, register
from lm.config.typed import quote_text


def load_option(group: str, name: str, **overrides: Any) -> Any:
    """Return one option of a group, conf/<group>/<name>.yaml, as its dataclass, without composing the rest."""
    values = read_option(group, name)
    (base,) = values.pop("defaults")
    schema = next(schema for schema in SCHEMAS[group] if schema.__name__ == base)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values, overrides))


def load_section(path: Path, group: str) -> Any:
    """Return a section of a run's config.yaml as its dataclass. Raises UserError if it is missing or invalid."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))[group]
        name = values.pop("kind", None)
        schema = next(s for s in SCHEMAS[group] if name in (None, s.__name__.removesuffix("Config")))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, OmegaConfBaseException) as error:
        raise UserError(f"{path} has no valid section '{group}'; choose one, e.g. corpus=text") from error


def compose_config(overrides: Sequence[str], here: bool = True) -> Config:
    """Return the config that train.py would use with these overrides. Raises UserError for invalid ones.

    With `here=False` the config is meant for another machine, and the devices of this one are not checked.
    """
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("train", ["name=script", *quote_text(list(overrides), Config, SCHEMAS)])
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # Hydra raises both for a malformed override
        raise UserError(explain(error)) from error
    return resolve(composed, here)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as nested plain values, as config.yaml stores them and as two runs are compared.

    In a group with several classes, `kind` names the class.
    """
    values = asdict(config)
    del values["sweep"]
    for group, schemas in SCHEMAS.items():
        if len(schemas) > 1:
            values[group] = {"kind": type(getattr(config, group)).__name__.removesuffix("Config"), **values[group]}
    if config.init_from and config.init_tokenizer == "keep":
        parsing = {"parse_special": True} if config.tokenizer.parse_special else {}
        values["tokenizer"] = {"kind": "InitFrom"} | parsing
    return values


def default_values(config: Config) -> dict[str, Any]:
    """Return the defaults of the classes of all sections of `config`, as plain values by section."""

    def default(field: Field[Any]) -> Any:
        value: Any = field.default if field.default_factory is MISSING_FIELD else field.default_factory()
        return asdict(value) if is_dataclass(type(value)) else value

    sections = {group: fields(getattr(config, group)) for group in SCHEMAS}
    return {
        group: {field.name: value for field in section if (value := default(field)) is not MISSING_FIELD}
        for group, section in sections.items()
    }
