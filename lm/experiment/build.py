"""Build the parts of a training run from its config, start and inputs, and train it.

Lightning takes seconds to import, so it is imported late, after the checks that can fail.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lm.base.errors import UserError
from lm.base.files import sha256
from lm.base.hardware import device_name, memory_bytes, peak_flops
from lm.base.imports import without_garbage_collection
from lm.config import Config
from lm.experiment.capacity import require_memory
from lm.experiment.inputs import Inputs
from lm.experiment.start import Start
from lm.experiment.summary import end_summary, schedule_change, start_summary
from lm.model import GPT
from lm.run import checkpoint
from lm.run.directory import Run
from lm.run.init_from import load_optimizer_state, load_weights

if TYPE_CHECKING:
    import lightning as L

    from lm.training.datamodule import TokenData
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")

RestoreOptimizer = Callable[[torch.optim.Optimizer], None]


@dataclass
class Experiment:
    """All parts of a training run."""

    config: Config
    start: Start
    inputs: Inputs
    module: LanguageModule
    data: TokenData
    trainer: L.Trainer
    chosen: dict[str, Any]  # values resolved for this machine, for run.json: device, precision, horizon, ...


def build_data(config: Config, inputs: Inputs) -> TokenData:
    """Build the batches. Raises UserError if the text is too small for one batch or one validation window."""
    with without_garbage_collection("lightning"):
        from lm.training.datamodule import TokenData

    c, trainer = config, config.trainer
    return TokenData(inputs.tokens, c.data, c.model.block_size, c.seed, trainer.val_batches, trainer.devices)


def build_model(config: Config, inputs: Inputs, start: Start) -> tuple[GPT, RestoreOptimizer | None]:
    """Build the model, initialized from `config.seed` or with the weights of `init_from`.

    The second value restores the optimizer's state too, if init_optimizer=keep asks for it, else it is None. The
    checkpoint of a resumed or forked run is not loaded here, because the trainer restores it. Raises UserError if the
    weights do not fit the model.
    """
    torch.manual_seed(config.seed)
    model = GPT(config.model, inputs.vocab_size, config.attention.backend)
    if start.kind != "init_from" or start.checkpoint is None:
        return model, None
    report = load_weights(model, inputs.tokenizer, start.checkpoint)
    log.info("%s: %s", config.init_from, report)
    if config.init_optimizer != "keep":
        return model, None
    return model, load_optimizer_state(start.checkpoint, report, type(config.optimizer).__name__)


def build(
    config: Config, directory: Path, start: Start, inputs: Inputs, data: TokenData, horizon: int, device: str
) -> Experiment:
    """Build the module, callbacks, loggers and trainer of a run of `horizon` optimizer steps.

    Raises UserError if training would need more memory than the device has.
    """
    from lm.training.module import LanguageModule

    c = config
    model, restore_optimizer = build_model(c, inputs, start)
    precision, accumulate = c.precision.resolve(device), c.data.accumulation_steps(c.trainer.devices)
    optimizer = c.optimizer.with_default_lr(c.model.n_embd)
    floor = data.lowest_loss(inputs.text.val, inputs.tokenizer, c.corpus.log_prob)
    module = LanguageModule(
        model, inputs.tokenizer, optimizer=optimizer, schedule=c.schedule, loss=c.loss, horizon=horizon, seed=c.seed,
        accumulate=accumulate, fused=precision != "fp16", floor=floor,
        respect_documents=c.data.respect_documents and inputs.text.documents, skip_limit=c.trainer.skip_limit,
        restore_optimizer=restore_optimizer, forked=start.kind == "fork", averaged=c.callbacks.average.enabled,
    )  # fmt: skip
    peak = c.trainer.peak_tflops * 1e12 if c.trainer.peak_tflops else peak_flops(device)
    new = start.kind == "new"
    callbacks = c.callbacks.build(directory, c.trainer, peak, new=new, sweep=c.sweep, language=c.corpus)
    loggers = c.logger.build(directory, start.step)
    trainer = c.trainer.build(device, precision, horizon, accumulate, callbacks, loggers, directory)
    c.precision.apply()
    c.trainer.prepare(model, device)
    chosen = {
        "device": device,
        "device_name": device_name(device),
        "precision": precision,
        "horizon": horizon,
        "lr": optimizer.lr,
        "floor": floor,
        "micro_batch_size": c.data.device_batch_size(c.trainer.devices),
        "memory": require_memory(c, inputs.vocab_size, device, memory_bytes(device)).total,
    }
    return Experiment(c, start, inputs, module, data, trainer, chosen)


def train_and_record(run: Run, experiment: Experiment, overrides: Sequence[str]) -> float:
    """Train to the end, record the result in run.json, and return the final val/loss."""
    e, start, horizon = experiment, experiment.start, experiment.chosen["horizon"]
    model, tokenizer = e.module.model, e.inputs.tokenizer
    log.info(start_summary(e.config, model, tokenizer, e.inputs.text, e.data, e.chosen))
    if start.step:
        log.info("continuing after step %d%s", start.step, f" of {start.path}" if start.kind == "fork" else "")
        if change := schedule_change(e.config.schedule, start.step, run.record.get("horizon", horizon), horizon):
            log.info("%s", change)
    started = time.perf_counter()
    facts = {"parameters": model.num_params, "text": e.inputs.text.digest, "tokenizer": sha256(tokenizer.to_json())}
    with run.session(start.step, overrides=list(overrides), **facts, **e.chosen):
        run.write("tokenizer.json", tokenizer.to_json())
        for logger in e.trainer.loggers:
            logger.log_hyperparams(run.config | {"chosen": e.chosen, "overrides": list(overrides)})
        e.trainer.fit(e.module, datamodule=e.data, ckpt_path=start.path, weights_only=True)
        best = e.trainer.checkpoint_callback.best  # type: ignore[union-attr]
        run.update(metrics=e.module.latest | {"step": e.trainer.global_step}, best=best)
    log.info(end_summary(run, overrides, time.perf_counter() - started))
    return e.module.latest["val/loss"]


def record_finished(run: Run, start: Start, overrides: Sequence[str]) -> float:
    """Record a run as finished if its checkpoint is already at its last step, and return its val/loss.

    The run was killed before it could record this itself, or was restarted with a change that adds no steps. Raises
    UserError if the checkpoint has not been validated, and for a fork, which would have no checkpoint of its own.
    """
    source = start.checkpoint
    assert source is not None
    if start.kind == "fork":
        raise UserError(
            f"trainer.fork={source.path} is at step {source.step}, and the new run ends at that step: no steps are "
            f"left to train. Use more steps, e.g. trainer.max_steps={2 * source.step}"
        )
    if "val/loss" not in source.metrics:
        raise UserError(f"{run.directory} stopped at step {source.step} before it was validated: use more steps")
    log.info("no steps are left to train: the run is at step %d of %d", source.step, source.step)
    best = run.directory / "checkpoints" / "best.ckpt"
    at_best = checkpoint.read(best if best.exists() else source.path)
    run.update(
        status="finished",
        error=None,
        metrics=source.metrics | {"step": source.step},
        best={"val/loss": at_best["lm"]["metrics"]["val/loss"], "step": at_best["global_step"]},
    )
    log.info(end_summary(run, overrides))
    return source.metrics["val/loss"]
