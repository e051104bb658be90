"""Linear probes: which layers hold a property of the text, so that a linear classifier can read it.

Accuracy alone says little, because a probe can memorize: it stands beside that of always answering with the most
frequent label, and beside a control task, in which every token has a random label of its own (Hewitt and Liang 2019).
Shapes: N examples, C width, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.errors import UserError

PENALTIES = (1e-4, 1e-2, 1.0)  # tried on the second part of the documents
STEPS = 100  # most steps of L-BFGS
LEAST = 5  # documents, so that each of three parts has one


@dataclass(frozen=True)
class ProbeResult:
    """The accuracy of a probe on documents that it was not trained on, and what it must be compared with."""

    layer: str
    accuracy: float
    majority: float  # accuracy of the most frequent label of the training documents
    control: float  # accuracy on the control task
    error: float  # standard error of the accuracy, over examples
    examples: int  # number of test examples

    @property
    def selectivity(self) -> float:
        """Accuracy minus that of the control task."""
        return self.accuracy - self.control


def split_documents(documents: Tensor, seed: int = 0) -> list[Tensor]:
    """Return masks (N,) of 60 %, 20 % and 20 % of the documents, to train, to choose and to test.

    `documents` (N,) is the number of the document of each example. Raises UserError for too few documents.
    """
    numbers = documents.unique()
    if len(numbers) < LEAST:
        raise UserError(f"the labels are in {len(numbers)} texts; a probe needs at least {LEAST} to train and to test")
    order = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))]
    cut = max(1, round(0.2 * len(order)))
    return [torch.isin(documents, part) for part in (order[2 * cut :], order[cut : 2 * cut], order[:cut])]


def probe(name: str, features: Tensor, labels: Tensor, tokens: Tensor, documents: Tensor, seed: int = 0) -> ProbeResult:
    """Train a probe on the `features` (N, C) of a layer to predict the `labels` (N,), and test it on other documents.

    `tokens` (N,) are the token ids of the examples, which the control task labels at random. Raises UserError for too
    few documents.
    """
    parts = split_documents(documents, seed)
    classes = int(labels.max()) + 1
    accuracy = fit_and_test(features, labels, classes, parts)
    shuffled = control_labels(labels, tokens, seed)
    control = fit_and_test(features, shuffled, classes, parts)
    train, _, test = parts
    majority = labels[train].mode().values
    n = int(test.sum())
    return ProbeResult(
        name, accuracy, float((labels[test] == majority).double().mean()), control,
        math.sqrt(accuracy * (1 - accuracy) / n), n,
    )  # fmt: skip


def control_labels(labels: Tensor, tokens: Tensor, seed: int) -> Tensor:
    """Give every token id one label, drawn with the frequencies of the real labels."""
    generator = torch.Generator().manual_seed(seed)
    kinds, places = tokens.unique(return_inverse=True)
    drawn = labels[torch.randint(len(labels), (len(kinds),), generator=generator)]
    return drawn[places]


def fit_and_test(features: Tensor, labels: Tensor, classes: int, parts: Sequence[Tensor]) -> float:
    """Train with each penalty, choose the best on the second part, and return the accuracy on the third."""
    train, choose, test = parts
    x = features.double()
    x = (x - x[train].mean(0)) / x[train].std(0).clamp(min=1e-9)
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)  # (N, C + 1), with a bias
    best = max(
        (fit(x[train], labels[train], classes, penalty) for penalty in PENALTIES),
        key=lambda weights: float(((x[choose] @ weights).argmax(1) == labels[choose]).double().mean()),
    )
    return float(((x[test] @ best).argmax(1) == labels[test]).double().mean())


def fit(x: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Return the weights (C + 1, K) of a logistic regression with a quadratic penalty."""
    weights = torch.zeros(x.size(1), classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weights, labels) + penalty * weights[:-1].square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()
