"""Command lines that are printed for the user to paste."""

from __future__ import annotations

import shlex


def shell(*words: object) -> str:
    """Return the command line of `words`, each quoted where a shell needs it."""
    return shlex.join(map(str, words))
