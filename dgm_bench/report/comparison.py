"""A comparison of new records with stored ones, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Literal

from dgm_bench.compare import ComparedRow, Comparison, Side, SpeedRow
from dgm_bench.escaping import csv_cell, plain
from dgm_bench.report import grid
from dgm_bench.report.changes import called, changes_text
from dgm_bench.report.grid import Entry, Heading, Line, Notes, Page, Section
from dgm_bench.wording import MEASURED_LEGEND, ROW_STATES, counted, so_far, spoken, with_error


def render_comparison(
    comparison: Comparison,
    format: Literal["text", "markdown", "csv", "json"] = "text",
    *,
    width: int = 160,
    colour: bool = False,
    everything: bool = True,
    names: tuple[str, str] = ("new", "baseline"),
    fit: Callable[[str], str] = plain,
) -> str:
    """Return a comparison for people (``text``, ``markdown``) or machines (``csv``, ``json``).

    As CSV it is of quality alone.

    Args:
        comparison: What was compared.
        format: Others than ``text`` have every number.
        width: Most columns of a line of text.
        colour: Whether text has the colours of a terminal.
        everything: Whether text has every number; else what changed, a line each, and counts.
        names: Of the new records and the baseline, for text.
        fit: Gives a text the characters that what shows it has.
    """
    if format == "json":
        said = {"summary": comparison.summary, "exit_code": comparison.exit_code}
        return json.dumps({**asdict(comparison), **said}, indent=1) + "\n"
    if format == "csv":
        return _csv(comparison)
    if format == "text" and not everything:
        return changes_text(comparison, names, width, colour, fit)
    page = _page(comparison)
    if format == "markdown":
        return grid.to_markdown(page)
    return grid.to_text(page, width, colour, fit)


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(comparison.rows):
        fields = {name: value for name, value in asdict(row).items() if not isinstance(value, dict)}
        for side in ("baseline", "new"):
            fields |= {f"{side}_{k}": v for k, v in asdict(getattr(row, side)).items()}
        if number == 0:
            writer.writerow(fields)
        writer.writerow(map(csv_cell, fields.values()))
    return file.getvalue()


def _page(comparison: Comparison) -> Page:
    names = ("", "baseline", "new", "difference", "verdict")
    order = list(ROW_STATES)
    rows = sorted(comparison.rows, key=lambda row: (order.index(row.state), row.cell))
    body, reasons = [], list(dict.fromkeys(row.reason for row in rows))
    for row in rows:
        label = grid.superscript(str(reasons.index(row.reason) + 1))
        body.append(_entries(row, label))
    section = Section("", tuple(Heading((name,)) for name in names), tuple(body))
    listed = tuple((grid.superscript(str(n)), reason) for n, reason in enumerate(reasons, 1))
    legend = (
        "difference: new minus baseline, + if better and - if worse; where the metric has no "
        "better direction, + if larger. Below a worse one stands how much worse it is with 99 % "
        "confidence. Training time, in seconds, is shown and not judged."
    )
    said = (comparison.summary, *comparison.remarks, MEASURED_LEGEND, legend)
    notes = (Notes("", tuple(("", text) for text in said)), Notes("Notes", listed))
    sections = (*((section,) if body else ()), *_speed(comparison.speed))
    return Page("New records against the baseline", sections, notes)


def _speed(rows: Sequence[SpeedRow]) -> Iterator[Section]:
    """Yield a section of times, if there are any."""
    names = ("", "baseline", "new", "change", "verdict")
    order = list(ROW_STATES)
    body = [_times(row) for row in sorted(rows, key=lambda row: order.index(row.state))]
    if body:
        yield Section("Times", tuple(Heading((name,)) for name in names), tuple(body))


def _times(row: SpeedRow) -> tuple[Entry, ...]:
    words = ROW_STATES[row.state]
    numbers = ("-" if value is None else f"{value:.4g}" for value in (row.baseline, row.new))
    return (
        Entry((Line(row.subject, "bold"), Line(row.quantity), Line(row.machine, "dim"))),
        *map(Entry.of, numbers),
        Entry.of("-" if row.change is None else f"{row.change:+.1%}"),
        Entry((Line(f"{words.mark} {spoken(row.state)}", words.style), Line(row.reason, "dim"))),
    )


def _entries(row: ComparedRow, label: str) -> tuple[Entry, ...]:
    paper, table, name, column = row.cell.split("/")
    words = ROW_STATES["same" if row.equal() else row.state]
    difference = [] if row.difference is None else [f"{row.difference:+.3g}"]
    difference = ["equal"] if row.equal() else difference
    bound = [f"> {row.bound:.3g}"] if row.state == "worse" and row.bound is not None else []
    # In one entry, which every part of a table has that is too wide for its screen.
    metric = ", ".join(filter(None, (row.metric, row.unit)))
    named = Line(f"{name}/{column}", "bold"), Line(metric), Line(f"{paper}/{table}", "dim")
    return (
        Entry(named),
        _side_entry(row.baseline),
        _side_entry(row.new),
        Entry.of(*difference, *bound),
        Entry((Line(f"{words.mark} {called(row)} {label}", words.style),)),
    )


def _side_entry(side: Side) -> Entry:
    if side.train_seconds is None:
        return Entry.of("-")
    took = f"{counted(side.seeds, 'seed')}, {side.train_seconds:.4g} s"
    if side.mean is None:
        return Entry((Line(so_far(with_error(side.so_far or 0.0, None)), "dim"), Line(took, "dim")))
    return Entry.of(with_error(side.mean, side.error), took)
