"""Render sections as one self-contained HTML file, and charts as SVG or PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lm.analysis.vocabulary.analysis import format_token
from lm.analysis.vocabulary.sections import Cell, Chart, Pieces, Section, Splits, Table, format_running_token
from lm.base.plotting import pyplot

COLORS, INK = ("#2563c9", "#d97706", "#7a7a7a"), "#808080"  # visible on white and on black

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d636b; --paper: #fff; --line: #d8dce1;
  --chip: #e9ecf0; --bar: #c5dbf7; --t0: #cfe3fb; --t1: #fde3b8; --t2: #d3efcf; --t3: #f6d3e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3a9b1; --paper: #15171a; --line: #3a3f46;
  --chip: #2a2f36; --bar: #22456f; --t0: #1d4373; --t1: #6b4712; --t2: #24562a; --t3: #6b2b49; } }
body { margin: 2.5rem auto; max-width: 76rem; padding: 0 1.5rem; background: var(--paper); color: var(--ink);
  font: 18px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: nowrap; }
th, td { padding: .28rem 1.1rem .28rem 0; text-align: left; border-bottom: 1px solid var(--line); }
td { vertical-align: top; } td:first-child { white-space: nowrap; }
.r { text-align: right; white-space: nowrap; }
.bar { background: linear-gradient(var(--bar), var(--bar)) left center / var(--part) 76% no-repeat content-box;
  min-width: 7rem; }
.note { color: var(--soft); font-size: .9rem; margin: .5rem 0 0; }
code { font: .92em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.tokens code { display: inline-block; max-width: 100%; overflow-wrap: anywhere; margin: .05em .15em; padding: 0 .3em;
  border-radius: 4px; background: var(--chip); }
.label { color: var(--soft); margin: 1.1rem 0 .2rem; }
.text { font: 1.15rem/2 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 0; }
.text span { padding: .22em 0; border-radius: 3px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.t0 { background: var(--t0); } .t1 { background: var(--t1); } .t2 { background: var(--t2); }
.t3 { background: var(--t3); }
svg { width: 100%; max-width: 900px; height: auto; }
"""


def html_page(title: str, sections: Iterable[Section]) -> str:
    """Return a complete HTML page."""
    body = "\n".join(f"<section>\n<h2>{escape(s.title)}</h2>\n{html_section(s)}\n</section>" for s in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def html_section(section: Section) -> str:
    """Return the HTML element of a section."""
    if isinstance(section, Chart):
        return render_svg(section)
    return html_table(section) if isinstance(section, Table) else html_splits(section)


def html_table(table: Table) -> str:
    """Return a table in HTML."""
    maxima = {i: max(parse_percent(row[i]) for row in table.rows) or 1.0 for i in table.bars}

    def row(tag: str, cells: Sequence[Cell]) -> str:
        lengths = [parse_percent(c) / maxima[i] if tag == "td" and i in maxima else None for i, c in enumerate(cells)]
        return f"<tr>{''.join(map(html_cell, [tag] * len(cells), table.align, cells, lengths))}</tr>"

    head = f"<thead>{row('th', table.columns)}</thead>\n" if any(table.columns) else ""
    body = "\n".join(row("td", cells) for cells in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>{note}'


def parse_percent(cell: Cell) -> float:
    """Return the number of a cell such as "3.1%", or 0 for other cells."""
    return float(cell[:-1]) if isinstance(cell, str) and cell.endswith("%") else 0.0


def html_cell(tag: str, side: str, content: Cell, bar: float | None = None) -> str:
    """Return a cell in HTML. `bar`, from 0 to 1, is the length of a bar in the background of the number."""
    if isinstance(content, str):
        style = "" if bar is None else f' style="--part: {bar:.1%}"'
        name = side if bar is None else f"{side} bar"
        return f'<{tag} class="{name}"{style}>{escape(content).replace(chr(10), "<br>")}</{tag}>'
    return f'<{tag} class="tokens">{" ".join(f"<code>{escape(token)}</code>" for token in content)}</{tag}>'


def html_splits(splits: Splits) -> str:
    """Return texts split into tokens in HTML."""
    out = []
    for label, pieces in splits.rows:
        out.append(f'<p class="label">{escape(label)}</p>' if label else "")
        out.append(f'<p class="note">{escape(pieces)}</p>' if isinstance(pieces, str) else html_tokens(pieces))
    return "\n".join(out)


def html_tokens(pieces: Pieces) -> str:
    """Return a text whose successive tokens have different colors and show their ids in tooltips."""
    spans = []
    for n, (i, spelling) in enumerate(pieces):
        title = f"{i}: {escape(format_token(spelling))}"
        spans.append(f'<span class="t{n % 4}" title="{title}">{escape(format_running_token(spelling))}</span>')
    return f'<p class="text">{"".join(spans)}</p>'


def render_svg(chart: Chart) -> str:
    """Return an SVG element for a page. Repeated calls return the same text."""
    with pyplot().rc_context({"svg.fonttype": "none", "svg.hashsalt": "lm"}):
        data = draw_chart(chart, format="svg", transparent=True, metadata={"Date": None})
    return data[data.index(b"<svg") :].decode()  # without the XML declaration, which does not belong in a page


def render_png(chart: Chart) -> bytes:
    """Return a chart as a PNG image."""
    return draw_chart(chart, format="png", dpi=130)


def draw_chart(chart: Chart, **options: Any) -> bytes:
    """Draw a chart. `options` are those of matplotlib's savefig. Raises UserError if matplotlib is not installed."""
    plt = pyplot()
    from matplotlib.ticker import FuncFormatter

    ink = INK if options.get("transparent") else "black"
    figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    names = chart.names
    for line in chart.lines:
        (curve,) = axes.plot(*zip(*line.points, strict=True), color=COLORS[names.index(line.name)], label=line.name)
        curve.set(marker="o" if line.marked else "", linestyle="--" if line.dashed else "-")
        for text, point in zip(line.labels, line.points, strict=False):
            axes.annotate(text, point, (0, 8), textcoords="offset points", ha="center", color=ink, parse_math=False)
    axes.set(xlabel=chart.x, ylabel=chart.y, xscale="log", yscale="log" if chart.log_y else "linear")
    if not options.get("transparent"):  # a page shows the title as a heading
        axes.set_title(chart.title)
    if chart.ticks:
        axes.set_xticks(chart.ticks, minor=False)
        axes.set_xticks([], minor=True)
    for axis in (axes.xaxis, axes.yaxis) if chart.log_y else (axes.xaxis,):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if not chart.log_y:
        axes.set_ylim(bottom=0, top=1.1 * max(y for line in chart.lines for _, y in line.points))
    axes.grid(alpha=0.3)
    axes.tick_params(which="both", colors=ink)
    for part in (axes.xaxis.label, axes.yaxis.label):
        part.set_color(ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    curves = {str(curve.get_label()): curve for curve in axes.lines}  # one for each name
    axes.legend(list(curves.values()), list(curves), labelcolor=ink, framealpha=0)
    file = io.BytesIO()
    figure.savefig(file, **options)
    plt.close(figure)
    return file.getvalue()
