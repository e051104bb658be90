"""The root Config, its registration with Hydra, and the way from a DictConfig to plain typed Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING as MISSING_FIELD
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.attention import AttentionConfig
from lm.batches import DataConfig
from lm.callbacks import CallbacksConfig
from lm.check import Check
from lm.command import RUN_NAME
from lm.config.errors import explain, unknown_key
from lm.config.help import CONF
from lm.config.typed import keep_typed
from lm.corpus import CORPORA, CorpusConfig
from lm.hardware import device_count, device_type, require_compiler
from lm.loggers import LoggerConfig
from lm.loss import LossConfig
from lm.model import GPTConfig
from lm.optim import OPTIMIZERS, OptimizerConfig
from lm.precision import PrecisionConfig
from lm.schedule import SCHEDULES, ScheduleConfig
from lm.sweep import SweepConfig
from lm.sweep import register as register_sweepers
from lm.tokenizer import TOKENIZERS, TokenizerConfig
from lm.trainer import TrainerConfig

__all__ = ["CONF", "SCHEMAS", "Config", "composed", "plain", "register", "resolve", "section", "usual"]


@dataclass
class Config:
    model: GPTConfig = MISSING  # architecture and size of the model
    attention: AttentionConfig = MISSING  # implementation of attention
    corpus: CorpusConfig = MISSING  # text to train on
    tokenizer: TokenizerConfig = MISSING  # how text becomes tokens
    data: DataConfig = MISSING  # batches, and where downloads and caches are
    optimizer: OptimizerConfig = MISSING  # optimizer and peak learning rate
    loss: LossConfig = MISSING  # what is minimized
    schedule: ScheduleConfig = MISSING  # learning rate over the steps
    precision: PrecisionConfig = MISSING  # number format of the computation
    trainer: TrainerConfig = MISSING  # how long, on what, and when to validate, save and log
    callbacks: CallbacksConfig = MISSING  # samples, checkpoints, early stopping and warnings
    logger: LoggerConfig = MISSING  # where metrics are written
    # how runs of a sweep are chosen and compared; a single run ignores it
    sweep: SweepConfig = field(default_factory=SweepConfig)
    name: str = MISSING  # name of the run, which is kept in outputs/<name>; default: date and time
    seed: int = 1337  # seed of initialization, data order and dropout
    device: str = "auto"  # auto | cpu | gpu | cuda | mps; the same as trainer.accelerator
    init_from: str | None = None  # start a new run from the weights of this run, checkpoint or hf:<directory>
    init_optimizer: str = "new"  # with init_from: new | keep (also take over the optimizer's state)
    init_tokenizer: str = "keep"  # with init_from: keep (its tokenizer) | new (the one that tokenizer= makes)


SCHEMAS: dict[str, list[type]] = {
    "model": [GPTConfig],
    "attention": [AttentionConfig],
    "corpus": CORPORA,
    "tokenizer": TOKENIZERS,
    "data": [DataConfig],
    "optimizer": OPTIMIZERS,
    "loss": [LossConfig],
    "schedule": SCHEDULES,
    "precision": [PrecisionConfig],
    "trainer": [TrainerConfig],
    "callbacks": [CallbacksConfig],
    "logger": [LoggerConfig],
}


def register() -> None:
    """Tell Hydra the schemas, each under its class name: a YAML file begins with `defaults: [GPTConfig]`."""
    store = ConfigStore.instance()
    store.store(name="Config", node=Config)
    for group, schemas in SCHEMAS.items():
        for schema in schemas:
            store.store(group=group, name=schema.__name__, node=schema)
    register_sweepers()


def option(group: str, name: str, **overrides: Any) -> Any:
    """One option of one group, typed, without composing the rest: conf/<group>/<name>.yaml."""
    values = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    (base,) = values.pop("defaults")
    schema = next(schema for schema in SCHEMAS[group] if schema.__name__ == base)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values, overrides))


def section(path: Path, group: str) -> Any:
    """A section of a run's config.yaml, as the dataclass it was. Raises ValueError when it is not there."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))[group]
        name = values.pop("kind", None)
        schema = next(s for s in SCHEMAS[group] if name in (None, s.__name__.removesuffix("Config")))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, OmegaConfBaseException) as error:
        raise ValueError(f"{path} does not say what the run's {group} was; name one, e.g. corpus=text") from error


def composed(overrides: Sequence[str], here: bool = True) -> Config:
    """What train.py would run with these overrides: for scripts. Raises ValueError, ready to be shown.

    Unless `here`, it is meant for another machine, and this one's devices do not matter.
    """
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            typed = keep_typed(list(overrides), Config, SCHEMAS)
            return resolve(compose("train", ["name=script", *typed]), here)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error


def resolve(cfg: DictConfig, here: bool = True) -> Config:
    """Gates two and three: ranges, then the rules that span sections. Raises one ValueError with all that is wrong."""
    problems = unknown_keys(cfg)
    values: dict[str, Any] = {}
    for part in fields(Config):
        try:
            node = cfg[part.name]
            values[part.name] = OmegaConf.to_object(node) if isinstance(node, DictConfig) else node
        except (ValueError, OmegaConfBaseException) as error:
            problems.append(str(error) if type(error) is ValueError else explain(error))
    if not problems:
        config = Config(**values)
        problems = across(config, here)
    if problems:
        raise ValueError("\n".join(problems))
    return config


def plain(config: Config) -> dict[str, Any]:
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


def usual(config: Config) -> dict[str, Any]:
    """The defaults of the classes that `config` is made of, by section, as plain as in `plain`."""

    def default(field: Field[Any]) -> Any:
        value: Any = field.default if field.default_factory is MISSING_FIELD else field.default_factory()
        return asdict(value) if is_dataclass(type(value)) else value

    sections = {group: fields(getattr(config, group)) for group in SCHEMAS}
    return {
        group: {f.name: value for f in section if (value := default(f)) is not MISSING_FIELD}
        for group, section in sections.items()
    }


def across(config: Config, here: bool) -> list[str]:
    """What is wrong between sections, or on this machine with this config."""
    problems: list[str] = []

    def attempt(rule: Callable[..., Any], *args: Any) -> Any:
        try:
            return rule(*args)
        except ValueError as error:
            problems.append(str(error))

    c, wanted = config, config.trainer.devices
    key = "device" if c.trainer.accelerator == c.device else "trainer.accelerator"
    if here and (device := attempt(device_type, c.trainer.accelerator, key)):
        attempt(c.precision.resolve, device)
        attempt(c.attention.require, device, c.model.dropped("attn"))
        if c.trainer.compile:
            attempt(require_compiler, device)
        if wanted > (most := device_count(device)):
            problems.append(f"trainer.devices={wanted} must be at most {most}, as torch finds {most} {device} here")
    attempt(c.data.accumulate, wanted)
    check = Check("", c)
    for key in ("init_tokenizer", "init_optimizer"):
        check.one_of(key, ("keep", "new"))
    check.that(c.init_optimizer != "keep" or c.init_from is not None, "init_optimizer", "be new without init_from")
    check.that(
        c.trainer.fork is None or c.init_from is None, "init_from", "be null with trainer.fork, which brings all"
    )
    problems += [problem.removeprefix(".") for problem in check.problems]
    if not RUN_NAME.fullmatch(config.name):
        problems.append(f"name={config.name!r} must be a directory name, of letters, digits and any of . _ - + / =")
    if not 0 <= config.seed < 2**63:
        problems.append(f"seed={config.seed} must be at least 0 and below 2**63")
    if wanted > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        problems.append(f"trainer.devices={wanted} must be 1 in a sweep: each job would start the sweep anew")
    return problems


def unknown_keys(node: DictConfig, path: str = "") -> list[str]:
    """Keys that `+key=value` brought past the schema; Hydra lets them through, and nothing would read them."""
    schema: Any = OmegaConf.get_type(node)
    if schema is dict:  # typed where a value belongs: that field's own check refuses it
        return []
    known = [field.name for field in fields(schema)]
    problems = []
    for key in map(str, node):
        if key not in known:
            problems.append(unknown_key(path + key, known))
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            problems += unknown_keys(node[key], f"{path}{key}.")
    return problems
