"""Figures as data. The page (page.js) and the picture (picture.py) draw the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Heatmap:
    """A matrix of numbers as colors, from white at `low` to full color at `high`; signed: zero is white."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Matrix
    unit: str  # what a number is
    signed: bool = False
    texts: Sequence[Sequence[str]] | None = None  # written into the cells


@dataclass(frozen=True)
class Heads:
    """The attention patterns of several heads as small pictures; a click shows one in full."""

    title: str
    tokens: Sequence[str]
    patterns: Mapping[str, Matrix]  # by name of the head: T x T, query by key


@dataclass(frozen=True)
class Bars:
    """Named numbers as horizontal bars."""

    title: str
    names: Sequence[str]
    values: Sequence[float]
    unit: str


@dataclass(frozen=True)
class Lines:
    """Curves over a common horizontal axis."""

    title: str
    x: Sequence[float]
    x_unit: str
    curves: Mapping[str, Sequence[float]]
    unit: str


Figure = Heatmap | Heads | Bars | Lines


@dataclass(frozen=True)
class Report:
    """The result of an analysis in all its forms."""

    title: str
    data: dict[str, Any]  # for --json
    table: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the numbers do not say
