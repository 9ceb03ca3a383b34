"""What people see: tables on stdout, progress on stderr. The only module that knows rich."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dgm_bench.data.cards import DatasetCard
from dgm_bench.measured import error_bar
from dgm_bench.planner import Plan, PlannedRun, duration, gigabytes
from dgm_bench.records import COMPLETE, FAILED, Metric, RunRecord
from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.spec import YES_NO
from dgm_bench.wording import (
    MEASURED_LEGEND,
    PUBLISHED_LEGEND,
    RUN_LEGEND,
    STATES,
    spoken,
    with_error,
    yes_or_no,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from dgm_bench.data import DataState, FileCheck
    from dgm_bench.data.weights import WeightsCard
    from dgm_bench.spec import Cell
    from dgm_bench.train.events import Progress
    from dgm_bench.verdict import Verdict

#: Columns where no terminal says how many it has.
WIDTH = 120
STYLES = {"ok": "green", "warn": "yellow", "missing": "red"}


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr; text is shown as it is, without markup."""
    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else int(os.environ.get("COLUMNS") or WIDTH)
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; columns named in ``right`` hold numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    numbers = set(right)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            no_wrap=column in numbers,
            overflow="fold",
        )
    return table


# --------------------------------------------------------------------------- plan


def plan_view(plan: Plan) -> RenderableType:
    """Return a plan for people: what runs, in order, then what does not, by reason."""
    parts: list[RenderableType] = []
    if plan.chosen:
        parts += [Text("Runs, in this order", style="bold"), _plan_table(plan.chosen), Text()]
    without = [run for run in plan.left_out if run.recipe is None]
    costed = [run for run in plan.left_out if run.recipe is not None]
    if costed:
        head = _aligned("Does not run", "data", "time", "1 H200", "memory")
        head.stylize("bold")
        parts += [head, *_by_reason(costed), Text()]
    if without:
        parts += [Text("Has no recipe", style="bold"), *_without_recipe(without), Text()]
    return Group(*parts, plan_summary(plan))


def plan_summary(plan: Plan) -> str:
    """Return one line: how many runs, how long, on what."""
    limit = plan.budget_seconds
    budget = "no budget" if limit is None else f"budget {duration(limit)}"
    runs = f"{len(plan.chosen)} of {len(plan.runs)} runs"
    return f"{runs}, about {duration(plan.seconds)} on {plan.machine.device} ({budget})"


def _plan_table(runs: Sequence[PlannedRun]) -> Table:
    costs = ("time", "1 H200", "memory")
    table = new_table("cell", "data", *costs, right=costs)
    for run in runs:
        cell = Text(_name(run))
        for also in run.cells[1:]:
            cell.append(f"\n  and {also}", style="dim")
        if run.reason:
            cell.append(f"\n  {run.reason}", style="yellow")
        table.add_row(cell, run.data, *_cost(run))
    return table


def _cost(run: PlannedRun) -> tuple[str, str, str]:
    return duration(run.seconds), duration(run.h200_seconds), gigabytes(run.memory_bytes)


def _by_reason(runs: Sequence[PlannedRun]) -> list[RenderableType]:
    """Return runs with what they would take; those with the same reason share its line."""
    parts: list[RenderableType] = []
    for reason, group in groupby(runs, key=lambda run: run.reason):
        for run in group:
            parts.append(_left_out(run))
        parts.append(Text(f"    {reason}", style="yellow", overflow="fold"))
    return parts


def _left_out(run: PlannedRun) -> Text:
    return _aligned(_name(run), run.data, *_cost(run))


def _name(run: PlannedRun) -> str:
    return run.cells[0] + (f" seed {run.seed}" if run.seed else "")


def _aligned(name: str, data: str, here: str, h200: str, memory: str) -> Text:
    return Text(f"{name:<44} {data:<10} {here:>8} {h200:>8} {memory:>8}")


def _without_recipe(runs: Sequence[PlannedRun]) -> list[RenderableType]:
    """Return one line for each table, row and reason, with its columns."""
    parts: list[RenderableType] = []
    for (row, reason), group in groupby(runs, key=lambda run: (_row_of(run), run.reason)):
        columns = list(dict.fromkeys(run.cell.column.id for run in group))
        which = columns[0] if len(columns) == 1 else f"{{{','.join(columns)}}}"
        parts.append(Text(f"{row}/{which}: {reason}", overflow="fold"))
    return parts


def _row_of(run: PlannedRun) -> str:
    return run.cell.id.rpartition("/")[0]


# --------------------------------------------------------------------------- list, doctor


def cells_view(pairs: Iterable[tuple[Cell, Verdict]]) -> RenderableType:
    """Return ``list`` for people: for each table its cells, published and measured, and states."""
    parts: list[RenderableType] = []
    for name, group in groupby(pairs, key=lambda pair: f"{pair[0].paper}/{pair[0].table}"):
        parts += [Text(name, style="bold"), _cells_table(list(group)), Text()]
    legend = (Text(line) for line in (MEASURED_LEGEND, PUBLISHED_LEGEND))
    return Group(*parts, *legend)


def _cells_table(pairs: Iterable[tuple[Cell, Verdict]]) -> Table:
    numbers = ("published", "measured", "seeds")
    table = new_table("row/column", *numbers, "state", right=numbers)
    for cell, verdict in pairs:
        words = STATES[verdict.state]
        state = Text(f"{words.mark} {spoken(verdict.state)}", style=words.style)
        name, seeds = f"{cell.row.id}/{cell.column.id}", str(verdict.seeds or "")
        shown = (published_text(cell), measured_text(cell, verdict))
        table.add_row(name, *shown, seeds, state)
    return table


def data_view(
    pairs: Iterable[tuple[DatasetCard | WeightsCard, DataState]], root: Path
) -> RenderableType:
    """Return the table of ``data list``, and where it looked."""
    table = new_table("name", "state", "examples", "what", right=("examples",))
    remedies = []
    for card, state in pairs:
        shown = Text(state.status, style="green" if state.loadable else "yellow")
        examples = card.sizes.get("train") if isinstance(card, DatasetCard) else None
        table.add_row(card.name, shown, f"{examples:,}" if examples else "", card.title)
        if state.status == "incomplete":
            remedies.append(Text(f"{card.name}: {state.detail}; {state.remedy}", style="yellow"))
    where = Text(f"data root: {root}; dgm-bench data fetch NAME gets what is missing")
    return Group(table, Text(), *remedies, where)


def files_view(checks: Iterable[FileCheck]) -> Table:
    """Return the table of ``data verify``."""
    table = new_table("file", "state", "found")
    for check in checks:
        table.add_row(str(check.path), check.outcome, check.detail)
    return table


def checks_view(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return a table of checks: what, state (``ok``, ``warn``, ``missing``), detail, remedy."""
    table = new_table("", "state", "found")
    for name, state, detail, remedy in rows:
        found = Text(detail, overflow="fold")
        if remedy:
            found.append(f"\n{remedy}", style="yellow")
        table.add_row(name, Text(state, style=STYLES.get(state, "")), found)
    return table


# --------------------------------------------------------------------------- progress

#: Of a finished run, in one line; its record has all.
MOST_NUMBERS = 3


def number(value: float | None) -> str:
    """Return a number for people, to four significant digits or three decimals, two if small."""
    if value is None:
        return "-"
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) >= 1e5 else f"{value:.3f}"


def time_left(event: Progress) -> float | None:
    """Return at most how many seconds are left, by the time limit and the maximum of steps."""
    left = []
    if event.limit_seconds is not None:
        left.append(max(event.limit_seconds - event.seconds, 0.0))
    if event.max_steps and event.step:
        left.append(event.seconds / event.step * max(event.max_steps - event.step, 0))
    return min(left, default=None)


def fraction_done(event: Progress) -> float | None:
    """Return how far a run is by whichever ends it first: time, steps or patience; 0 to 1."""
    shares = []
    if event.limit_seconds:
        shares.append(event.seconds / event.limit_seconds)
    if event.max_steps:
        shares.append(event.step / event.max_steps)
    return min(max(shares), 1.0) if shares else None


def progress_line(event: Progress) -> str:
    """Return where a run stands in one line: epoch, losses, bad validations, time."""
    parts = [event.stage] if event.stage else []
    parts += [f"epoch {event.epoch:.1f}", f"loss {number(event.train_loss)}"]
    if event.validation is not None:
        parts.append(f"val {number(event.validation)} (best {number(event.best)})")
    if event.patience is not None:
        parts.append(f"bad {event.bad_validations}/{event.patience}")
    left = time_left(event)
    parts.append(duration(event.seconds) + (f", {duration(left)} left" if left is not None else ""))
    return "  ".join(parts)


def _in_words(metric: Metric) -> str:
    """Return a metric's name and value: a number with its error and unit, or yes or no."""
    if metric.unit == YES_NO and metric.value is not None:
        return f"{metric.name} {yes_or_no(metric.value)}"
    if metric.value is None or metric.se is None:
        return f"{metric.name} {number(metric.value)} {metric.unit}"
    decimals = 3 if abs(metric.value) < 1e5 else 0
    shown = with_error(metric.value, error_bar(None, metric.se), decimals)
    return f"{metric.name} {shown} {metric.unit}"


def outcome_line(title: str, record: RunRecord, published: str | None) -> str:
    """Return how a run ended in one line: number, published number, time, or what broke."""
    outcome, spent = record.outcome, record.budget
    if outcome.status in FAILED:
        hint = f"; {outcome.hint}" if outcome.hint else ""
        return f"{title}: {outcome.status}: {outcome.reason}{hint}"
    # A column that is one of a run's many metrics has its name at the end of its own.
    metrics = sorted(record.metrics, key=lambda metric: not record.column.endswith(metric.name))
    numbers = [_in_words(metric) for metric in metrics[:MOST_NUMBERS]]
    left = len(record.metrics) - len(numbers)
    numbers += [f"{left} more numbers"] if left else []
    how = "" if outcome.status in COMPLETE else f", cut short: {outcome.reason}"
    beside = f" (published {published})" if published else ""
    took = duration(spent.train_seconds + spent.validation_seconds + spent.evaluation_seconds)
    return f"{title}: {', '.join(numbers)}{beside}, {took}{how}"


class PlainReporter:
    """One line for each event of note, for logs: progress at most every ``interval`` seconds."""

    def __init__(self, console: Console, interval: float = 15.0) -> None:
        self.console, self.interval = console, interval
        self.title = ""
        self.published: str | None = None
        self._last = 0.0
        self._total = self._done = 0
        self._told: set[str] = set()

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""

    def plan(self, plan: Plan) -> None:
        """Show what will run, and what will not and why."""
        self._total = len(plan.chosen)
        self._told = {run.cell.id for run in plan.left_out}
        self.console.print(plan_view(plan))
        if plan.chosen:
            self.message(RUN_LEGEND)

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        """Say which run begins, or goes on."""
        self.title, self.published, self._last = title, published, time.monotonic()
        self._done += 1
        count = f"[{self._done}/{self._total}] " if self._total else ""
        limit = f", at most {duration(limit_seconds)}" if limit_seconds is not None else ""
        resumed = f", goes on at step {resumed_at_step}" if resumed_at_step else ""
        beside = f", published {published}" if published else ""
        self.message(f"{count}{title}{beside}{limit}{resumed}")

    def progress(self, event: Progress) -> None:
        """Say where the run stands, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._last >= self.interval:
            self._last = now
            self.message(f"{self.title}: {progress_line(event)}")

    def run_finished(self, record: RunRecord) -> None:
        """Say how the run ended."""
        style = "red" if record.outcome.status in FAILED else "green"
        self._say(Text(outcome_line(self.title, record, self.published), style=style))

    def run_skipped(self, cell_id: str, reason: str) -> None:
        """Say which cell does not run, and why, unless the plan said so."""
        if cell_id not in self._told:
            self._say(Text(f"{cell_id}: not run: {reason}", style="yellow"))

    def message(self, text: str) -> None:
        """Say anything else."""
        self._say(Text(text))

    def _say(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)


class RichReporter(PlainReporter):
    """The same lines, and below them the run under way, live."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, interval=0.0)
        self._live: Live | None = None

    def close(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, event: Progress) -> None:
        """Redraw the live lines."""
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self.view(event), refresh=True)

    def view(self, event: Progress) -> RenderableType:
        """Return the live lines: a bar with title and published value, and where the run stands."""
        done = fraction_done(event)
        bar = ProgressBar(total=1.0, completed=done or 0.0, width=24, pulse=done is None)
        head = Table.grid(padding=(0, 1))
        beside = f"published {self.published}" if self.published else ""
        head.add_row(bar, Text(self.title, style="bold"), Text(beside, style="cyan"))
        return Group(head, Text(progress_line(event), overflow="ellipsis", no_wrap=True))

    def run_finished(self, record: RunRecord) -> None:
        """Say how the run ended, in place of the live lines."""
        self.close()
        super().run_finished(record)


def make_reporter() -> PlainReporter:
    """Return a live reporter at a terminal, and a plain one anywhere else."""
    console = make_console(stderr=True)
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
