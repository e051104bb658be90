"""Estimate the memory that training needs, without training.

    python scripts/memory.py model=large data.micro_batch_size=8 --device cuda --memory 16GiB

The overrides are those of train.py. The report shows the peak memory of training, the largest micro-batch that fits,
and what to change if it does not fit. With --device cuda it also works on a machine without a GPU.
"""

import argparse
import json
import re

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.hardware import memory_bytes, resolve_device_type
from lm.config import compose_config
from lm.experiment.capacity import known_vocab_size
from lm.experiment.memory_report import format_report, memory_report

UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides as for train.py: model=large precision=bf16 ...")
    parser.add_argument(
        "--memory", type=parse_size, help="memory of the device, e.g. 16GiB (default: that of this machine's device)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: the device of this machine"
    )
    parser.add_argument("--vocab", type=int, help="vocabulary size (default: that of the tokenizer)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_intermixed_args()
    config = compose_config(args.overrides, here=False)
    device = resolve_device_type("auto", "--device") if args.device == "auto" else args.device
    vocab_size = args.vocab or known_vocab_size(config)
    capacity = args.memory or memory_bytes(resolve_device_type(args.device, "--memory is missing, and --device"))
    report = memory_report(config, vocab_size, device, capacity)
    if args.json:
        print(json.dumps({key: value for key, value in report.items() if key != "advice"}))
    else:
        print(format_report(report))


def parse_size(text: str) -> int:
    """Return the number of bytes in a text such as 16GiB, 16G or 500 MB."""
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?i?)b?", text.strip().lower())
    if not match or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text} is not a size; write it like 16GiB or 500MB")
    return int(float(match[1]) * UNITS[match[2]])


if __name__ == "__main__":
    main()
