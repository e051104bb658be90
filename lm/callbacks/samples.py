"""Samples of the model's text while it learns: on the console, in samples.md, in TensorBoard's text tab."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lm.callbacks.metrics import StepMetrics
from lm.check import Check
from lm.generate import check_sampling, generate
from lm.run import write_atomically

log = logging.getLogger("lm")


@dataclass
class SampleConfig:
    """Text in the making. A prompt that the corpus's characters cannot spell is left out."""

    enabled: bool = True
    every: int = 500  # optimizer steps
    prompts: list[str] = field(default_factory=lambda: ["\n"])
    max_new_tokens: int = 100
    temperature: float = 0.8
    top_k: int | None = 50

    def __post_init__(self) -> None:
        check = Check("callbacks.sample", self)
        check.at_least("every", 1)
        check.that(bool(self.prompts) and all(self.prompts), "prompts", "hold at least one prompt, none of them empty")
        check.done()
        try:
            check_sampling(self.max_new_tokens, self.temperature, self.top_k, None)
        except ValueError as error:
            raise ValueError(f"callbacks.sample.{error}") from error


class Samples(L.Callback):
    """Samples every so many steps with a random stream of its own, always the same, so samples can be compared."""

    def __init__(self, config: SampleConfig, directory: Path, step: int) -> None:
        self.config, self.path, self.resume_step = config, directory / "samples.md", step

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            write_atomically(self.path, self._kept())

    def _kept(self) -> str:
        """samples.md as it was at the step that the run goes on from."""
        old = self.path.read_text(encoding="utf-8") if self.path.exists() and self.resume_step else ""
        sections = re.split(r"(?m)^(?=## step \d+$)", old)
        return "".join(s for s in sections if s and int(s.split()[2]) <= self.resume_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        due = trainer.global_step % self.config.every == 0 or trainer.global_step == pl_module.horizon
        if trainer.is_global_zero and pl_module.stepped and due:
            StepMetrics.pause(trainer)
            self._sample(trainer, pl_module)

    def _sample(self, trainer: L.Trainer, pl_module: Any) -> None:
        model, tokenizer = pl_module.model, pl_module.tokenizer
        model.eval()
        texts = []
        for prompt in self.config.prompts:
            try:
                ids = torch.from_numpy(tokenizer.encode(prompt)).to(pl_module.device)[None]  # (1, T)
            except ValueError:
                continue
            generator = torch.Generator(pl_module.device).manual_seed(pl_module.seed)
            c = self.config  # in fp32: in bf16 a CPU would build, and keep, kernels for every length of text
            ids = generate(model, ids, c.max_new_tokens, c.temperature, c.top_k, generator=generator)
            texts.append(tokenizer.decode(ids[0].tolist()).strip("\n"))
        model.train()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"## step {trainer.global_step}\n\n" + "".join(fenced(text) for text in texts))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", "\n".join(map(fenced, texts)), trainer.global_step)
        for text in texts:
            log.info(
                "%s", "\n".join([f"sample at step {trainer.global_step}", *("  | " + s for s in text.split("\n"))])
            )


def fenced(text: str) -> str:
    """A Markdown code block that no text can break out of."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n\n"
