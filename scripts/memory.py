"""Will it fit? python scripts/memory.py model=large data.micro_batch_size=8 --device cuda --memory 16GiB

Takes what train.py takes, and says what training would hold at its peak, the largest micro-batch that fits, and what to
change when it does not. For a device that is not here too: --device cuda. Everything is computed, nothing is trained.
"""

import argparse
import json
import re

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.console import format_table
from lm.base.hardware import device_type, memory_bytes
from lm.config import compose_config
from lm.experiment.capacity import advice, estimate_for, format_bytes, known_vocab_size, memory_setup
from lm.memory import Network, by_kind, largest_micro_batch

UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: model=large precision=bf16 ...")
    parser.add_argument("--memory", type=size, help="of the device, e.g. 16GiB (default: what this machine has)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: this machine's")
    parser.add_argument("--vocab", type=int, help="tokens of the vocabulary (default: the tokenizer's)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_intermixed_args()
    found = look(args)
    print(json.dumps({k: v for k, v in found.items() if k != "advice"}) if args.json else shown(found))


def look(args: argparse.Namespace) -> dict:
    config = compose_config(args.overrides, here=False)
    device = device_type("auto", "--device") if args.device == "auto" else args.device
    vocab = args.vocab or known_vocab_size(config)
    capacity = args.memory or memory_bytes(device_type(args.device, "--memory is missing, and --device"))
    config.attention.require(device, config.model.dropped("attn"))
    setting, made = memory_setup(config, vocab, device), estimate_for(config, vocab, device)
    operations = list(Network(config.model, setting).operations())
    micro = largest_micro_batch(config.model, setting, config.optimizer, capacity)
    divisors = [m for m in range(1, micro + 1) if config.data.batch_size % (m * config.trainer.devices) == 0]
    return {
        "device": device, "precision": setting.precision, "attention": setting.backend, "vocabulary": vocab,
        "micro_batch_size": setting.micro_batch, "accumulate": setting.accumulate,
        "block_size": config.model.block_size,
        "weights": made.weights, "gradients": made.full_gradients, "optimizer": made.optimizer,
        "activations": {kind: n for kind, n in by_kind(operations).items() if n},
        "peak": {
            "at": made.at, "weights": made.weights, "gradients": made.gradients, "optimizer": made.optimizer,
            "activations": sum(made.activations.values()), "working": made.working, "overhead": made.overhead,
        },
        "total": made.total, "capacity": capacity, "fits": made.total <= capacity,
        "largest_micro_batch": micro, "largest_that_divides": max(divisors, default=None),
        "advice": None if made.total <= capacity else advice(config, vocab, device, capacity),
    }  # fmt: skip


def shown(found: dict) -> str:
    peak = found["peak"]
    lines = [
        f"{found['micro_batch_size']} x {found['block_size']} tokens at once, vocabulary {found['vocabulary']:,}, "
        f"{found['precision']}, attention {found['attention']}, on {found['device']}\n"
    ]
    kept = found["activations"]
    rows = [("weights", found["weights"], peak["weights"]), ("gradients", found["gradients"], peak["gradients"])]
    rows += [("optimizer's state", found["optimizer"], peak["optimizer"])]
    rows += [(f"kept for backward: {kind}", n, None) for kind, n in kept.items()]
    rows += [("kept for backward, in all", sum(kept.values()), peak["activations"])]
    rows += [(f"working memory ({peak['at']}, backward)", None, peak["working"])]
    rows += [("torch itself, outside of tensors", None, peak["overhead"]), ("total", None, found["total"])]
    cells = [
        ("", "at its most", "at the peak"),
        *((n, *("" if v is None else format_bytes(v) for v in r)) for n, *r in rows),
    ]
    lines.append(format_table(cells))
    has = f"{format_bytes(found['capacity'])} ({found['capacity'] / 2**30:.1f} GiB)"
    lines.append(f"\n{'It fits' if found['fits'] else 'It does NOT fit'} {has}.")
    micro, divides = found["largest_micro_batch"], found["largest_that_divides"]
    if micro:
        among = f"; of those that divide data.batch_size, data.micro_batch_size={divides}" if divides else ""
        lines[-1] += f" The largest micro-batch that does: {micro}{among}."
    if found["advice"]:
        lines.append(found["advice"])
    return "\n".join(lines)


def size(typed: str) -> int:
    """'16GiB', '16G' or '500 MB' in bytes."""
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?i?)b?", typed.strip().lower())
    if not match or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{typed} is no size; 16GiB is one")
    return int(float(match[1]) * UNITS[match[2]])


if __name__ == "__main__":
    main()
