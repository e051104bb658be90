"""Train a GPT: compose -> typed Config -> build -> fit. `python train.py --help` shows what can be composed."""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import explain_full_disk, sha256
from lm.base.hardware import device_name, device_type, is_main_process, memory_bytes, peak_flops
from lm.config import CONF, Config, default_values, errors, register, resolve, to_dict
from lm.data.token_files import cache_tokens, cached_tokenizer
from lm.experiment import capacity, summary
from lm.model import GPT
from lm.run import checkpoint
from lm.run.checkpoint import Checkpoint
from lm.run.directory import Interrupted, Run, has_begun, interruptible, open_run
from lm.run.init_from import load_optimizer_state, load_weights
from lm.run.lock import acquire
from lm.training.trainer import take_turns

log = logging.getLogger("lm")
ELSEWHERE = "choose another place with hydra.run.dir=/path/of/the/run (in a sweep hydra.sweep.dir=)"


def train(config: Config, directory: Path, overrides: Sequence[str] = ()) -> float:
    """Start the run in `directory`, or continue it where it stopped. Returns the final val/loss.

    `overrides` are what the user typed; they are only repeated, in the command that would go on from here.
    """
    log.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    with explain_full_disk(directory, ELSEWHERE, "free some space and run the same command again"), acquire(directory):
        return fit(config, directory, overrides)


def fit(config: Config, directory: Path, overrides: Sequence[str]) -> float:
    forks = config.trainer.fork and not has_begun(directory)  # else it has left the other run behind
    fork = checkpoint.find(Path(config.trainer.fork)) if forks else None
    run = open_run(directory, to_dict(config), default_values(config), fork)
    if run.finished:
        log.info(summary.end_summary(run, overrides))
        return run.record["metrics"]["val/loss"]

    from lm.training.datamodule import (
        TokenData,  # these import Lightning, a second that a mistyped key or --help need not wait
    )
    from lm.training.module import LanguageModule

    c, downloads = config, config.data.downloads()
    device = device_type(c.trainer.accelerator, "device")
    precision = c.precision.resolve(device)
    last = checkpoint.newest_valid(directory / "checkpoints")
    origin = last or fork  # what the trainer goes on from
    start = origin or c.init_from  # where weights and tokenizer come from, when they are not new
    source = checkpoint.load(start) if start else None
    step = source.step if source and origin else 0
    if origin:
        checkpoint.require_names(checkpoint.read(origin), origin)
    text = c.corpus.load(downloads)
    run.require_text(text.digest)
    keep = source if origin or c.init_tokenizer == "keep" else None
    tokenizer = keep.tokenizer if keep else cached_tokenizer(c.tokenizer, text, downloads)
    tokens = cache_tokens(text, tokenizer, downloads, c.tokenizer.parse_special)
    c = capacity.resolve_micro_batch(c, tokenizer.vocab_size, device, memory_bytes(device))
    data = TokenData(tokens, c.data, c.model.block_size, c.seed, c.trainer.val_batches, c.trainer.devices)
    horizon = c.trainer.horizon(data.windows, c.data.batch_size, c.model.block_size, step)
    if source and step == horizon:
        return record_finished(run, source, overrides)
    torch.manual_seed(c.seed)
    model = GPT(c.model, tokenizer.vocab_size, c.attention.backend)
    begin = None
    if source and not origin:
        found = load_weights(model, tokenizer, source)
        log.info("%s: %s", c.init_from, found)
        if c.init_optimizer == "keep":
            begin = load_optimizer_state(source, found, type(c.optimizer).__name__)
    optimizer = c.optimizer.for_width(c.model.n_embd)
    accumulate = c.data.accumulate(c.trainer.devices)
    floor = data.floor(text.val, tokenizer, c.corpus.log_prob)
    module = LanguageModule(
        model, tokenizer, optimizer=optimizer, schedule=c.schedule, loss=c.loss, horizon=horizon, seed=c.seed,
        accumulate=accumulate, fused=precision != "fp16", floor=floor,
        respect_documents=c.data.respect_documents and text.documents, skips=c.trainer.skips,
        begin=begin, forked=bool(fork and not last), averaged=c.callbacks.average.enabled,
    )  # fmt: skip
    peak = c.trainer.peak_tflops * 1e12 if c.trainer.peak_tflops else peak_flops(device)
    callbacks = c.callbacks.build(directory, c.trainer, peak, new=source is None, sweep=c.sweep, language=c.corpus)
    loggers = c.logger.build(directory, step)
    trainer = c.trainer.build(device, precision, horizon, accumulate, callbacks, loggers, directory)

    c.precision.apply()
    c.trainer.prepare(model, device)
    memory = capacity.require_memory(c, tokenizer.vocab_size, device, memory_bytes(device)).total
    chosen = {
        "device": device,
        "device_name": device_name(device),
        "precision": precision,
        "horizon": horizon,
        "lr": optimizer.lr,
        "floor": floor,
        "micro_batch_size": c.data.micro(c.trainer.devices),
        "memory": memory,
    }
    log.info(summary.start_summary(c, model, tokenizer, text, data, chosen))
    if step:
        log.info("continuing after step %d%s", step, "" if last else f" of {fork}")
        if bend := summary.schedule_change(c.schedule, step, run.record.get("horizon", horizon), horizon):
            log.info("%s", bend)
    started = time.perf_counter()
    facts = {"parameters": model.num_params, "text": text.digest, "tokenizer": sha256(tokenizer.to_json())}
    with run.session(step, overrides=list(overrides), **facts, **chosen):
        run.write("tokenizer.json", tokenizer.to_json())
        for logger in loggers:
            logger.log_hyperparams(run.config | {"chosen": chosen, "overrides": list(overrides)})
        trainer.fit(module, datamodule=data, ckpt_path=origin, weights_only=True)
        best = trainer.checkpoint_callback.best
        run.update(metrics=module.latest | {"step": trainer.global_step}, best=best)
    log.info(summary.end_summary(run, overrides, time.perf_counter() - started))
    return module.latest["val/loss"]


def record_finished(run: Run, source: Checkpoint, overrides: Sequence[str]) -> float:
    """Record as finished a run whose checkpoint is at the horizon: there is no step left to train.

    It was killed before it could say so itself, or is started again with a change that adds no step. Raises UserError
    where the checkpoint has no validation, and for a fork, which would be a run without a checkpoint of its own.
    """
    if not has_begun(run.directory):
        raise UserError(
            f"trainer.fork={source.path} is at step {source.step}, and the run is to end there: no step is left to "
            f"train. Ask for more, e.g. trainer.max_steps={2 * source.step}"
        )
    if "val/loss" not in source.metrics:
        raise UserError(f"{run.directory} stopped at step {source.step}, before it was validated: ask for more steps")
    log.info("no step is left to train: the run is at step %d of %d", source.step, source.step)
    best = run.directory / "checkpoints" / "best.ckpt"
    at_best = checkpoint.read(best) if best.exists() else checkpoint.read(source.path)
    run.update(
        status="finished",
        error=None,
        metrics=source.metrics | {"step": source.step},
        best={"val/loss": at_best["lm"]["metrics"]["val/loss"], "step": at_best["global_step"]},
    )
    log.info(summary.end_summary(run, overrides))
    return source.metrics["val/loss"]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> float:
    with errors.handle_job_errors():
        hydra_config = HydraConfig.get()
        directory, overrides = Path(hydra_config.runtime.output_dir), hydra_config.overrides.task
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        try:
            if in_sweep and hydra_config.runtime.choices["hydra/launcher"] != "basic":
                take_turns(hydra_config.job.num)
            with interruptible():
                return train(resolve(cfg), directory, overrides)
        except Interrupted as stop:
            begun = (directory / "config.yaml").exists()
            again = f"; resume with:\n  {commands.resume(directory, overrides, {})}" if begun and not in_sweep else ""
            log.info("%s%s", stop, again if begun else " before training began")
            errors.remove_empty_directory(directory)
            sys.exit(stop.status)


if __name__ == "__main__":
    register()
    errors.run(main)
