"""Let a trained model write: python scripts/generate.py outputs/mine --prompt "ROMEO:" """

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from lm.checkpoint import load
from lm.generate import check_sampling, generate
from lm.hardware import ACCELERATORS, device_type


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory (its best checkpoint) or a .ckpt file")
    parser.add_argument("--prompt", default="\n", help="what the model continues (default: a new line)")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=None, help="choose among the k likeliest tokens")
    parser.add_argument("--top-p", type=float, default=None, help="choose among the fewest that hold this probability")
    parser.add_argument("--num-samples", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1337, help="the same seed gives the same text")
    parser.add_argument("--device", default="auto", choices=ACCELERATORS)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    args = parser.parse_args()
    try:
        texts = sample_texts(args)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if args.json:
        print(json.dumps({"run": str(args.run), "prompt": args.prompt, "samples": texts}))
    else:
        print("\n---\n".join(texts))


def sample_texts(args: argparse.Namespace) -> list[str]:
    check_sampling(args.max_new_tokens, args.temperature, args.top_k, args.top_p)
    if args.num_samples < 1:
        raise ValueError(f"num_samples={args.num_samples} must be at least 1")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"seed={args.seed} must be at least 0 and below 2**63")
    if not args.prompt:
        raise ValueError("the prompt is empty: give at least one character to go on from")
    device = device_type(args.device, "--device")
    checkpoint = load(args.run)
    model = checkpoint.model.to(device)
    prompt = torch.from_numpy(checkpoint.tokenizer.encode(args.prompt)).to(device)  # (T,)
    generator = torch.Generator(device).manual_seed(args.seed)
    ids = prompt.expand(args.num_samples, -1)  # (B, T)
    ids = generate(model, ids, args.max_new_tokens, args.temperature, args.top_k, args.top_p, generator)
    return [checkpoint.tokenizer.decode(row) for row in ids.tolist()]


if __name__ == "__main__":
    main()
