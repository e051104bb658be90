"""Import matplotlib, an optional dependency, for drawing."""

from __future__ import annotations

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
