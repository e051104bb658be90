"""Keys of nanoGPT, PyTorch Lightning and Hugging Face, and their names in this project."""

from __future__ import annotations

import re
import sys

VAL_EVERY = "set trainer.val_every, in optimizer steps"

# Their key: our key. A key with a dot matches in that section only, other keys match in any section.
NAMES = {
    # nanoGPT
    "max_iters": "trainer.max_steps", "eval_interval": "trainer.val_every", "eval_iters": "trainer.val_batches",
    "log_interval": "trainer.log_every", "learning_rate": "optimizer.lr", "warmup_iters": "schedule.warmup_steps",
    "dataset": "corpus", "out_dir": "name", "dtype": "precision",
    # PyTorch Lightning
    "trainer.precision": "precision", "gradient_clip_val": "optimizer.grad_clip",
    "log_every_n_steps": "trainer.log_every",
    "default_root_dir": "name", "gpus": "trainer.devices", "trainer.seed": "seed", "trainer.name": "name",
    # Hugging Face
    "per_device_train_batch_size": "data.micro_batch_size", "num_train_epochs": "trainer.max_epochs",
    "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs", "eval_steps": "trainer.val_every",
    "save_steps": "trainer.save_every", "logging_steps": "trainer.log_every", "max_grad_norm": "optimizer.grad_clip",
    "lr_scheduler_type": "schedule", "lr_scheduler": "schedule", "scheduler": "schedule", "output_dir": "name",
    "adam_beta1": "optimizer.beta1", "adam_beta2": "optimizer.beta2", "adam_epsilon": "optimizer.eps",
    "optim": "optimizer", "torch_compile": "trainer.compile", "dataloader_num_workers": "data.num_workers",
    "run_name": "name", "train_batch_size": "data.batch_size",
    "d_model": "model.n_embd", "hidden_size": "model.n_embd", "embed_dim": "model.n_embd", "dim": "model.n_embd",
    "embedding_dim": "model.n_embd", "num_layers": "model.n_layer", "num_hidden_layers": "model.n_layer",
    "depth": "model.n_layer", "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head", "num_key_value_heads": "model.n_kv_head",
    "context_length": "model.block_size", "max_seq_len": "model.block_size", "seq_len": "model.block_size",
    "max_position_embeddings": "model.block_size", "n_positions": "model.block_size", "n_ctx": "model.block_size",
    "activation": "model.mlp", "hidden_act": "model.mlp", "tie_word_embeddings": "model.tie_embeddings",
    "data_path": "corpus.path", "train_file": "corpus.path", "device_type": "device",
}  # fmt: skip

# Keys without an equivalent here, and what to do instead.
REASONS = {
    "model.vocab_size": "the tokenizer decides the size of the vocabulary: set tokenizer.vocab_size",
    "model.batch_size": "the batch size is not part of the model: set data.batch_size",
    "gradient_accumulation_steps": "it follows from data.batch_size, the sequences of an optimizer step, and "
    "data.micro_batch_size, the sequences of a forward pass",
    "accumulate_grad_batches": "it follows from data.batch_size, the sequences of an optimizer step, and "
    "data.micro_batch_size, the sequences of a forward pass",
    "lr_decay_iters": "the schedule always covers the whole run: set trainer.max_steps",
    "always_save_checkpoint": "set trainer.save_every, in optimizer steps",
    "val_check_interval": VAL_EVERY, "check_val_every_n_epoch": VAL_EVERY,
    "limit_val_batches": "set trainer.val_batches, a number of batches",
    "decay_lr": "choose schedule=constant for a constant learning rate",
    "min_lr": "set schedule.min_lr_ratio, the lowest learning rate as a share of the peak",
    "warmup_ratio": "set schedule.warmup_fraction, the warmup as a share of all steps",
    "intermediate_size": "set model.mlp_ratio, the hidden units of the MLP per channel",
    "resume": "run the same command with the same name= again: it resumes",
    "resume_from_checkpoint": "run the same command with the same name= again: it resumes",
    "strategy": "it follows from trainer.devices",
    "fp16": "choose precision=fp16", "bf16": "choose precision=bf16",
    "wandb_log": "metrics go to metrics.csv and TensorBoard: see logger=",
    "eval_only": "scripts/evaluate.py RUN evaluates a run",
}  # fmt: skip

PRECISIONS = {"16": "fp16", "16-mixed": "fp16", "float16": "fp16", "bf16-mixed": "bf16", "bfloat16": "bf16",
              "bf16-true": "bf16_true", "32": "fp32", "32-true": "fp32", "float32": "fp32"}  # fmt: skip


def alias(key: str) -> str:
    """Return what to use instead of another framework's key, as the end of a message, or an empty string."""
    name = key.rpartition(".")[2]
    if reason := REASONS.get(key) or REASONS.get(name):
        return f"; {reason}"
    ours = NAMES.get(key) or NAMES.get(name)
    if not ours or ours == key:
        return ""
    value = _command_line_value(key)
    if ours == "precision":
        value = PRECISIONS.get(value, value)
    return f"; use {ours}={value}" if value else f"; use {ours}"


def _command_line_value(key: str) -> str:
    """Return the value of a key on the command line, or an empty string."""
    values = [match[1] for word in sys.argv[1:] if (match := re.fullmatch(rf"\+*{re.escape(key)}=(.*)", word))]
    return values[-1] if values else ""
