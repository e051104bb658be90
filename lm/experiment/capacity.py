"""Whether a configuration fits this device, said before it is trained."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from lm.base.errors import UserError
from lm.config import Config
from lm.experiment.loop import TrainingLoop
from lm.memory import Estimate, Setup, estimate, ways_to_fit

# How torch's allocators say it where they have no torch.OutOfMemoryError for it: a CPU's, Metal's, cuBLAS.
NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def memory_setup(config: Config, vocab_size: int, device: str) -> Setup:
    """What of the whole configuration decides its memory, on one device of this type."""
    precision = config.precision.resolve(device)
    backend = config.attention.resolve(device, precision, config.model.block_size)
    devices = config.trainer.devices
    micro, accumulate = config.data.micro(devices), config.data.accumulate(devices)
    chunk = config.loss.tokens(vocab_size)
    averages = (2 if precision == "bf16_true" else 1) * int(config.callbacks.average.enabled)  # the average is fp32
    copies = int(devices > 1) + averages
    snapshot = config.callbacks.checkpoint.background and device == "cpu"  # a GPU's lies in the machine's memory
    return Setup(vocab_size, micro, precision, backend, device, accumulate, chunk, copies, snapshot)


def estimate_for(config: Config, vocab_size: int, device: str) -> Estimate:
    return estimate(config.model, memory_setup(config, vocab_size, device), config.optimizer)


def require_memory(config: Config, vocab_size: int, device: str, capacity: int) -> Estimate:
    """The estimate. Raises UserError, with what to change, when it exceeds `capacity` bytes."""
    needed = estimate_for(config, vocab_size, device)
    if needed.total > capacity and config.trainer.check_memory:
        place = "machine" if device == "cpu" else "GPU"
        raise UserError(
            f"training would take about {format_bytes(needed.total)}, and this {place} has {format_bytes(capacity)}. "
            f"{advice(config, vocab_size, device, capacity)}\n(scripts/memory.py, with the same overrides, shows what "
            "takes how much; trainer.check_memory=false tries anyway)"
        )
    return needed


def resolve_micro_batch(config: Config, vocab_size: int, device: str, capacity: int) -> Config:
    """The config with its data.micro_batch_size=auto made a number: of the divisors of a device's batch, the largest
    whose estimate is within `capacity` and which, on a GPU, a trial step bears out.

    Raises UserError, with what to change, when not even single sequences fit.
    """
    if config.data.micro_batch_size != "auto":
        return config
    devices = config.trainer.devices
    batch = config.data.micro(devices) * config.data.accumulate(devices)
    sizes = [size for size in range(batch, 0, -1) if batch % size == 0]
    candidates = [replace(config, data=replace(config.data, micro_batch_size=size)) for size in sizes]
    # A CPU is not tried: its kernel promises memory that it does not have, and kills who takes it at its word. Nor are
    # several GPUs, whose processes each choose for themselves and must agree: equal cards have equal estimates.
    tried = device != "cpu" and devices == 1
    for candidate in candidates:
        likely = estimate_for(candidate, vocab_size, device).total <= capacity
        anyway = candidate is candidates[-1] and not config.trainer.check_memory
        if (likely or anyway) and (not tried or fits_in_trial(candidate, vocab_size, device)):
            return candidate
    single = candidates[-1]
    require_memory(single, vocab_size, device, capacity)  # raises, unless only the trial failed
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else capacity
    raise UserError(
        "data.micro_batch_size=auto: a training step of one sequence at a time found no room in the "
        f"{format_bytes(free)} that are free of {format_bytes(capacity)}; does another process use the device? "
        f"{advice(single, vocab_size, device, free)}"
    )


def fits_in_trial(config: Config, vocab_size: int, device: str) -> bool:
    """Whether there is room to train: tried with another model of this config, without a trace in this process."""
    fits, cuda = True, torch.cuda.is_available()
    with torch.random.fork_rng([torch.cuda.current_device()] if cuda else []):
        try:
            trial_steps(config, vocab_size, device)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not any(s in str(error).lower() for s in NO_ROOM):
                raise
            fits = False
    # only here, where no traceback holds the tensors any more
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # perf/memory_gb is the run's own
    elif device == "mps":
        torch.mps.empty_cache()
    return fits


def trial_steps(config: Config, vocab_size: int, device: str) -> None:
    """Two optimizer steps on random ids, as large as training ever gets: the second forward pass finds the optimizer's
    state there, a second micro-batch the gradients of the first. Eager where the run compiles, which takes no more."""
    loop = TrainingLoop(config, vocab_size, device)
    average = [p.detach().clone() for p in loop.model.parameters() if config.callbacks.average.enabled]
    for _ in range(2):
        for _ in range(min(2, loop.accumulate)):
            x, y = loop.random_batch()  # (B, T) each
            documents = torch.zeros_like(x) if config.data.respect_documents else None  # a mask takes room
            loop.backward(loop.forward(x, y, documents)[0])
        loop.update()
    del average  # which was there all the while


def advice(config: Config, vocab_size: int, device: str, capacity: int) -> str:
    """What to change until it fits, as a few lines."""
    batch = config.data.micro(config.trainer.devices) * config.data.accumulate(config.trainer.devices)
    rungs = list(ways_to_fit(config.model, memory_setup(config, vocab_size, device), config.optimizer, batch, capacity))
    if not rungs:
        return "It needs a smaller model: fewer model.n_layer, a narrower model.n_embd"
    # of a key that is lowered again and again, the last counts
    last = {change.partition("=")[0]: (change, made) for change, made in rungs}
    lines = [f"  {change:<30} {format_bytes(made.total):>9}" for change, made in last.values()]
    enough = rungs[-1][1].total <= capacity
    return (
        f"What to change, each on top of the one before{'' if enough else ' (and the model is still too large)'}:\n"
        + "\n".join(lines)
    )


def known_vocab_size(config: Config) -> int:
    """How many tokens the tokenizer will have, as far as that is known before the text is read. Raises UserError."""
    known = {"ByteConfig": 256, "AsciiConfig": 128, "GPT2Config": 50257}
    size = getattr(config.tokenizer, "vocab_size", known.get(type(config.tokenizer).__name__))
    if size is None:
        raise UserError("how many tokens this tokenizer has depends on the text: say --vocab 100, for example")
    return size


def format_bytes(n: float) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:,.0f} MB"
