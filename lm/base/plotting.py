"""Drawing with matplotlib, which not every installation has."""

from __future__ import annotations

from typing import Any

from lm.base import commands
from lm.base.errors import UserError


def pyplot() -> Any:
    """matplotlib.pyplot, which draws into files. Raises UserError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(f"a picture needs matplotlib: {commands.install('.[report]')}") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt
