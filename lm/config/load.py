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
from lm.config.help import CONF
from lm.config.resolve import resolve
from lm.config.schema import SCHEMAS, Config, register
from lm.config.typed import keep_typed


def load_option(group: str, name: str, **overrides: Any) -> Any:
    """One option of one group, typed, without composing the rest: conf/<group>/<name>.yaml."""
    values = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    (base,) = values.pop("defaults")
    schema = next(schema for schema in SCHEMAS[group] if schema.__name__ == base)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values, overrides))


def load_section(path: Path, group: str) -> Any:
    """A section of a run's config.yaml, as the dataclass it was. Raises UserError when it is not there."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))[group]
        name = values.pop("kind", None)
        schema = next(s for s in SCHEMAS[group] if name in (None, s.__name__.removesuffix("Config")))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, OmegaConfBaseException) as error:
        raise UserError(f"{path} does not say what the run's {group} was; name one, e.g. corpus=text") from error


def compose_config(overrides: Sequence[str], here: bool = True) -> Config:
    """What train.py would run with these overrides: for scripts. Raises UserError, ready to be shown.

    Unless `here`, it is meant for another machine, and this one's devices do not matter.
    """
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            typed = keep_typed(list(overrides), Config, SCHEMAS)
            return resolve(compose("train", ["name=script", *typed]), here)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain values: what config.yaml holds, and what two runs are compared by.

    Where a group has several classes, `kind` tells which one it is.
    """
    values = asdict(config)
    del values["sweep"]
    kept = config.init_from and config.init_tokenizer == "keep"
    for group, schemas in SCHEMAS.items():
        if len(schemas) > 1:
            values[group] = {"kind": type(getattr(config, group)).__name__.removesuffix("Config"), **values[group]}
    if kept:
        parsing = {"parse_special": True} if config.tokenizer.parse_special else {}
        values["tokenizer"] = {"kind": "InitFrom"} | parsing
    return values


def default_values(config: Config) -> dict[str, Any]:
    """The defaults of the classes that `config` is made of, by section, as plain as in `plain`."""

    def default(field: Field[Any]) -> Any:
        value: Any = field.default if field.default_factory is MISSING_FIELD else field.default_factory()
        return asdict(value) if is_dataclass(type(value)) else value

    sections = {group: fields(getattr(config, group)) for group in SCHEMAS}
    return {
        group: {f.name: value for f in load_section if (value := default(f)) is not MISSING_FIELD}
        for group, load_section in sections.items()
    }
