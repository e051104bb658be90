"""The training step, from a batch of token ids to an update of the weights, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lm.base.hardware import seed_generators
from lm.data.batches import IGNORE, document_numbers, dropout_seed
from lm.data.tokenizer import Tokenizer
from lm.model import GPT
from lm.model.loss import LossConfig
from lm.optim import OptimizerConfig
from lm.optim.schedule import ScheduleConfig
from lm.run.checkpoint import describe, set_batch_counts, set_step_count
from lm.run.directory import Diverged


class LanguageModule(L.LightningModule):
    """Train `model` for `horizon` optimizer steps of `accumulate` micro-batches each.

    In one optimizer step Lightning calls these hooks:
    1. for each micro-batch `on_train_batch_start` (seeds dropout), `training_step`, backward, `on_train_batch_end`;
    2. after the last backward `configure_gradient_clipping`: `_clip_gradients`, `_set_lr`, `_check_finite`;
    3. `optimizer_step`, inside of which the last backward and 2 happen, updates the weights.

    Metrics are logged at the number of finished optimizer steps; `latest` holds the newest value of each as a float.
    `floor` is the lowest possible val/loss, where it is known. Up to `skip_limit` steps in a row whose loss or gradient
    is not finite are skipped; one more raises Diverged. With `skip_limit=0` the first one ends the run
    (`require_finite`). `restore_optimizer` loads a state into a new optimizer. `forked`: the checkpoint belongs to
    another run. `averaged`: a callback keeps an average of the weights; if not, one in the checkpoint is dropped.
    """

    token_bytes: Tensor  # (V,)

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        loss: LossConfig,
        horizon: int,
        seed: int,
        accumulate: int = 1,
        fused: bool = True,
        respect_documents: bool = False,
        floor: float | None = None,
        skip_limit: int = 0,
        restore_optimizer: Callable[[torch.optim.Optimizer], None] | None = None,
        forked: bool = False,
        averaged: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.loss = model, tokenizer, loss
        self.optimizer, self.schedule, self.horizon = optimizer, schedule, horizon
        self.seed, self.accumulate, self.fused = seed, accumulate, fused
        self.end_of_text, self.floor = tokenizer.end_of_text if respect_documents else None, floor
        self.skip_limit, self.skipped, self.skipped_in_row = skip_limit, 0, 0
        self.register_buffer("token_bytes", torch.from_numpy(tokenizer.token_bytes), persistent=False)
        self.restore_optimizer, self.forked, self.averaged = restore_optimizer, forked, averaged
        self.lr_factor = 1.0  # multiplies the schedule's learning rate; the Plateau callback lowers it
        self.average: dict[str, Tensor] = {}  # averaged weights in fp32 by name, if a callback keeps them
        self._trained: dict[str, Tensor] = {}  # the trained weights while the model has the averaged ones
        self.latest: dict[str, float] = {}
        self._finite: Tensor = torch.tensor(True)
        self.stepped = False  # True if the latest micro-batch completed an optimizer step
        # collected once: collecting them at every step would take 0.1 ms, twice
        self.weights = list(model.parameters())
        self._losses: list[Tensor] = []  # one for each micro-batch of this optimizer step
        self._val: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.optimizer.build(self.model, self.fused)
        if self.restore_optimizer:
            self.restore_optimizer(optimizer)
        return optimizer

    # ---- training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Dropout, like the data order, is a pure function of (seed, micro-batch, device). So there is no random state
        # to save, and the random numbers of validation and sampling cannot change the run.
        if self.stepped:
            self._losses, self.stepped = [], False
        micro = self.trainer.global_step * self.accumulate + len(self._losses)
        seed_generators(dropout_seed(self.seed, micro, self.global_rank), self.device.type)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch  # (B, T) each
        objective, nats = self.model(x, document_numbers(x, self.end_of_text), y, self.loss)
        self._losses.append(nats / y.numel())
        return objective

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Prepare the update of an optimizer step, after its last backward."""
        self._clip_gradients()
        self._set_lr(optimizer)
        self._check_finite()

    def _clip_gradients(self) -> None:
        # Lightning's clipping does not support fused optimizers under autocast and does not return the norm
        self._grad_norm = torch.nn.utils.clip_grad_norm_(self.weights, self.optimizer.grad_clip or math.inf)

    def _set_lr(self, optimizer: torch.optim.Optimizer) -> None:
        # not a torch scheduler: its state in a checkpoint would restore the learning rate of an old horizon
        assert self.optimizer.lr is not None
        factor = self.schedule.factor(self.trainer.global_step, self.horizon)
        self._lr = self.optimizer.lr * factor * self.lr_factor
        for group in optimizer.param_groups:
            group["lr"] = self._lr * group["lr_ratio"]

    def _check_finite(self) -> None:
        # under fp16 the gradient scaler skips steps that overflow and lowers its scale, so the norm is not checked
        signs = self._losses if self.trainer.precision == "16-mixed" else [*self._losses, self._grad_norm]
        finite = torch.stack(signs).isfinite().all()
        if self.skip_limit:
            self._skip_unless(finite)
        else:
            self._finite = self._finite & finite

    def _skip_unless(self, finite: Tensor) -> None:
        """Drop the gradients of a step that is not `finite`, on all devices if on one. Waits for the device.

        An optimizer ignores parameters without gradients, so its averages and step counts do not change either.
        """
        skip = self.trainer.strategy.reduce_boolean_decision(not bool(finite), all=False)
        self.skipped_in_row = self.skipped_in_row + 1 if skip else 0
        if self.skipped_in_row > self.skip_limit:
            step, row = self.trainer.global_step + 1, self.skipped_in_row
            raise Diverged(
                f"the loss or its gradient was infinite or nan in {row} steps in a row, up to step {step}, but "
                f"trainer.max_skipped={self.skip_limit}: {self.remedy}"
            )
        if skip:
            self.skipped += 1
            self.zero_grad()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.stepped = True
        # freed here: Lightning would keep them during the next forward pass, when most memory is needed
        for p in self.weights:
            p.grad = None

    def optimizer_zero_grad(self, *_: Any) -> None: ...  # optimizer_step frees the gradients already

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step >= self.horizon:
            self.trainer.should_stop = True  # makes Lightning validate at the end

    def require_finite(self) -> None:
        """Raise Diverged if a loss or gradient was not finite. Waits for the device, so call it rarely."""
        if not bool(self._finite):
            step = self.trainer.global_step
            raise Diverged(f"the loss or its gradient became infinite or nan by step {step}: {self.remedy}")

    @property
    def remedy(self) -> str:
        """Advice for the user after a divergence."""
        warmup = self.schedule.warmup_key
        return (
            f"the run has diverged. Try a lower optimizer.lr (now {self.optimizer.lr:g}), a longer schedule.{warmup} "
            f"(now {getattr(self.schedule, warmup)}), optimizer.grad_clip=1, or precision=fp32, with a new name="
        )

    def step_metrics(self) -> dict[str, float]:
        """Return loss, gradient norm and learning rate; of a skipped step only the latter. Waits for the device."""
        metrics = {"lr": self._lr} | ({"train/skipped": float(self.skipped)} if self.skipped else {})
        if self.skipped_in_row:
            return metrics
        loss = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        return {"train/loss": float(loss), "train/grad_norm": float(self._grad_norm)} | metrics

    # ---- validation

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch  # (B, T) each
        _, nats = self.model(x, document_numbers(x, self.end_of_text), y)
        counted = y != IGNORE
        n_bytes = self.token_bytes[y.clamp(min=0)].mul(counted).sum()
        self._val.append(torch.stack((nats, counted.sum(), n_bytes)))

    def on_validation_epoch_end(self) -> None:
        # sums over the whole split, not a mean of means, in one transfer from the device
        sums = torch.stack(self._val).cpu().double().sum(0)
        self._val = []
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        nats, tokens, n_bytes = sums.tolist()
        loss = nats / tokens
        if not math.isfinite(loss):
            self._finite = torch.tensor(False)
            self.require_finite()
        metrics = {"val/loss": loss, "val/ppl": math.exp(min(loss, 700)), "val/bpb": nats / math.log(2) / n_bytes}
        self.log_metrics(metrics | ({} if self.floor is None else {"val/excess": loss - self.floor}))

    # ---- weights, metrics and checkpoints

    def named_weights(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def use_average(self) -> None:
        """Give the model the averaged weights, if there are any, until `use_trained` is called."""
        for name, p in self.named_weights().items() if self.average else ():
            self._trained[name], p.data = p.data, self.average[name].to(p.dtype)

    def use_trained(self) -> None:
        """Give the model back its trained weights."""
        for name, p in self.named_weights().items() if self._trained else ():
            p.data = self._trained.pop(name)

    @contextmanager
    def evaluation_mode(self) -> Iterator[GPT]:
        """Yield the model in eval mode, with the averaged weights if there are any; restore both afterward."""
        self.model.eval()
        self.use_average()
        try:
            yield self.model
        finally:
            self.use_trained()
            self.model.train()

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.latest |= metrics
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lm"] = describe(self.model, self.tokenizer) | {
            "optimizer": type(self.optimizer).__name__, "metrics": self.latest, "average": self.average,
            "skipped": self.skipped, "skipped_in_row": self.skipped_in_row,
        }  # fmt: skip
        set_step_count(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.latest = checkpoint["lm"]["metrics"]
        if self.forked:  # early stopping and plateaus of the other run do not apply here
            checkpoint["callbacks"] = {}
        self.average = checkpoint["lm"].get("average", {}) if self.averaged else {}
        self.skipped = checkpoint["lm"].get("skipped", 0)  # not in checkpoints of older versions
        self.skipped_in_row = checkpoint["lm"].get("skipped_in_row", 0) if self.skip_limit else 0
        set_batch_counts(checkpoint, self.accumulate)
