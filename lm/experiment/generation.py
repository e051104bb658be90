"""The work of scripts/generate.py: its arguments, one generation, and a session at the terminal."""

from __future__ import annotations

import importlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from dataclasses import asdict

from lm.base.errors import UserError
from lm.base.files import expand_path
from lm.base.hardware import ACCELERATORS
from lm.data import user_text
from lm.generate import GenerationRequest, Sampling, complete, find_special_tokens
from lm.generate.display import format_texts, print_probabilities, save_completions
from lm.generate.prompts import read_prompts
from lm.generate.session import Session, parse_stops
from lm.run.checkpoint import Checkpoint, load


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("source", nargs="*", metavar="RUN", help="a run directory (its best checkpoint, or the last one while it is "
        "training), a .ckpt file, or an exported model")  # fmt: skip
    add("--prompt", action="append", metavar="TEXT", help="text to continue (default: a new line); can be repeated; - "
        "reads standard input")  # fmt: skip
    add("--prompt-file", action="append", default=[], metavar="FILE", help="use the text of a file as a prompt")
    add("--lines", action="store_true", help="use each line of files and of standard input as a prompt of its own")
    add("--parse-special", action="store_true", help="encode the name of a special token in a prompt as that token")
    add("--prompt-from-document-start", action="store_true", help="put the end-of-text token before each prompt, as at "
        "the start of a document; without a prompt, start from that token alone")  # fmt: skip
    add("--max-new-tokens", type=int, default=200, help="tokens to generate for each prompt (default: 200)")
    add("--temperature", type=float, default=0.8, help="0: always choose the most probable token (default: 0.8)")
    add("--top-k", type=int, help="choose among the k most probable tokens")
    add("--top-p", type=float, help="choose among the fewest tokens that hold this probability")
    add("--min-p", type=float, help="choose among tokens with at least this share of the highest probability")
    add("--repetition-penalty", type=float, default=1.0, help="above 1: repeat less (default: 1)")
    add("--stop", action="append", default=[], metavar="TEXT", help="end the text before this string; can be repeated; "
        "\\n stands for a new line")  # fmt: skip
    add("--ignore-end", action="store_true", help="continue after the end-of-text token")
    add("--num-samples", type=int, default=1, help="samples for each prompt (default: 1)")
    add("--seed", type=int, default=1337, help="the same seed gives the same text (default: 1337)")
    add("--show-probs", type=int, nargs="?", const=5, default=0, metavar="N", help="color the tokens by the "
        "probability that the model gave them, and list the N most probable tokens at each position (5 if N is "
        "omitted)")  # fmt: skip
    add("--interactive", action="store_true", help="start a session: type prompts and commands such as /help")
    add("--random", action="store_true", help="use a model with random weights; name it as for train.py: model=tiny")
    add("--out", type=expand_path, metavar="FILE", help="write the texts to a file; as JSON lines if it ends in .jsonl")
    add("--no-cache", action="store_true", help="recompute all tokens for each new one: slower, same result")
    add("--device", default="auto", choices=ACCELERATORS)
    add("--json", action="store_true", help="print one JSON object instead of the text")


def build_request(args: Namespace) -> GenerationRequest:
    """Return the request that the arguments describe. Raises UserError for a value out of range."""
    return GenerationRequest(
        max_new_tokens=args.max_new_tokens,
        sampling=Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty),
        num_samples=args.num_samples,
        seed=args.seed,
        stop=parse_stops([user_text.argument("--stop", typed) for typed in args.stop]),
        end_of_text=not args.ignore_end,
        alternatives=args.show_probs,
        cached=not args.no_cache,
        parse_special=args.parse_special,
        document_start=args.prompt_from_document_start,
    )


def load_source(args: Namespace) -> Checkpoint:
    """Load the run that the arguments name, or build an untrained model."""
    if args.random:
        from lm.experiment.untrained import build_untrained  # imports Hydra, which a checkpoint does not need

        return build_untrained(args.source)
    if len(args.source) != 1:
        given = f", not {len(args.source)}: {' '.join(args.source)}" if args.source else ", or use --random model=NAME"
        raise UserError(f"name one run{given}")
    return load(args.source[0])


def generate(args: Namespace, request: GenerationRequest, device: str) -> None:
    """Print the texts of a request: a single one while it is generated, several when all are complete."""
    prompts = read_prompts(args.prompt, args.prompt_file, args.lines, request.document_start)
    checkpoint = load_source(args)
    model, tokenizer = checkpoint.model.to(device), checkpoint.tokenizer
    if not request.parse_special and (names := find_special_tokens(tokenizer, prompts)):
        problem = f"the prompt contains {', '.join(names)}, encoded as ordinary text"
        print(f"hint: {problem}; use --parse-special to encode special tokens", file=sys.stderr)
    streamed = len(prompts) * request.num_samples == 1 and not args.json
    unprinted = [prompts[0]] if streamed else []  # the prompt is printed together with the first new text

    def print_text(row: int, text: str) -> None:
        if streamed:
            print(unprinted.pop() + text if unprinted else text, end="", flush=True)

    started = time.perf_counter()
    completions = complete(model, tokenizer, prompts, request, print_text)
    seconds = time.perf_counter() - started
    tokens = sum(len(c.ids) for c in completions)
    if args.json:
        print(json.dumps({
            "run": " ".join(args.source), "step": checkpoint.step, "samples": [c.prompt + c.text for c in completions],
            "completions": [asdict(c) for c in completions], "seconds": seconds, "tokens_per_s": tokens / seconds,
        }))  # fmt: skip
    elif streamed:
        print(*unprinted)
    else:
        print(format_texts(completions))
    if request.alternatives and not args.json:
        for completion in completions:
            print_probabilities(model, tokenizer, completion)
    if args.out:
        save_completions(completions, args.out)
    print(f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} tokens/s", file=sys.stderr)


def start_session(args: Namespace, request: GenerationRequest, device: str) -> None:
    """Read prompts and commands from the terminal until the user ends the session."""
    with suppress(ImportError):  # not on Windows; enables arrow keys and the history of typed lines
        importlib.import_module("readline")
    checkpoint = load_source(args)
    model, tokenizer = checkpoint.model.to(device), checkpoint.tokenizer
    Session(
        model, tokenizer, request, input, lambda text: print(text, end="", flush=True),
        lambda completion: print_probabilities(model, tokenizer, completion),
    ).run()  # fmt: skip
