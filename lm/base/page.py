"""HTML pages of one file that work offline: the data as JSON, a script to draw it, and styles that all pages share."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<svg id="ink" width="0" height="0" aria-hidden="true"></svg>
<div id="page"><h1>{title}</h1>
<noscript>The figures need JavaScript, which is turned off here.</noscript></div>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body>
</html>
"""

SCRIPTS = ("elements", "numbers", "chart")  # of lm/base/js, in the order in which they need each other


def html_page(title: str, data: Any, css: str, js: str) -> str:
    """Return a page whose script finds `data` in the element `data` and draws into the element `page`.

    The script can use the functions of lm/base/js. nan and infinite numbers become null.
    """
    encoded = json.dumps(nan_to_none(data), separators=(",", ":"), allow_nan=False)
    for mark in "<>&":  # so that no text can close the script element that contains it
        encoded = encoded.replace(mark, f"\\u{ord(mark):04x}")
    here = Path(__file__).parent
    styles = "".join((here / name).read_text(encoding="utf-8") for name in ("page.css", "js/chart.css"))
    scripts = "\n".join((here / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return SHELL.format(title=escape(title), css=styles + css, js=f"{scripts}\n{js}", data=encoded)


def nan_to_none(value: Any) -> Any:
    """Replace nan and infinite numbers, which JSON lacks, with None."""
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
