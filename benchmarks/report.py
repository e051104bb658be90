"""Table of scripts/bench.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm.base.console import format_table


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of a benchmark; the keys of the first row are the headings."""
    cells = [[format_cell(key, value) for key, value in row.items()] for row in rows]
    return format_table([list(rows[0]), *cells])


def format_cell(key: str, value: Any) -> str:
    """Format the value of a column with the unit that its heading implies: a share, a relative error or seconds."""
    if value is None:
        return "-"
    if key in ("loses", "of matmul", "mfu"):
        return f"{value:.0%}"
    if key == "costs" or key.endswith("error"):
        return f"{value:+.1%}"
    if isinstance(value, float):
        return f"{value:.3f}" if key.endswith(" s") else f"{value:.2f}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
