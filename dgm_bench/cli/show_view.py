"""How ``show`` looks: everything about a cell on one screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dgm_bench.cli.cell_facts import Facts
from dgm_bench.console import fitted
from dgm_bench.planner import duration, durations, gigabytes
from dgm_bench.records import RunRecord
from dgm_bench.report.interval import bars_of, drawn
from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.screen import has_all_marks
from dgm_bench.wording import (
    PLUS_MINUS,
    RUN_LEGEND,
    STATES,
    counted,
    published_error,
    spoken,
    with_error,
)

#: Of a cell with more, the last ones are shown; JSON has all.
MOST_RECORDS = 12
#: Columns that a drawing takes at most.
WIDEST = 64
Line = tuple[str, RenderableType]


def show_view(facts: Facts) -> RenderableType:
    """Return everything about a cell for people."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _lines(facts):
        shown = Text(value, overflow="fold") if isinstance(value, str) else value
        grid.add_row(fitted(Text(name)), fitted(shown) if isinstance(shown, Text) else shown)
    return Group(Text(facts.cell.id, style="bold", overflow="fold"), grid)


def _lines(facts: Facts) -> Iterator[Line]:
    yield "", f"{facts.cell.row.title} on {facts.cell.column.title}: {facts.table.title}"
    yield from _blank(_published(facts))
    yield from _blank(_measured(facts))
    yield from _blank(facts.recipe)
    yield from _blank(_cost(facts))
    yield from _blank(_records(facts))


def _blank(lines: Iterator[Line] | list[tuple[str, str]]) -> Iterator[Line]:
    """Yield lines below an empty one, where there are any."""
    found = list(lines)
    yield from [("", ""), *found] if found else []


def _published(facts: Facts) -> Iterator[Line]:
    cell, source, published = facts.cell, facts.source, facts.cell.published
    if published is None:
        yield "published", "nothing: the paper does not have this number"
    else:
        model = f", of {published.model}" if published.model else ""
        yield "published", Text(published_text(cell), style="bold").append(model, style="not bold")
        if source is not None:
            where = f"{source.where}; {source.citation}"
            yield "source", where + (f"; {source.url}" if source.url else "")
        if published.pm is not None:
            yield f"its {PLUS_MINUS}", published_error(published)
        yield "selection", published.selection
    yield "metric", facts.meaning
    notes = (published.note if published else "", source.note if source else "")
    yield from (("note", note) for note in (*notes, cell.row.note, cell.column.note) if note)
    for erratum in cell.errata:
        yield "erratum", Text(f"{erratum.text} ({erratum.source})", style="yellow")


def _measured(facts: Facts) -> Iterator[Line]:
    cell, verdict = facts.cell, facts.verdict
    number = measured_text(cell, verdict)
    if number:
        seeds = f" over {counted(verdict.seeds, 'seed')}" if verdict.seeds else ""
        yield "measured", Text(number, style="bold").append(seeds, style="not bold")
    words = STATES[verdict.state]
    head = Text(f"{words.mark} {spoken(verdict.state)}", style=words.style)
    yield "verdict", head.append(f": {verdict.reason}", style="default")
    if bars_of(cell, verdict):
        yield "", _Drawing(facts)
    if facts.to_decide:
        yield "to decide", facts.to_decide


class _Drawing:
    """The interval against its margin, as wide as there is room."""

    def __init__(self, facts: Facts) -> None:
        self.bars = bars_of(facts.cell, facts.verdict)
        self.unit = facts.cell.column.unit

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each range, and what it is below."""
        name = max(len(bar.name) for bar in self.bars) + 2
        columns = min(options.max_width - name, WIDEST)
        lines = drawn(self.bars, columns, ascii_only=not has_all_marks())
        for bar, line in zip(self.bars, lines, strict=False):
            yield Text(f"{bar.name:<{name}}{line}", no_wrap=True)
        yield Text(f"{self.unit:<{name}.{name - 1}}{lines[-1]}", style="dim", no_wrap=True)
        words = "; ".join(f"{bar.name}: {bar.words}" for bar in self.bars)
        yield Text(words, style="dim", overflow="fold")


def _cost(facts: Facts) -> Iterator[Line]:
    planned, cell = facts.planned, facts.cell
    if cell.recipe is None:
        yield "recipe", cell.no_recipe or "none yet"
        return
    here, there = durations(facts.seconds, planned.h200_seconds)
    memory = f"{gigabytes(planned.memory_bytes)} of memory"
    yield "cost", f"a seed about {here} here, about {there} on one H200; {memory}"
    yield "data here", planned.data
    if facts.has_model:
        yield "model here", f"dgm-bench sample {cell.id} -o samples.png"
    if not planned.runs:
        yield "not here", Text(planned.reason, style="yellow")
    if facts.command and facts.command not in planned.reason:
        yield "command", Text(facts.command, style="bold")
    if facts.then:
        yield "then", Text(facts.then, style="bold")
    yield "cite", f"dgm-bench cite {cell.id}"


# --------------------------------------------------------------------------- records


def _records(facts: Facts) -> Iterator[Line]:
    """Yield a line a run, marked where it does not count, and what ± is there."""
    records = facts.records[-MOST_RECORDS:]
    if (left := len(facts.records) - len(records)) > 0:
        yield "runs", f"{left} before these: dgm-bench show {facts.cell.id} --json"
    for record in records:
        counts = record.run_id in facts.counting
        said = _in_words(facts, record) + f"; does not count: {_why_not(record)}" * (not counts)
        style = "" if counts else "dim"
        yield f"seed {record.seed}", Text(said, style=style, overflow="fold")
    if records:
        yield "", Text(RUN_LEGEND, style="dim")


def _why_not(record: RunRecord) -> str:
    if record.modified:
        return "its recipe was modified"
    if record.outcome.cut_short:
        return "it is unfinished"
    return (
        "it broke" if not record.outcome.complete else "another run of its seed does, or its data"
    )


def _in_words(facts: Facts, record: RunRecord) -> str:
    metric, code, environment = record.metric(facts.cell.metric), record.code, record.environment
    value = None if metric is None else metric.value
    error = 2 * metric.se if metric is not None and metric.se is not None else None
    commit = f"commit {code.git_commit[:8]}" if code.git_commit else f"version {code.version}"
    parts = (
        "no number" if value is None else with_error(value, error),
        "cut short" if record.outcome.cut_short else record.outcome.status,
        facts.origin(record),
        record.created[:10],
        f"{duration(record.budget.train_seconds)} of training",
        environment.gpu or f"{environment.cpu}, {counted(environment.threads, 'thread')}",
        commit + (" and changes" if code.git_dirty else ""),
    )
    return ", ".join(parts)
