"""Samples of the model's text while it learns: on the console, in samples.md, in TensorBoard's text tab."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from lm.base.errors import UserError
from lm.generate import complete
from lm.training.callbacks.config import SampleConfig
from lm.training.callbacks.periodic import PeriodicCallback

log = logging.getLogger("lm")
HEADING = re.compile(rb"^## step (\d+)$", re.MULTILINE)


class Samples(PeriodicCallback):
    """Samples every so many steps with a random stream of its own, always the same, so samples can be compared."""

    def __init__(self, config: SampleConfig, directory: Path) -> None:
        super().__init__(config.every)
        self.config, self.path = config, directory / "samples.md"
        self.size: int | None = None  # bytes of samples.md at the checkpoint that the run resumes from, if it says so
        self.prompts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"bytes": self.path.stat().st_size if self.path.exists() else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.size = state_dict["bytes"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        self._take_back(trainer.global_step)
        tokenizer = pl_module.tokenizer
        for prompt in self.config.prompts:
            try:
                if not len(
                    tokenizer.encode(prompt, special=True)
                ):  # such as a new line, where words are split at white space
                    raise UserError("the tokenizer makes no token of it")
                self.prompts.append(prompt)
            except UserError as error:
                log.info("no samples from %r: %s", prompt, error)
        if not self.prompts:  # the validation text begins with something that the tokenizer can spell
            ids = trainer.datamodule.tokens.val[:16].tolist()  # type: ignore[attr-defined]
            texts = (tokenizer.decode(ids[:n]) for n in range(1, len(ids) + 1))
            self.prompts = [next(text for text in texts if text and len(tokenizer.encode(text)))]

    def _take_back(self, step: int) -> None:
        """Remove the samples that a killed process wrote after the checkpoint that the run resumes from.

        Where the checkpoint does not say how long the file was, since its session made no samples, the headings do.
        """
        written = self.path.read_bytes() if self.path.exists() and step else b""
        later = (m.start() for m in HEADING.finditer(written) if int(m[1]) > step)
        kept = next(later, len(written)) if self.size is None else self.size
        with self.path.open("ab") as file:
            file.truncate(min(kept, len(written)))

    def act(self, trainer: L.Trainer, pl_module: Any) -> None:
        with pl_module.as_validated() as model:
            # in fp32: in bf16 a CPU would build, and keep, kernels for every length of text
            completions = complete(model, pl_module.tokenizer, self.prompts, self.config.request(pl_module.seed))
        texts = [(c.prompt + c.text).strip("\n") for c in completions]
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
