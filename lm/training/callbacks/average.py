"""An average of the weights over training. (Lightning's WeightAveraging copies the whole module, tokenizer and all, and
saves the average in place of the weights that training goes on from.)"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from lm.training.callbacks.config import AverageConfig


class Average(L.Callback):
    """Keeps `pl_module.average`, the exponential moving average of the weights (Polyak and Juditsky 1992), after every
    optimizer step. Validation, samples and whoever loads a checkpoint see it; training does not.

    Early on it forgets faster, so that the first, bad weights do not linger: at step s no more than (s + 1) / (s + 10)
    stays.
    """

    def __init__(self, config: AverageConfig) -> None:
        self.decay = config.decay

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        named = pl_module.named_weights()
        # in fp32: in bf16 one step of the average would be less than its last digit, and it would stand still
        source = pl_module.average or {name: p.detach().clone() for name, p in named.items()}  # else the checkpoint's
        pl_module.average = {name: source[name].to(p.device, torch.float32) for name, p in named.items()}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.stepped:
            step = trainer.global_step
            stays = min(self.decay, (step + 1) / (step + 10))
            weights = [p.detach() for p in pl_module.named_weights().values()]
            if weights[0].dtype == torch.float32:
                torch._foreach_lerp_(list(pl_module.average.values()), weights, 1 - stays)
                return
            for average, weight in zip(pl_module.average.values(), weights, strict=True):
                average.lerp_(weight.float(), 1 - stays)  # one at a time: a copy of all would take their memory again

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.use_average()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.use_trained()
