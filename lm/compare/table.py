"""Tables of runs: the config keys in which they differ, their results, and the best run."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm.base import console
from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.compare.reading import Run

Row = dict[str, Any]

# Keys about storage, logging and validation, which do not change what a model learns.
IGNORED_KEYS = (
    "name", "logger.", "callbacks.sample.", "callbacks.checkpoint.", "callbacks.health.", "trainer.log_every",
    "trainer.val_every", "trainer.save_every", "trainer.check_memory", "trainer.peak_tflops", "data.root",
    "data.offline", "data.mirror", "data.num_workers", "corpus.licence",
)  # fmt: skip
LOSS, BPB = "best val/loss", "val/bpb"
MEANS = ("parameters", "tokens", LOSS, "final val/loss", BPB, "seconds", "tokens/s")
SPREAD = (LOSS, "final val/loss", BPB)  # columns with a standard deviation over runs that only differ in seed
MANY = 6  # if more keys than this differ, they come after the results
MAX_WIDTH = 40  # characters of a name or value in a terminal


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the config keys in which runs differ.

    A key that a run lacks because its section has another kind, such as momentum with AdamW, is not a difference. The
    kind is.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config if not key.startswith(IGNORED_KEYS))

    def differs(key: str) -> bool:
        kind = f"{key.partition('.')[0]}.kind"
        kinds = {run.config.get(kind) for run in runs if key in run.config}
        return len({json.dumps(run.config.get(key)) for run in runs if run.config.get(kind) in kinds}) > 1

    follows = all(run.config.get("trainer.accelerator") == run.config.get("device") for run in runs)
    return [key for key in keys if differs(key) and not (follows and key == "trainer.accelerator")]


def short_keys(keys: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Return the shortest unique end of each key, such as lr for optimizer.lr. A `kind` keeps its section."""

    def tail(key: str) -> str:
        parts = key.split(".")
        for n in range(1, len(parts)):
            short = ".".join(parts[-n:])
            if short != "kind" and short not in taken and [k for k in keys if f".{k}".endswith(f".{short}")] == [key]:
                return short
        return key

    return {key: tail(key) for key in keys}


def rows_of_runs(runs: Sequence[Run]) -> list[Row]:
    """Return a row for each run. `val/bpb` is that of the best val/loss. Unknown figures are None."""
    keys = differing_keys(runs)
    return [make_row(run.name, {key: run.config.get(key) for key in keys}, run_figures(run)) for run in runs]


def make_row(name: str, keys: Row, figures: Row) -> Row:
    """Return a row with the keys before the figures, or after them if there are many keys."""
    return {"run": name} | (keys | figures if len(keys) <= MANY else figures | keys)


def run_figures(run: Run) -> Row:
    """Return the results of a run by column."""
    validations = [row for row in run.rows if "val/loss" in row]
    best = min((row for row in validations if math.isfinite(row["val/loss"])), key=lambda r: r["val/loss"], default={})
    speeds = [row["perf/tokens_per_s"] for row in run.rows if "perf/tokens_per_s" in row]
    return {
        "parameters": run.record.get("parameters"),
        "tokens": int(run.rows[-1]["step"]) * run.tokens_per_step if run.rows else None,
        LOSS: best.get("val/loss"),
        "best step": int(best["step"]) if best else None,
        "final val/loss": validations[-1]["val/loss"] if validations else None,
        BPB: best.get("val/bpb"),
        "seconds": run.clock[1][-1] if len(run.clock[0]) > 1 else None,
        "tokens/s": statistics.median(speeds) if speeds else None,
        "status": run.status,
    }


def group_by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Return groups of runs whose configs only differ in `seed`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {key: value for key, value in run.config.items() if key != "seed" and not key.startswith(IGNORED_KEYS)}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    return list(groups.values())


def merge_seeds(runs: Sequence[Run]) -> list[Row]:
    """Return a row for each group of runs that only differ in seed: means over its `n` finished runs.

    The standard deviation is that of a sample (n - 1), and None for a single run. Unfinished runs only count in
    `status`.
    """
    keys = [key for key in differing_keys(runs) if key != "seed"]
    rows = []
    for group in group_by_seed(runs):
        done = [run_figures(run) for run in group if run.status == "finished"]
        found: Row = {"n": len(done)}
        for name in MEANS:
            values = [figure[name] for figure in done if figure[name] is not None]
            found[name] = statistics.fmean(values) if values else None
            if name in SPREAD:
                found[f"{name} sd"] = statistics.stdev(values) if len(values) > 1 else None
        counts = Counter(run.status for run in group)
        found["status"] = ", ".join(f"{n} {status}" for status, n in counts.items())
        names = ", ".join(run.name for run in group)
        rows.append(make_row(names, {key: group[0].config.get(key) for key in keys}, found))
    return rows


def ranking_column(runs: Sequence[Run]) -> str:
    """Return the column that ranks runs. Losses per token cannot be compared between tokenizers, bits per byte can."""
    sections = [{k: v for k, v in run.config.items() if k.startswith("tokenizer.")} for run in runs]
    known = {run.record.get("tokenizer") or json.dumps(s) for run, s in zip(runs, sections, strict=True)}
    return BPB if len(known) > 1 else LOSS


def best_row(rows: Sequence[Row], column: str) -> Row | None:
    """Return the row with the lowest finite value of a column, or None if there is none."""
    known = [row for row in rows if is_finite(row[column])]
    return min(known, key=lambda row: row[column]) if known else None


def caveats(runs: Sequence[Run]) -> list[str]:
    """Return the reasons why the losses of these runs may not be comparable."""
    notes = []
    if ranking_column(runs) == BPB:
        notes.append("tokenizers differ, so losses per token cannot be compared: use val/bpb")
    if len({run.record.get("text") for run in runs}) > 1:
        notes.append("the runs were trained and validated on different texts")
    elif len({run.config.get("trainer.val_batches") for run in runs}) > 1:
        notes.append("trainer.val_batches differs: the runs were validated on different parts of the text")
    return notes


def filter_runs(runs: Sequence[Run], wheres: Sequence[str]) -> list[Run]:
    """Return the runs that satisfy every `key=value`, of a config key or status. Raises UserError if there are none."""
    for where in wheres:
        key, equals, value = where.partition("=")
        known = list(dict.fromkeys(["status", *(key for run in runs for key in run.config)]))
        if not equals:
            raise UserError(f"--where {where} must be key=value, e.g. optimizer.lr=0.001 or status=finished")
        name = find_column(key, known, "--where")
        values = [run.status if name == "status" else run.config.get(name) for run in runs]
        left = [run for run, found in zip(runs, values, strict=True) if matches(found, value)]
        if not left:
            existing = ", ".join(sorted({format_value(found) for found in values}))
            raise UserError(f"--where {where} matches no run; {name} is {shorten(existing, 200)}")
        runs = left
    return list(runs)


def matches(found: Any, typed: str) -> bool:
    """Return True if a value equals the text of the command line; 1e-3 equals 0.001."""
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return float(typed) == found
        except ValueError:
            return False
    return typed == format_value(found)


def sort_rows(rows: Sequence[Row], sort: str) -> list[Row]:
    """Sort by a column, descending with a leading `-`, unknown values last. Raises UserError for an unknown column."""
    name = find_column(sort.removeprefix("-"), list(rows[0]), "--sort")

    def unknown(row: Row) -> bool:
        return row[name] is None or row[name] != row[name]

    def rank(row: Row) -> tuple[bool, Any]:
        value = row[name]
        return (False, value) if isinstance(value, int | float) else (True, str(value))

    known = sorted((row for row in rows if not unknown(row)), key=rank, reverse=sort.startswith("-"))
    return known + [row for row in rows if unknown(row)]


def find_column(typed: str, known: Sequence[str], flag: str) -> str:
    """Return the column with this name, or the only one whose name ends in it. Raises UserError."""
    found = [name for name in known if name == typed] or [name for name in known if name.endswith(f".{typed}")]
    if len(found) > 1:
        raise UserError(f"{flag} {typed} could be {' or '.join(found)}")
    if not found:
        raise UserError(f"{flag} {typed}: there is no such column{did_you_mean(typed, known)}")
    return found[0]


def is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def format_rows(rows: Sequence[Row], mark: Row | None, width: int) -> str:
    """Format a table for a terminal of this width, with short keys if it is too wide; `*` marks the best row."""
    columns = [name for name in rows[0] if not name.endswith(" sd")]
    short = short_keys([name for name in columns if "." in name], columns)
    cells = [
        [("* " if row is mark else "  ") + format_cell("run", row), *(format_cell(c, row) for c in columns[1:])]
        for row in rows
    ]
    wide = console.format_table([["  run", *columns[1:]], *cells])
    if len(wide.split("\n", 1)[0]) <= width:
        return wide
    return console.format_table([["  run", *(short.get(name, name) for name in columns[1:])], *cells])


def format_cell(name: str, row: Row) -> str:
    """Format a cell; a mean is followed by its deviation if it has one."""
    value = row[name]
    if value is None:
        return "-"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return shorten(format_value(value), MAX_WIDTH)
    if name in ("parameters", "tokens", "tokens/s") and math.isfinite(value):
        return f"{value:,.0f}"
    if name in SPREAD:
        sd = row.get(f"{name} sd")
        return f"{value:.4f}" + ("" if sd is None else f" ± {sd:.4f}")
    return f"{value:,.1f}" if name == "seconds" else format_value(value)


def format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
