"""Turn Hydra's DictConfig into a checked Config: unknown keys, ranges, and the rules that span sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.base.checks import Check
from lm.base.commands import RUN_NAME
from lm.base.errors import UserError
from lm.base.hardware import device_count, require_compiler, resolve_device_type
from lm.config.errors import explain, unknown_key
from lm.config.schema import Config


def resolve(cfg: DictConfig, here: bool = True) -> Config:
    """Return the checked config: first the range of each value, then the rules that span sections.

    With `here=False` the devices of this machine are not checked. Raises one UserError that lists all problems.
    """
    problems = unknown_keys(cfg)
    values: dict[str, Any] = {}
    for part in fields(Config):
        try:
            node = cfg[part.name]
            values[part.name] = OmegaConf.to_object(node) if isinstance(node, DictConfig) else node
        except (UserError, OmegaConfBaseException) as error:
            problems.append(str(error) if isinstance(error, UserError) else explain(error))
    if not problems:
        config = Config(**values)
        problems = check_across_sections(config, here)
    if problems:
        raise UserError("\n".join(problems))
    return config


def check_across_sections(config: Config, here: bool) -> list[str]:
    """Return the problems between sections, and unless `here` is False those of this config on this machine."""
    problems: list[str] = []

    def attempt(rule: Callable[..., Any], *args: Any) -> Any:
        try:
            return rule(*args)
        except UserError as error:
            problems.append(str(error))

    c, devices = config, config.trainer.devices
    key = "device" if c.trainer.accelerator == c.device else "trainer.accelerator"
    if here and (device := attempt(resolve_device_type, c.trainer.accelerator, key)):
        attempt(c.precision.resolve, device)
        attempt(c.attention.require, device, c.model.dropout_at("attn"))
        if c.trainer.compile:
            attempt(require_compiler, device)
        if devices > (available := device_count(device)):
            problems.append(
                f"trainer.devices={devices} must be at most {available}: PyTorch finds {available} {device} device(s) "
                "on this machine"
            )
    attempt(c.data.accumulation_steps, devices)
    check = Check("", c)
    for key in ("init_tokenizer", "init_optimizer"):
        check.one_of(key, ("keep", "new"))
    check.require(c.init_optimizer != "keep" or c.init_from is not None, "init_optimizer", "be new without init_from")
    check.require(c.trainer.fork is None or c.init_from is None, "init_from", "be null with trainer.fork")
    problems += [problem.removeprefix(".") for problem in check.problems]
    if not RUN_NAME.fullmatch(config.name):
        problems.append(
            f"name={config.name!r} must be a directory name that consists of letters, digits and . _ - + / ="
        )
    if not 0 <= config.seed < 2**63:
        problems.append(f"seed={config.seed} must be at least 0 and below 2**63")
    if devices > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        problems.append(
            f"trainer.devices={devices} must be 1 in a sweep: each process would start the whole sweep again"
        )
    return problems


def unknown_keys(node: DictConfig, path: str = "") -> list[str]:
    """Return a message for each key outside the schema: Hydra allows `+key=value`, but nothing would read it."""
    schema: Any = OmegaConf.get_type(node)
    if schema is dict:  # a dict where a value is expected: the check of that field refuses it
        return []
    known = [field.name for field in fields(schema)]
    problems = []
    for key in map(str, node):
        if key not in known:
            problems.append(unknown_key(path + key, known))
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            problems += unknown_keys(node[key], f"{path}{key}.")
    return problems
