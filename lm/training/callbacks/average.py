"""A moving average of the weights.

Lightning's WeightAveraging copies the whole module, including the tokenizer, and saves the average in place of the
weights that training continues from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from lm.training.callbacks.config import AverageConfig

if TYPE_CHECKING:
    from lm.training.module import LanguageModule


class Average(L.Callback):
    """Update `pl_module.average`, the exponential moving average of the weights, after every optimizer step.

    Validation, samples and loaded checkpoints use the average; training does not (Polyak and Juditsky 1992). Early in
    training the decay is smaller, so that the first, bad weights are forgotten: at step s it is at most
    (s + 1) / (s + 10).
    """

    def __init__(self, config: AverageConfig) -> None:
        self.decay = config.decay

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        named = pl_module.named_weights()
        # in fp32, because in bf16 an update of the average would be rounded to nothing
        source = pl_module.average or {name: p.detach().clone() for name, p in named.items()}
        pl_module.average = {name: source[name].to(p.device, torch.float32) for name, p in named.items()}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        if pl_module.stepped:
            step = trainer.global_step
            decay = min(self.decay, (step + 1) / (step + 10))
            weights = [p.detach() for p in pl_module.named_weights().values()]
            if weights[0].dtype == torch.float32:
                torch._foreach_lerp_(list(pl_module.average.values()), weights, 1 - decay)
                return
            for average, weight in zip(pl_module.average.values(), weights, strict=True):
                average.lerp_(weight.float(), 1 - decay)  # one at a time, to avoid an fp32 copy of all weights

    def on_validation_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        pl_module.use_average()

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        pl_module.use_trained()
