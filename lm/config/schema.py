"""The root config: its sections, the classes of each section, and their registration with Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from lm.data.batches import DataConfig
from lm.data.corpus import CORPORA, CorpusConfig
from lm.data.tokenizer import TOKENIZERS, TokenizerConfig
from lm.model import GPTConfig
from lm.model.attention import AttentionConfig
from lm.model.loss import LossConfig
from lm.model.precision import PrecisionConfig
from lm.optim import OPTIMIZERS, OptimizerConfig
from lm.optim.schedule import SCHEDULES, ScheduleConfig
from lm.sweep.config import SweepConfig
from lm.sweep.register import register as register_sweepers
from lm.training.callbacks.config import CallbacksConfig
from lm.training.loggers.config import LoggerConfig
from lm.training.trainer import TrainerConfig


@dataclass
class Config:
    """The whole configuration of a run, one field per group and the keys at the top."""

    model: GPTConfig = MISSING  # architecture and size of the model
    attention: AttentionConfig = MISSING  # implementation of attention
    corpus: CorpusConfig = MISSING  # text to train on
    tokenizer: TokenizerConfig = MISSING  # how text becomes tokens
    data: DataConfig = MISSING  # batches, and where downloads and caches are
    optimizer: OptimizerConfig = MISSING  # optimizer and peak learning rate
    loss: LossConfig = MISSING  # what is minimized
    schedule: ScheduleConfig = MISSING  # learning rate over the steps
    precision: PrecisionConfig = MISSING  # number format of the computation
    trainer: TrainerConfig = MISSING  # how long, on what, and when to validate, save and log
    callbacks: CallbacksConfig = MISSING  # samples, checkpoints, early stopping and warnings
    logger: LoggerConfig = MISSING  # where metrics are written
    # how runs of a sweep are chosen and compared; a single run ignores it
    sweep: SweepConfig = field(default_factory=SweepConfig)
    name: str = MISSING  # name of the run, which is kept in outputs/<name>; default: date and time
    seed: int = 1337  # seed of initialization, data order and dropout
    device: str = "auto"  # auto | cpu | gpu | cuda | mps; the same as trainer.accelerator
    init_from: str | None = None  # start a new run from the weights of this run, checkpoint or hf:<directory>
    init_optimizer: str = "new"  # with init_from: new | keep (also take over the optimizer's state)
    init_tokenizer: str = "keep"  # with init_from: keep (its tokenizer) | new (the one that tokenizer= makes)


SCHEMAS: dict[str, list[type]] = {
    "model": [GPTConfig],
    "attention": [AttentionConfig],
    "corpus": CORPORA,
    "tokenizer": TOKENIZERS,
    "data": [DataConfig],
    "optimizer": OPTIMIZERS,
    "loss": [LossConfig],
    "schedule": SCHEDULES,
    "precision": [PrecisionConfig],
    "trainer": [TrainerConfig],
    "callbacks": [CallbacksConfig],
    "logger": [LoggerConfig],
}


def register() -> None:
    """Register the schemas with Hydra under their class names, so that a YAML file can extend `[GPTConfig]`."""
    store = ConfigStore.instance()
    store.store(name="Config", node=Config)
    for group, schemas in SCHEMAS.items():
        for schema in schemas:
            store.store(group=group, name=schema.__name__, node=schema)
    register_sweepers()
