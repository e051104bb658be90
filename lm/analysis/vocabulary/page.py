"""Sections as one HTML file that needs nothing else, and charts as SVG or PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lm.analysis.vocabulary.analysis import shown
from lm.analysis.vocabulary.sections import Cell, Chart, Pieces, Section, Splits, Table, running
from lm.base.plotting import pyplot

COLOURS, INK = ("#2563c9", "#d97706", "#7a7a7a"), "#808080"  # seen on white and on black

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


def page(title: str, sections: Iterable[Section]) -> str:
    body = "\n".join(f"<section>\n<h2>{escape(s.title)}</h2>\n{section(s)}\n</section>" for s in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def section(section: Section) -> str:
    if isinstance(section, Chart):
        return svg(section)
    return table(section) if isinstance(section, Table) else splits(section)


def table(table: Table) -> str:
    most = {i: max(percent(row[i]) for row in table.rows) or 1.0 for i in table.bars}

    def row(tag: str, cells: Sequence[Cell]) -> str:
        lengths = [percent(c) / most[i] if tag == "td" and i in most else None for i, c in enumerate(cells)]
        return f"<tr>{''.join(map(cell, [tag] * len(cells), table.align, cells, lengths))}</tr>"

    head = f"<thead>{row('th', table.columns)}</thead>\n" if any(table.columns) else ""
    body = "\n".join(row("td", cells) for cells in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>{note}'


def percent(cell: Cell) -> float:
    return float(cell[:-1]) if isinstance(cell, str) and cell.endswith("%") else 0.0


def cell(tag: str, side: str, content: Cell, bar: float | None = None) -> str:
    """`bar` 0 to 1 is the length of a bar behind the number."""
    if isinstance(content, str):
        style = "" if bar is None else f' style="--part: {bar:.1%}"'
        name = side if bar is None else f"{side} bar"
        return f'<{tag} class="{name}"{style}>{escape(content).replace(chr(10), "<br>")}</{tag}>'
    return f'<{tag} class="tokens">{" ".join(f"<code>{escape(token)}</code>" for token in content)}</{tag}>'


def splits(splits: Splits) -> str:
    out = []
    for label, found in splits.rows:
        out.append(f'<p class="label">{escape(label)}</p>' if label else "")
        out.append(f'<p class="note">{escape(found)}</p>' if isinstance(found, str) else coloured(found))
    return "\n".join(out)


def coloured(found: Pieces) -> str:
    """A text whose tokens have a colour each, with the id where the pointer rests."""
    spans = []
    for n, (i, spelling) in enumerate(found):
        title = f"{i}: {escape(shown(spelling))}"
        spans.append(f'<span class="t{n % 4}" title="{title}">{escape(running(spelling))}</span>')
    return f'<p class="text">{"".join(spans)}</p>'


def svg(chart: Chart) -> str:
    """An element to stand in a page, without numbers or names that change from one call to the next."""
    with pyplot().rc_context({"svg.fonttype": "none", "svg.hashsalt": "lm"}):
        data = drawn(chart, format="svg", transparent=True, metadata={"Date": None})
    return data[data.index(b"<svg") :].decode()  # behind the XML declaration, which a page has no use for


def png(chart: Chart) -> bytes:
    return drawn(chart, format="png", dpi=130)


def drawn(chart: Chart, **how: Any) -> bytes:
    """Raises UserError when there is no matplotlib to draw with."""
    plt = pyplot()
    from matplotlib.ticker import FuncFormatter

    ink = INK if how.get("transparent") else "black"
    figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    names = chart.names
    for line in chart.lines:
        (curve,) = axes.plot(*zip(*line.points, strict=True), color=COLOURS[names.index(line.name)], label=line.name)
        curve.set(marker="o" if line.marked else "", linestyle="--" if line.dashed else "-")
        for text, point in zip(line.labels, line.points, strict=False):
            axes.annotate(text, point, (0, 8), textcoords="offset points", ha="center", color=ink, parse_math=False)
    axes.set(xlabel=chart.x, ylabel=chart.y, xscale="log", yscale="log" if chart.log_y else "linear")
    if not how.get("transparent"):  # a page has the title above
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
    figure.savefig(file, **how)
    plt.close(figure)
    return file.getvalue()
