"""Whether a configuration fits this device, said before it is trained."""

from __future__ import annotations

from lm.attention import pick
from lm.config import Config
from lm.memory import Estimate, Setup, estimate, ladder
from lm.precision import DTYPES


def setup(config: Config, vocab_size: int, device: str) -> Setup:
    """What of the whole configuration decides its memory, on one device of this type."""
    precision = config.precision.resolve(device)
    backend = config.attention.backend
    if backend == "auto":
        backend = pick(device, DTYPES[precision], config.model.block_size)
    devices = config.trainer.devices
    micro, accumulate = config.data.micro(devices), config.data.accumulate(devices)
    return Setup(vocab_size, micro, precision, backend, device, accumulate, devices)


def expect(config: Config, vocab_size: int, device: str) -> Estimate:
    return estimate(config.model, setup(config, vocab_size, device), config.optimizer)


def require(config: Config, vocab_size: int, device: str, capacity: int) -> Estimate:
    """The estimate. Raises ValueError, with what to change, when it exceeds `capacity` bytes."""
    needed = expect(config, vocab_size, device)
    if needed.total > capacity and config.trainer.check_memory:
        raise ValueError(
            f"training would take about {gb(needed.total)}, and this {'machine' if device == 'cpu' else 'GPU'} has "
            f"{gb(capacity)}. {advice(config, vocab_size, device, capacity)}\n(scripts/memory.py, with the same "
            "overrides, shows what takes how much; trainer.check_memory=false tries anyway)"
        )
    return needed


def advice(config: Config, vocab_size: int, device: str, capacity: int) -> str:
    """What to change until it fits, as a few lines."""
    batch = config.data.micro(config.trainer.devices) * config.data.accumulate(config.trainer.devices)
    rungs = list(ladder(config.model, setup(config, vocab_size, device), config.optimizer, batch, capacity))
    if not rungs:
        return "It needs a smaller model: fewer model.n_layer, a narrower model.n_embd"
    # of a key that is lowered again and again, the last counts
    last = {change.partition("=")[0]: (change, made) for change, made in rungs}
    lines = [f"  {change:<30} {gb(made.total):>9}" for change, made in last.values()]
    enough = rungs[-1][1].total <= capacity
    return (
        f"What to change, each on top of the one before{'' if enough else ' (and the model is still too large)'}:\n"
        + "\n".join(lines)
    )


def vocabulary(config: Config) -> int:
    """How many tokens the tokenizer will have, as far as that is known before the text is read. Raises ValueError."""
    known = {"ByteConfig": 256, "AsciiConfig": 128, "GPT2Config": 50257}
    size = getattr(config.tokenizer, "vocab_size", known.get(type(config.tokenizer).__name__))
    if size is None:
        raise ValueError("how many tokens this tokenizer has depends on the text: say --vocab 100, for example")
    return size


def gb(n: float) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:,.0f} MB"
