"""Drawing with matplotlib, which not every installation has."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:
    """matplotlib.pyplot, which draws into files. Raises ValueError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("a picture needs matplotlib: pip install -e '.[report]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt
