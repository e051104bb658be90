"""From Hydra's DictConfig to a checked Config: unknown keys, ranges, and the rules that span sections."""

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
from lm.base.hardware import device_count, device_type, require_compiler
from lm.config.errors import explain, unknown_key
from lm.config.schema import Config


def resolve(cfg: DictConfig, here: bool = True) -> Config:
    """Gates two and three: ranges, then the rules that span sections. Raises one UserError with all that is wrong."""
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
    """What is wrong between sections, or on this machine with this config."""
    problems: list[str] = []

    def attempt(rule: Callable[..., Any], *args: Any) -> Any:
        try:
            return rule(*args)
        except UserError as error:
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
