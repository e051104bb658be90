"""A training step without Lightning, for the learning-rate range test, memory trials and benchmarks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lm.config import Config
from lm.model import GPT
from lm.model.precision import autocast


class TrainingLoop:
    """Model, optimizer and precision of a config on one device, eager and without Lightning.

    A step is `forward` and `backward` for each micro-batch, then `update`. Without `model` a new one is created.
    """

    def __init__(self, config: Config, vocab_size: int, device: str, model: GPT | None = None) -> None:
        self.config, self.vocab_size, self.device = config, vocab_size, device
        self.precision = config.precision.resolve(device)
        self.accumulate = config.data.accumulation_steps()
        if model is None:
            with torch.device(device):
                model = GPT(config.model, vocab_size, config.attention.backend)
        self.model = model.to(device, torch.bfloat16 if self.precision == "bf16_true" else None)
        fp16 = self.precision == "fp16"
        self.optimizer = config.optimizer.with_default_lr(config.model.n_embd).build(self.model, fused=not fp16)
        self.scaler = torch.amp.GradScaler(device, enabled=fp16)

    def random_batch(self) -> tuple[Tensor, Tensor]:
        """Return a micro-batch of random ids: x and y, (B, T) each."""
        shape = self.config.data.device_batch_size(), self.config.model.block_size + 1
        ids = torch.randint(self.vocab_size, shape, device=self.device)
        return ids[:, :-1], ids[:, 1:]

    def forward(self, x: Tensor, y: Tensor, documents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the objective and the summed loss in nats of a micro-batch (B, T)."""
        with autocast(self.device, self.precision):
            return self.model(x, documents, y, self.config.loss)

    def backward(self, objective: Tensor) -> None:
        self.scaler.scale(objective / self.accumulate).backward()

    def update(self, lr: float | None = None) -> None:
        """Clip the gradient and take a step with this peak learning rate, or with the configured one."""
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip or math.inf)
        for group in self.optimizer.param_groups if lr is not None else ():
            group["lr"] = lr * group["lr_ratio"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
