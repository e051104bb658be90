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
{before}
<div id="page"><h1>{title}</h1>
<noscript>The figures need JavaScript, which is turned off here.</noscript></div>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body>
</html>
"""


def html_page(title: str, data: Any, css: str, js: str, before: str = "") -> str:
    """Return a page whose script finds `data` in the element `data` and draws into the element `page`.

    nan and infinite numbers become null. `before` is HTML that comes before the page.
    """
    encoded = json.dumps(nan_to_none(data), separators=(",", ":"), allow_nan=False)
    for mark in "<>&":  # so that no text can close the script element that contains it
        encoded = encoded.replace(mark, f"\\u{ord(mark):04x}")
    shared = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return SHELL.format(title=escape(title), css=shared + css, js=js, data=encoded, before=before)


def nan_to_none(value: Any) -> Any:
    """Replace nan and infinite numbers, which JSON lacks, with None."""
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
