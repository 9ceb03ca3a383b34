"""A comparison of new records with stored ones, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from dgm_bench.compare import ComparedRow, Comparison, Side, State
from dgm_bench.report import grid
from dgm_bench.report.grid import Entry, Heading, Line, Notes, Page, Section
from dgm_bench.report.tables import with_error

#: Mark and terminal colour of each state, those first that want attention.
_MARKS: Mapping[State, tuple[str, str]] = {
    "worse": ("▼", "red"),
    "not-comparable": ("≠", "yellow"),
    "better": ("▲", "cyan"),
    "changed": ("~", "yellow"),
    "noise": ("?", "yellow"),
    "same": ("✓", "green"),
    "only-new": ("+", "dim"),
    "only-baseline": ("-", "dim"),
}


def render_comparison(
    comparison: Comparison,
    format: Literal["text", "markdown", "csv", "json"] = "text",
    *,
    width: int = 160,
    colour: bool = False,
) -> str:
    """Return a comparison for people (``text``, ``markdown``) or machines (``csv``, ``json``)."""
    if format == "json":
        rows = [asdict(row) for row in comparison.rows]
        body = {"rows": rows, "summary": comparison.summary, "exit_code": comparison.exit_code}
        return json.dumps(body, indent=1) + "\n"
    if format == "csv":
        return _csv(comparison)
    page = _page(comparison)
    return grid.to_markdown(page) if format == "markdown" else grid.to_text(page, width, colour)


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(comparison.rows):
        fields = {name: value for name, value in asdict(row).items() if not isinstance(value, dict)}
        for side in ("baseline", "new"):
            fields |= {f"{side}_{k}": v for k, v in asdict(getattr(row, side)).items()}
        if number == 0:
            writer.writerow(fields)
        writer.writerow(fields.values())
    return file.getvalue()


def _page(comparison: Comparison) -> Page:
    names = ("", "metric", "baseline", "new", "difference", "verdict")
    order = list(_MARKS)
    rows = sorted(comparison.rows, key=lambda row: (order.index(row.state), row.cell))
    body, reasons = [], list(dict.fromkeys(row.reason for row in rows))
    for row in rows:
        label = grid.superscript(str(reasons.index(row.reason) + 1))
        body.append(_entries(row, label))
    section = Section("", tuple(Heading((name,)) for name in names), tuple(body))
    listed = tuple((grid.superscript(str(n)), reason) for n, reason in enumerate(reasons, 1))
    legend = (
        "difference: + is better, - is worse; below a worse one, what it exceeds with 99 % "
        "confidence. A changed one is + or - only in size: no way is better. Training time, in "
        "seconds, is shown and not judged."
    )
    notes = (Notes("", (("", comparison.summary), ("", legend))), Notes("Notes", listed))
    return Page("New records against the baseline", (section,) if body else (), notes)


def _entries(row: ComparedRow, label: str) -> tuple[Entry, ...]:
    paper, table, name, column = row.cell.split("/")
    mark, style = _MARKS[row.state]
    difference = [] if row.difference is None else [f"{row.difference:+.3g}"]
    bound = [f"> {row.bound:.3g}"] if row.state == "worse" and row.bound is not None else []
    return (
        Entry((Line(f"{name}/{column}", "bold"), Line(f"{paper}/{table}", "dim"))),
        Entry.of(row.metric, row.unit),
        _side_entry(row.baseline),
        _side_entry(row.new),
        Entry.of(*difference, *bound),
        Entry((Line(f"{mark} {row.state.replace('-', ' ')} {label}", style),)),
    )


def _side_entry(side: Side) -> Entry:
    if side.mean is None or side.train_seconds is None:
        return Entry.of("-")
    seeds = "1 seed" if side.seeds == 1 else f"{side.seeds} seeds"
    return Entry.of(with_error(side.mean, side.sd), f"{seeds}, {side.train_seconds:.4g} s")
