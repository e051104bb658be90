"""Every model preset in numbers: python scripts/models.py [feste lab/nano model.n_layer=3 ...] [--vocab 2048] [--json]

Each at the vocabulary and context of the document that it comes from, ours at 2048 byte pairs; the Learning Lab's also
tied, as its documents leave that open. Memory is that of training in fp32 with AdamW, activations aside.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import torch
from rich.console import Console
from rich.table import Table

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.config import CONF, load_option
from lm.model import GPT, GPTConfig

VOCABULARY = {  # of the documents; a family's, unless one of it has its own
    "feste": 8192, "feste/tiny": 512, "feste/small": 1024, "feste/medium": 1536, "feste/gpt2": 20534,
    "fundamentallm": 69, "lab": 50257, "nanogpt": 65, "nanogpt/gpt2": 50257, "microgpt": 27,
    "femtogpt": 256, "femtogpt/160x8": 566, "femtogpt/768x8": 1054, "femtogpt/192x8": 1054,
}  # fmt: skip
OURS = 2048


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "presets", nargs="*", metavar="PRESET or model.key=value", help="presets or families; none: all"
    )
    parser.add_argument("--vocab", type=int, help="another vocabulary, for all of them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = list(numbers(args.presets, args.vocab))
    if args.json:
        print(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, key in enumerate(rows[0]):
        table.add_column(key, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in row.values())
        )
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def presets() -> list[str]:
    files = (path.relative_to(CONF / "model") for path in (CONF / "model").rglob("*.yaml"))
    return sorted((path.with_suffix("").as_posix() for path in files), key=lambda name: ("/" in name, name))


def numbers(words: list[str], vocab: int | None):
    known = presets()
    names, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    fields = {}
    for typed in overrides:
        key, _, value = typed.removeprefix("model.").partition("=")
        if key not in GPTConfig.__dataclass_fields__:
            raise UserError(f"unknown key model.{key}{did_you_mean(key, list(GPTConfig.__dataclass_fields__))}")
        fields[key] = json.loads(value) if value[:1] in "0123456789.-tfn" else value
    for name in names:
        if not any(name in (k, k.partition("/")[0]) for k in known):
            raise UserError(f"{name}: there is no such preset or family{did_you_mean(name, known)}")
    for name in known:
        if names and name not in names and name.partition("/")[0] not in names:
            continue
        V = vocab or VOCABULARY.get(name) or VOCABULARY.get(name.partition("/")[0]) or OURS
        config = load_option("model", name, **fields)
        yield row(name, config, V)
        if name.startswith("lab/") and not config.tie_embeddings:
            yield row(f"{name}, tied", load_option("model", name, **fields | {"tie_embeddings": True}), V)


def row(name: str, config: GPTConfig, V: int) -> dict:
    with torch.device("meta"):
        model = GPT(config, V)
    sizes = {n: p.numel() for n, p in model.named_parameters()}

    def part(*words: str) -> int:
        return sum(size for n, size in sizes.items() if any(word in n for word in words))

    embedding = part("wte", "wpe", "head")
    return {
        "model": name, "vocabulary": V, "context": config.block_size,
        "shape": f"{config.n_layer}x{config.n_embd}, {config.n_head} heads",
        "parameters": model.num_params, "embedding": embedding, "other": model.num_params - embedding,
        "attention": part(".attn."), "mlp": part(".mlp."), "norms": part("norm"),
        "MFLOP/token": model.flops_per_token / 1e6,
        "weights MB": 4 * model.num_params / 1e6, "gradients MB": 4 * model.num_params / 1e6,
        "AdamW MB": 8 * model.num_params / 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    main()
