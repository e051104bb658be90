"""Train a GPT. `python train.py --help` lists the options."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import hydra
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lm.base import commands
from lm.base.files import explain_full_disk
from lm.base.hardware import is_main_process, memory_bytes, resolve_device_type
from lm.config import CONF, Config, default_values, errors, register, resolve, to_dict
from lm.experiment.build import build, build_data, record_finished, train_and_record
from lm.experiment.capacity import resolve_micro_batch
from lm.experiment.inputs import load_text, prepare_inputs
from lm.experiment.start import find_fork, find_start
from lm.experiment.summary import end_summary
from lm.run.directory import Interrupted, interruptible, open_run
from lm.run.lock import acquire
from lm.training.trainer import select_gpu

log = logging.getLogger("lm")
ELSEWHERE = "choose another place with hydra.run.dir=/path/of/the/run (in a sweep hydra.sweep.dir=)"


def train(config: Config, directory: Path, overrides: Sequence[str] = ()) -> float:
    """Start or resume the run in `directory`, and return the final val/loss.

    `overrides` are those of the command line. They are only used to print the command that resumes the run.
    """
    log.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    disk_errors = explain_full_disk(directory, ELSEWHERE, "free some space and run the same command again")
    with disk_errors, acquire(directory):
        return fit(config, directory, overrides)


def fit(config: Config, directory: Path, overrides: Sequence[str]) -> float:
    """Train the run in `directory` to its end, unless it is finished already, and return the final val/loss."""
    fork = find_fork(config, directory)
    run = open_run(directory, to_dict(config), default_values(config), fork)
    if run.finished:
        log.info(end_summary(run, overrides))
        return run.record["metrics"]["val/loss"]

    device = resolve_device_type(config.trainer.accelerator, "device")
    start = find_start(config, directory, fork)
    text = load_text(config)
    run.require_text(text.digest)
    inputs = prepare_inputs(config, text, start)
    fitted = resolve_micro_batch(config, inputs.vocab_size, device, memory_bytes(device))
    data = build_data(fitted, inputs)
    horizon = fitted.trainer.horizon(data.windows, fitted.data.batch_size, fitted.model.block_size, start.step)
    if start.step == horizon:
        return record_finished(run, start, overrides)
    experiment = build(fitted, directory, start, inputs, data, horizon, device)
    return train_and_record(run, experiment, overrides)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> float:
    """Train the composed config, or print how to resume the run if it is interrupted."""
    with errors.handle_job_errors():
        hydra_config = HydraConfig.get()
        directory, overrides = Path(hydra_config.runtime.output_dir), hydra_config.overrides.task
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        try:
            if in_sweep and hydra_config.runtime.choices["hydra/launcher"] != "basic":
                select_gpu(hydra_config.job.num)
            with interruptible():
                return train(resolve(cfg), directory, overrides)
        except Interrupted as stop:
            if not (directory / "config.yaml").exists():
                log.info("%s before training started", stop)
            elif in_sweep:
                log.info("%s", stop)
            else:
                log.info("%s; resume with:\n  %s", stop, commands.resume(directory, overrides, {}))
            errors.remove_empty_directory(directory)
            sys.exit(stop.status)


if __name__ == "__main__":
    register()
    errors.run(main)
