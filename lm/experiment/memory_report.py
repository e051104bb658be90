"""The report on the memory that a configuration needs."""

from __future__ import annotations

from typing import Any

from lm.base.console import format_table
from lm.config import Config
from lm.experiment.capacity import advice, estimate_for, format_bytes, memory_setup
from lm.memory import Network, largest_micro_batch, saved_by_kind


def memory_report(config: Config, vocab_size: int, device: str, capacity: int) -> dict[str, Any]:
    """Return all figures of the report, in bytes.

    `device` is a type of device, cpu or cuda, which this machine need not have. `capacity` is its memory in bytes.
    Raises UserError if the attention backend does not work there.
    """
    config.attention.require(device, config.model.dropout_at("attn"))
    setup, needed = memory_setup(config, vocab_size, device), estimate_for(config, vocab_size, device)
    operations = list(Network(config.model, setup).operations())
    micro = largest_micro_batch(config.model, setup, config.optimizer, capacity)
    divisors = [m for m in range(1, micro + 1) if config.data.batch_size % (m * config.trainer.devices) == 0]
    return {
        "device": device, "precision": setup.precision, "attention": setup.backend, "vocabulary": vocab_size,
        "micro_batch_size": setup.micro_batch, "accumulate": setup.accumulate,
        "block_size": config.model.block_size,
        "weights": needed.weights, "gradients": needed.full_gradients, "optimizer": needed.optimizer,
        "activations": {kind: n for kind, n in saved_by_kind(operations).items() if n},
        "peak": {
            "at": needed.at, "weights": needed.weights, "gradients": needed.gradients, "optimizer": needed.optimizer,
            "activations": sum(needed.activations.values()), "working": needed.working, "overhead": needed.overhead,
        },
        "total": needed.total, "capacity": capacity, "fits": needed.total <= capacity,
        "largest_micro_batch": micro, "largest_that_divides": max(divisors, default=None),
        "advice": None if needed.total <= capacity else advice(config, vocab_size, device, capacity),
    }  # fmt: skip


def format_report(report: dict[str, Any]) -> str:
    """Return the report as lines of text: a table, and sentences on what fits."""
    peak, activations = report["peak"], report["activations"]
    rows: list[tuple[str, int | None, int | None]] = [
        ("weights", report["weights"], peak["weights"]),
        ("gradients", report["gradients"], peak["gradients"]),
        ("optimizer state", report["optimizer"], peak["optimizer"]),
        *((f"saved for backward: {kind}", n, None) for kind, n in activations.items()),
        ("saved for backward, total", sum(activations.values()), peak["activations"]),
        (f"working memory ({peak['at']}, backward)", None, peak["working"]),
        ("torch itself, outside of tensors", None, peak["overhead"]),
        ("total", None, report["total"]),
    ]
    cells = [("", "maximum", "at the peak")]
    cells += [(name, format_optional(maximum), format_optional(at_peak)) for name, maximum, at_peak in rows]
    fits = "It fits in" if report["fits"] else "It does NOT fit in"
    summary = f"{fits} {format_bytes(report['capacity'])} ({report['capacity'] / 2**30:.1f} GiB)."
    micro, dividing = report["largest_micro_batch"], report["largest_that_divides"]
    if micro:
        summary += f" The largest micro-batch that fits is {micro}"
        summary += f"; of those that divide data.batch_size, data.micro_batch_size={dividing}." if dividing else "."
    lines = [
        f"{report['micro_batch_size']} x {report['block_size']} tokens at once, vocabulary {report['vocabulary']:,}, "
        f"{report['precision']}, attention {report['attention']}, on {report['device']}\n",
        format_table(cells),
        f"\n{summary}",
    ]
    if report["advice"]:
        lines.append(report["advice"])
    return "\n".join(lines)


def format_optional(n: int | None) -> str:
    """Format a number of bytes; an empty cell for None."""
    return "" if n is None else format_bytes(n)
