"""Measure on this machine: python scripts/bench.py attention

Timings on shared machines swing, so all candidates of a row run alternately, and the median counts.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from lm.attention import attend, pick
from lm.hardware import ACCELERATORS, device_name, device_type, synchronize
from lm.precision import DTYPES

SHAPES = [  # B, H, T, D
    (16, 4, 64, 32), (16, 4, 128, 32), (16, 6, 256, 64), (8, 8, 256, 64), (4, 8, 512, 64), (1, 12, 1024, 64),
]  # fmt: skip


def attention(device: str, repeats: int) -> list[dict]:
    """Forward and backward of each backend in ms; what `auto` picks, and how much that loses to the best."""
    rows = []
    for dtype in ("fp32", "bf16"):
        for shape in SHAPES:
            qkv = torch.randn(3, *shape, device=device, dtype=DTYPES[dtype], requires_grad=True)
            times: dict[str, list[float]] = {"manual": [], "sdpa": []}
            for _ in range(repeats):
                for backend, seconds in times.items():
                    synchronize(torch.device(device))
                    start = time.perf_counter()
                    attend(*qkv.unbind(0), backend).sum().backward()
                    synchronize(torch.device(device))
                    seconds.append(time.perf_counter() - start)
            ms = {backend: 1e3 * statistics.median(seconds[2:]) for backend, seconds in times.items()}
            chosen = pick(device, DTYPES[dtype], shape[2])
            loss = ms[chosen] / min(ms.values()) - 1
            rows.append({"dtype": dtype, "shape": shape, **ms, "auto": chosen, "loss": loss})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=("attention",))
    parser.add_argument("--device", default="auto", choices=ACCELERATORS)
    parser.add_argument("--repeats", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    try:
        device = device_type(args.device, "--device")
    except ValueError as error:
        sys.exit(f"error: {error}")
    rows = attention(device, args.repeats)
    if args.json:
        print(json.dumps({"device": device_name(device), "torch": torch.__version__, "rows": rows}))
        return
    print(f"{device_name(device)}, torch {torch.__version__}; forward + backward, median of {args.repeats - 2} in ms\n")
    print(f"{'dtype':<6}{'B, H, T, D':<18}{'manual':>8}{'sdpa':>8}   {'auto':<8}{'loses':>6}")
    for row in rows:
        shape, loses = ", ".join(map(str, row["shape"])), f"{row['loss']:.0%}"
        print(f"{row['dtype']:<6}{shape:<18}{row['manual']:>8.2f}{row['sdpa']:>8.2f}   {row['auto']:<8}{loses:>6}")


if __name__ == "__main__":
    main()
