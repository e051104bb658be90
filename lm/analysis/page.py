"""One HTML file that shows a report and works offline."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lm.analysis.figures import Report
from lm.base.page import html_page


def render_report(report: Report) -> str:
    """Return the page of a report: its figures, its table and its notes."""
    css, js = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    figures = [{"kind": type(figure).__name__, **asdict(figure)} for figure in report.figures]
    data = {"title": report.title, "table": report.table, "notes": report.notes, "figures": figures}
    return html_page(report.title, data, css, js)
