"""Check before training that a configuration fits into the memory of the device."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from lm.base.errors import UserError
from lm.config import Config
from lm.experiment.loop import TrainingLoop
from lm.memory import Estimate, Setup, estimate, ways_to_fit

# Out-of-memory messages of allocators that do not raise torch.OutOfMemoryError: CPU, Metal and cuBLAS.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def memory_setup(config: Config, vocab_size: int, device: str) -> Setup:
    """Collect the settings that determine memory use on one device of this type."""
    precision = config.precision.resolve(device)
    backend = config.attention.resolve(device, precision, config.model.block_size)
    devices = config.trainer.devices
    micro, accumulate = config.data.device_batch_size(devices), config.data.accumulation_steps(devices)
    chunk = config.loss.tokens_per_chunk(vocab_size)
    averages = (2 if precision == "bf16_true" else 1) * int(config.callbacks.average.enabled)  # the average is fp32
    copies = int(devices > 1) + averages
    snapshot = config.callbacks.checkpoint.background and device == "cpu"  # a GPU's is in host memory
    return Setup(vocab_size, micro, precision, backend, device, accumulate, chunk, copies, snapshot)


def estimate_for(config: Config, vocab_size: int, device: str) -> Estimate:
    """Estimate the memory of training on one device of this type."""
    return estimate(config.model, memory_setup(config, vocab_size, device), config.optimizer)


def require_memory(config: Config, vocab_size: int, device: str, capacity: int) -> Estimate:
    """Return the estimate. Raises UserError, with changes that help, if it exceeds `capacity` bytes."""
    needed = estimate_for(config, vocab_size, device)
    if needed.total > capacity and config.trainer.check_memory:
        place = "machine" if device == "cpu" else "GPU"
        raise UserError(
            f"training would need about {format_bytes(needed.total)}, and this {place} has {format_bytes(capacity)}. "
            f"{advice(config, vocab_size, device, capacity)}\n(scripts/memory.py with the same overrides lists what "
            "uses how much; trainer.check_memory=false tries anyway)"
        )
    return needed


def resolve_micro_batch(config: Config, vocab_size: int, device: str, capacity: int) -> Config:
    """Return the config with data.micro_batch_size=auto replaced by a number.

    It is the largest divisor of the batch of a device whose memory estimate is at most `capacity` bytes and that, on a
    GPU, passes trial steps. Raises UserError, with changes that help, if not even single sequences fit.
    """
    if config.data.micro_batch_size != "auto":
        return config
    devices = config.trainer.devices
    batch = config.data.device_batch_size(devices) * config.data.accumulation_steps(devices)
    sizes = [size for size in range(batch, 0, -1) if batch % size == 0]
    candidates = [replace(config, data=replace(config.data, micro_batch_size=size)) for size in sizes]
    # No trial on a CPU: Linux grants more memory than there is, and later kills the process that uses it. None on
    # several GPUs either: each process chooses for itself, and all must agree, which equal estimates ensure.
    needs_trial = device != "cpu" and devices == 1
    for candidate in candidates:
        fits_estimate = estimate_for(candidate, vocab_size, device).total <= capacity
        unchecked = candidate is candidates[-1] and not config.trainer.check_memory
        if (fits_estimate or unchecked) and (not needs_trial or fits_in_trial(candidate, vocab_size, device)):
            return candidate
    single = candidates[-1]
    require_memory(single, vocab_size, device, capacity)  # raises unless only the trial failed
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else capacity
    raise UserError(
        "data.micro_batch_size=auto: a training step with one sequence at a time ran out of memory, with "
        f"{format_bytes(free)} of {format_bytes(capacity)} free; check whether another process uses the device. "
        f"{advice(single, vocab_size, device, free)}"
    )


def fits_in_trial(config: Config, vocab_size: int, device: str) -> bool:
    """Return True if trial steps with a separate model of this config fit. The state of the process is restored."""
    fits, cuda = True, torch.cuda.is_available()
    with torch.random.fork_rng([torch.cuda.current_device()] if cuda else []):
        try:
            trial_steps(config, vocab_size, device)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not any(
                s in str(error).lower() for s in OUT_OF_MEMORY
            ):
                raise
            fits = False
    # only here, because the traceback held references to the tensors
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # perf/memory_gb must not include the trial
    elif device == "mps":
        torch.mps.empty_cache()
    return fits


def trial_steps(config: Config, vocab_size: int, device: str) -> None:
    """Run two optimizer steps on random ids, which reach the peak memory of training.

    The second step runs with the optimizer's state in memory, and a second micro-batch with the gradients of the
    first. The steps are eager even if the run compiles, which does not need more memory.
    """
    loop = TrainingLoop(config, vocab_size, device)
    average = [p.detach().clone() for p in loop.model.parameters() if config.callbacks.average.enabled]
    for _ in range(2):
        for _ in range(min(2, loop.accumulate)):
            x, y = loop.random_batch()  # (B, T) each
            documents = torch.zeros_like(x) if config.data.respect_documents else None  # the mask needs memory
            loop.backward(loop.forward(x, y, documents)[0])
        loop.update()
    del average  # kept until here because it needs memory during the steps


def advice(config: Config, vocab_size: int, device: str, capacity: int) -> str:
    """Return, as a few lines, changes that make training fit into `capacity` bytes."""
    batch = config.data.device_batch_size(config.trainer.devices) * config.data.accumulation_steps(
        config.trainer.devices
    )
    steps = list(ways_to_fit(config.model, memory_setup(config, vocab_size, device), config.optimizer, batch, capacity))
    if not steps:
        return "Use a smaller model: reduce model.n_layer or model.n_embd"
    # a key may be lowered several times, and the last value counts
    last = {change.partition("=")[0]: (change, result) for change, result in steps}
    lines = [f"  {change:<30} {format_bytes(result.total):>9}" for change, result in last.values()]
    fits = steps[-1][1].total <= capacity
    note = "" if fits else " (it is still too large after all of them)"
    return f"Change these, each in addition to the previous ones{note}:\n" + "\n".join(lines)


def known_vocab_size(config: Config) -> int:
    """Return the vocabulary size of the tokenizer. Raises UserError if it is unknown before the text is read."""
    known = {"ByteConfig": 256, "AsciiConfig": 128, "GPT2Config": 50257}
    size = getattr(config.tokenizer, "vocab_size", known.get(type(config.tokenizer).__name__))
    if size is None:
        raise UserError("the vocabulary size of this tokenizer depends on the text: give one, e.g. --vocab 100")
    return size


def format_bytes(n: float) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:,.0f} MB"
