"""Draw figures with matplotlib, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.base import commands
from lm.base.errors import UserError


def pyplot() -> Any:
    """Return matplotlib.pyplot, set up to draw into files. Raises UserError if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(f"drawing needs matplotlib; install it with {commands.install('.[report]')}") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format that the ending of `path` names. Raises UserError for an unknown format."""
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:  # matplotlib's message lists the formats
        raise UserError(f"{path} cannot be written: {error}") from error
