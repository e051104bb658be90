"""Write samples of the model's text during training to the console, samples.md, and TensorBoard's text tab."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from lm.base.errors import UserError
from lm.generate import complete
from lm.training.callbacks.config import SampleConfig
from lm.training.callbacks.periodic import PeriodicCallback

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")
HEADING = re.compile(rb"^## step (\d+)$", re.MULTILINE)


class Samples(PeriodicCallback):
    """Continue the prompts every N steps, with the same random numbers each time, so that samples can be compared."""

    def __init__(self, config: SampleConfig, directory: Path) -> None:
        super().__init__(config.every)
        self.config, self.path = config, directory / "samples.md"
        self.size: int | None = None  # bytes of samples.md at the resumed checkpoint, if recorded
        self.prompts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"bytes": self.path.stat().st_size if self.path.exists() else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.size = state_dict["bytes"]

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        if not trainer.is_global_zero:
            return
        self._remove_later_samples(trainer.global_step)
        tokenizer = pl_module.tokenizer
        for prompt in self.config.prompts:
            try:
                if not len(tokenizer.encode(prompt, special=True)):  # such as "\n", if words are split at white space
                    raise UserError("the tokenizer produces no tokens for it")
                self.prompts.append(prompt)
            except UserError as error:
                log.info("no samples from %r: %s", prompt, error)
        if not self.prompts:  # use the beginning of the validation text, which the tokenizer can encode
            ids = trainer.datamodule.tokens.val[:16].tolist()  # type: ignore[attr-defined]
            texts = (tokenizer.decode(ids[:n]) for n in range(1, len(ids) + 1))
            self.prompts = [next(text for text in texts if text and len(tokenizer.encode(text)))]

    def _remove_later_samples(self, step: int) -> None:
        """Remove the samples that a killed process wrote after the checkpoint that the run resumes from.

        If the checkpoint does not record the size of the file, because its session wrote no samples, the headings show
        where the later samples begin.
        """
        content = self.path.read_bytes() if self.path.exists() and step else b""
        later = (m.start() for m in HEADING.finditer(content) if int(m[1]) > step)
        size = next(later, len(content)) if self.size is None else self.size
        with self.path.open("ab") as file:
            file.truncate(min(size, len(content)))

    def act(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        with pl_module.evaluation_mode() as model:
            # in fp32: in bf16 a CPU compiles and caches kernels for every length of text
            completions = complete(model, pl_module.tokenizer, self.prompts, self.config.request(pl_module.seed))
        texts = [(c.prompt + c.text).strip("\n") for c in completions]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"## step {trainer.global_step}\n\n" + "".join(fence_text(text) for text in texts))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", "\n".join(map(fence_text, texts)), trainer.global_step)
        for text in texts:
            log.info(
                "%s", "\n".join([f"sample at step {trainer.global_step}", *("  | " + s for s in text.split("\n"))])
            )


def fence_text(text: str) -> str:
    """Return a Markdown code block with the text. Its fence is longer than any row of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n\n"
