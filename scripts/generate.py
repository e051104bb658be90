"""Let a trained model write: python scripts/generate.py outputs/mine --prompt "ROMEO:"

Text goes to standard output as it is made, all else to standard error. --interactive begins a session; --random, with
what train.py takes instead of a run (model=tiny corpus=shakespeare), shows what an untrained model writes.
"""

import argparse
import importlib
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import torch
from rich.console import Console
from rich.text import Text

from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.hardware import ACCELERATORS, device_type
from lm.data import user_text
from lm.data.token_files import cached_tokenizer
from lm.generate import Completion, GenerationRequest, Sampling, complete, drawable_tokens, find_special_tokens
from lm.generate.session import Session, stops
from lm.model import GPT
from lm.run.checkpoint import Checkpoint, load

SHADES = [(0.8, "green"), (0.4, "cyan"), (0.1, "yellow"), (0.01, "magenta"), (0.0, "red")]  # from this probability on


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "source",
        nargs="*",
        metavar="RUN",
        help="a run (its best checkpoint; while it trains, its last), a .ckpt file, an exported directory",
    )
    add(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what the model continues (default: a new line); may be given several times; - reads standard input",
    )
    add("--prompt-file", action="append", default=[], metavar="FILE", help="the file's text is a prompt")
    add("--lines", action="store_true", help="each line of files and standard input is a prompt of its own")
    add("--parse-special", action="store_true", help="a prompt that spells a special token gives that token")
    add(
        "--prompt-from-document-start",
        action="store_true",
        help="each prompt follows the end-of-text token, as a document does; without a prompt, that token alone is one",
    )
    add("--max-new-tokens", type=int, default=200)
    add("--temperature", type=float, default=0.8, help="0: always the likeliest token (default: 0.8)")
    add("--top-k", type=int, help="choose among the k likeliest tokens")
    add("--top-p", type=float, help="choose among the fewest that hold this probability")
    add("--min-p", type=float, help="choose among those of at least this share of the likeliest one's probability")
    add("--repetition-penalty", type=float, default=1.0, help="above 1: repeat less (default: 1)")
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end in front of it; several may be given; \\n is a new line",
    )
    add("--ignore-end", action="store_true", help="go on after the end-of-text token")
    add("--num-samples", type=int, default=1, help="of each prompt")
    add("--seed", type=int, default=1337, help="the same seed gives the same text")
    add(
        "--show-probs",
        type=int,
        nargs="?",
        const=5,
        default=0,
        metavar="N",
        help="colour tokens by the probability "
        "that the model gave them, and list the N likeliest at each place (default: 5)",
    )
    add("--interactive", action="store_true", help="a session: prompts, settings, /help")
    add("--random", action="store_true", help="a model of random weights; name it as for train.py, e.g. model=tiny")
    add("--out", type=cli.path, metavar="FILE", help="write the texts there; as JSON lines if it ends in .jsonl")
    add("--no-cache", action="store_true", help="compute every token from all before it: slower, and the same")
    add("--device", default="auto", choices=ACCELERATORS)
    add("--json", action="store_true", help="print one JSON object instead of the text")
    args = parser.parse_intermixed_args()
    wanted = GenerationRequest(
        args.max_new_tokens,
        Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty),
        args.num_samples, args.seed, stops([user_text.argument("--stop", typed) for typed in args.stop]),
        not args.ignore_end, args.show_probs, not args.no_cache,
        args.parse_special, args.prompt_from_document_start,
    )  # fmt: skip
    device = device_type(args.device, "--device")
    if args.interactive:
        talk(source(args), wanted, device)
    else:
        generate(args, wanted, device)


def source(args: argparse.Namespace) -> Checkpoint:
    if args.random:
        from lm.config import compose_config  # Hydra, which a checkpoint needs not

        config = compose_config(args.source)
        downloads = config.data.downloads()
        tokenizer = cached_tokenizer(config.tokenizer, config.corpus.load(downloads), downloads)
        torch.manual_seed(config.seed)
        return Checkpoint(Path("random"), GPT(config.model, tokenizer.vocab_size).eval(), tokenizer, 0, {})
    if len(args.source) != 1:
        given = f"not {len(args.source)}: {' '.join(args.source)}" if args.source else "or --random and a model="
        raise UserError(f"name one run, {given}")
    return load(args.source[0])


def prompts(args: argparse.Namespace) -> list[str]:
    if args.prompt is None and not args.prompt_file:
        return ["" if args.prompt_from_document_start else "\n"]

    def read(name: str) -> list[str]:
        text = user_text.read(name)
        return [line for line in user_text.lines(text) if line] if args.lines else [text]

    found: list[str] = []
    for prompt in args.prompt or []:
        found += read(prompt) if prompt == "-" else [user_text.argument("--prompt", prompt)]
    for name in args.prompt_file:
        found += read(name)
    return found


def generate(args: argparse.Namespace, wanted: GenerationRequest, device: str) -> None:
    asked = prompts(args)
    checkpoint = source(args)
    model = checkpoint.model.to(device)
    if not wanted.parse_special and (names := find_special_tokens(checkpoint.tokenizer, asked)):
        what = f"the prompt spells {', '.join(names)}, encoded as ordinary text"
        print(f"hint: {what}; with --parse-special it becomes a token", file=sys.stderr)
    alone = len(asked) * wanted.num_samples == 1 and not args.json
    unsaid = [asked[0]] if alone else []  # the prompt goes in front of what is told first

    def tell(row: int, text: str) -> None:
        if alone:
            print(unsaid.pop() + text if unsaid else text, end="", flush=True)

    began = time.perf_counter()
    found = complete(model, checkpoint.tokenizer, asked, wanted, tell)
    seconds = time.perf_counter() - began
    tokens = sum(len(c.ids) for c in found)
    if args.json:
        print(json.dumps({
            "run": " ".join(args.source), "step": checkpoint.step, "samples": [c.prompt + c.text for c in found],
            "completions": [asdict(c) for c in found], "seconds": seconds, "tokens_per_s": tokens / seconds,
        }))  # fmt: skip
    elif alone:
        print(*unsaid)
    else:
        print("\n---\n".join(c.prompt + c.text for c in found))
    if wanted.alternatives and not args.json:
        for completion in found:
            show(checkpoint, completion)
    if args.out:
        lines = "".join(json.dumps(asdict(c)) + "\n" for c in found)
        texts = "\n---\n".join(c.prompt + c.text for c in found) + "\n"
        args.out.write_text(lines if args.out.suffix == ".jsonl" else texts, encoding="utf-8")
    print(f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} tokens/s", file=sys.stderr)


def show(checkpoint: Checkpoint, completion: Completion) -> None:
    """The text in colours, where there are any, and a table of its tokens."""

    mask = drawable_tokens(checkpoint.tokenizer, checkpoint.model.vocab_size)

    def spelt(token: int) -> str:
        return f"#{token} (no token)" if mask is not None and not mask[token] else repr(tokenizer.decode([token]))

    tokenizer, legend, text = checkpoint.tokenizer, Text("\nprobability "), Text()
    for least, shade in SHADES:
        legend.append(f"from {least:g} " if least else "below", shade)
    for piece in completion.pieces:
        shade = next(shade for least, shade in SHADES if piece.prob >= least)
        text.append(tokenizer.decode([piece.id]), shade)
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(legend, Text(completion.prompt, "dim") + text, sep="\n")
    rows = [
        (spelt(p.id), f"{p.prob:.3f}", "  ".join(f"{spelt(i)} {prob:.3f}" for i, prob in p.top))
        for p in completion.pieces
    ]
    width = max((len(row[2]) for row in rows), default=0)
    print(format_table([("token", "p", "likeliest".ljust(width)), *((a, b, c.ljust(width)) for a, b, c in rows)]))


def talk(checkpoint: Checkpoint, wanted: GenerationRequest, device: str) -> None:
    with suppress(ImportError):  # as on Windows: arrow keys, and the lines typed before
        importlib.import_module("readline")
    session = Session(
        checkpoint.model.to(device), checkpoint.tokenizer, wanted, input,
        lambda text: print(text, end="", flush=True), lambda completion: show(checkpoint, completion),
    )  # fmt: skip
    session.run()


if __name__ == "__main__":
    main()
