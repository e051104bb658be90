"""Print the tables of docs/inside_ten_actions.md: python docs/inside_ten_actions.py RUN

RUN is a run of `experiment=ten_actions`. Takes about two minutes on two cores.
"""

import random
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import lm
from lm.analysis.ablation import edits_of, mean_outputs
from lm.analysis.edits import Edit, edited
from lm.analysis.trace import Trace, record
from lm.data.corpus.generated import TenActionsConfig

CASES = 256  # for each action and letter of the result
ACTIONS = (1, 3, 6)  # copy the first three letters; the same, written as g to l; the last three of the line before
LETTERS = (0, 1, 2)  # of the result


class Case(NamedTuple):
    """A text that ends before a letter of the result, that letter, and the place in the text where it was read."""

    text: str
    answer: str
    source: int  # counted from the end of the text, so it is negative


def make_case(action: int, letter: int, first: str, before: str, line: str) -> Case:
    """Return a case of three lines, of which the first two have action 0, which has no result."""
    result = "".join(
        alphabet[i]
        for i, alphabet in TenActionsConfig.line(
            action, ["abcdef".index(c) for c in line], ["abcdef".index(c) for c in before]
        )
    )[len(line) + 1 :]
    text = f"{first}0;\n{before}0;\n{line}{action}{result[:letter]}"
    used, start = (before, len(first) + 3) if action > 4 else (line, len(first) + len(before) + 6)
    return Case(text, result[letter], start + letter + (0 if action % 2 else len(used) - 3) - len(text))


def letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("abcdef", k=count))


class Study:
    """A loaded model, and the measurements that are made with it."""

    def __init__(self, run: str) -> None:
        loaded = lm.load(run)
        self.model, self.encode = loaded.model, loaded.tokenizer.encode
        self.layers, self.heads = loaded.model.config.n_layer, loaded.model.config.n_head
        self.rng = random.Random(0)

    def ids(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(np.stack([self.encode(text) for text in texts]).astype(np.int64))

    def answer_ids(self, cases: Sequence[Case]) -> Tensor:
        return self.ids([case.answer for case in cases])[:, 0]

    @torch.no_grad()
    def logits(self, cases: Sequence[Case], edits: Sequence[Edit] = ()) -> Tensor:
        """Return the logits (B, V) of the next letter. All texts have the same length."""
        with edited(self.model, edits):
            return self.model(self.ids([case.text for case in cases]))[:, -1]

    @torch.no_grad()
    def trace(self, cases: Sequence[Case]) -> Trace:
        with record(self.model) as trace:
            self.model(self.ids([case.text for case in cases]))
        return trace

    def cases(self, action: int, letter: int) -> list[Case]:
        return [make_case(action, letter, *(letters(self.rng, 6) for _ in range(3))) for _ in range(CASES)]

    def parts(self) -> dict[str, Edit]:
        """Return the mean ablation of each head and each MLP; the means are those of generated text."""
        text = TenActionsConfig(lines=4000).generate()
        windows = self.ids([text[i * 81 : i * 81 + 81] for i in range(256)])
        return {
            f"L{layer}.{name}": edit
            for layer, means in enumerate(mean_outputs(self.model, windows))
            for kind in ("heads", "mlps")
            for name, edit in edits_of(kind, layer, means)
        }

    def ablation(self) -> None:
        """Print the correct answers, in percent, without each head and each MLP."""
        sets = [self.cases(action, letter) for action in ACTIONS for letter in LETTERS]
        row("without", [f"{action}, letter {letter + 1}" for action in ACTIONS for letter in LETTERS])
        for name, edit in {"nothing": None, **self.parts()}.items():
            edits = [edit] if edit else []
            right = [self.logits(cases, edits).argmax(1) == self.answer_ids(cases) for cases in sets]
            row(name, [f"{100 * float(x.double().mean()):.0f}" for x in right])

    def patching(self) -> None:
        """Print how much of the answer each part brings back, at the position that predicts the letter."""
        pairs = {
            "another letter, action 1, letter 1": (1, 1, 0),
            "another letter, action 1, letter 2": (1, 1, 1),
            "another letter, action 3, letter 1": (3, 3, 0),
            "another letter, action 6, letter 1": (6, 6, 0),
            "digit 3 for 1, letter 1": (1, 3, 0),
            "digit 2 for 1, letter 1": (1, 2, 0),
            "digit 5 for 1, letter 1": (1, 5, 0),
        }
        row("corrupted by", [f"L{i}.{p}" for i in range(self.layers) for p in ("heads", "mlp")] + ["best head"])
        for name, (clean_action, corrupted_action, letter) in pairs.items():
            row(name, self.patch(*self.pairs(clean_action, corrupted_action, letter)))

    def pairs(self, clean_action: int, corrupted_action: int, letter: int) -> tuple[list[Case], list[Case]]:
        """Return texts with different answers: they differ in the digit, or else in the letter that is read."""
        clean: list[Case] = []
        corrupted: list[Case] = []
        while len(clean) < CASES:
            lines = [letters(self.rng, 6) for _ in range(3)]
            a = make_case(clean_action, letter, *lines)
            if clean_action == corrupted_action:
                changed, place = (1 if clean_action > 4 else 2), letter + (0 if clean_action % 2 else 3)
                lines[changed] = replace(lines[changed], place, self.rng.choice("abcdef"))
            b = make_case(corrupted_action, letter, *lines)
            if a.answer != b.answer:
                clean.append(a)
                corrupted.append(b)
        return clean, corrupted

    def patch(self, clean: list[Case], corrupted: list[Case]) -> list[str]:
        """Put the output of each part at the last position of the clean texts into the corrupted ones.

        Returns the mean restored fraction of the logit difference, for attention and MLP of each layer and for the
        head that restores most.
        """
        rows, right, wrong = torch.arange(CASES), self.answer_ids(clean), self.answer_ids(corrupted)

        def difference(cases: list[Case], edits: Sequence[Edit] = ()) -> float:
            logits = self.logits(cases, edits)
            return float((logits[rows, right] - logits[rows, wrong]).double().mean())

        best, worst = difference(clean), difference(corrupted)
        trace = self.trace(clean)

        def restored(edit: Edit) -> float:
            return (difference(corrupted, [edit]) - worst) / (best - worst)

        fractions, by_head = [], {}
        for i, layer in enumerate(trace.layers):
            for site in ("attn_out", "mlp_out"):
                source = getattr(layer, site)
                fractions.append(restored(Edit(site, i, lambda x, source=source: put_last(x, source))))
            for h in range(self.heads):
                by_head[f"L{i}.H{h}"] = restored(Edit("z", i, lambda z, h=h, s=layer.z: put_last(z, s, h)))
        head = max(by_head, key=lambda name: by_head[name])
        return [f"{x:.2f}" for x in fractions] + [f"{head} {by_head[head]:.2f}"]

    def attention(self) -> None:
        """Print the two heads that look most at the letter to be copied, with their mean weights."""
        row("action", [f"letter {letter + 1}" for letter in LETTERS])
        for action in ACTIONS:
            found = []
            for letter in LETTERS:
                cases = self.cases(action, letter)
                source = cases[0].source  # the same in all cases, because all lines have six letters
                trace = self.trace(cases)
                weights = {
                    f"L{i}.H{h}": float(layer.pattern[:, h, -1, source].mean())
                    for i, layer in enumerate(trace.layers)
                    for h in range(self.heads)
                }
                most = sorted(weights, key=lambda name: -weights[name])[:2]
                found.append(", ".join(f"{name} {weights[name]:.2f}" for name in most))
            row(str(action), found)


def replace(text: str, place: int, letter: str) -> str:
    return text[:place] + letter + text[place + 1 :]


def put_last(x: Tensor, source: Tensor, head: int | None = None) -> Tensor:
    """Replace the last position of x, (B, T, C), or of one head, (B, T, H, D), by that of the source."""
    if head is None:
        x[:, -1] = source[:, -1]
    else:
        x[:, -1, head] = source[:, -1, head]
    return x


def row(name: str, cells: Sequence[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    study = Study(sys.argv[1])
    for part in (study.ablation, study.patching, study.attention):
        print(f"\n{part.__doc__}\n")
        part()
