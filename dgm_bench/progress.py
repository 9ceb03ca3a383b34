"""Progress of runs on the console: a row for each that ended, and at a terminal a live display."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dgm_bench.console import make_console, plan_lines
from dgm_bench.errors import OutputError
from dgm_bench.events import Progress, Reporter, stopped_line
from dgm_bench.planner import Plan, PlannedRun, duration
from dgm_bench.records import RunRecord
from dgm_bench.run_rows import (
    Key,
    Layout,
    Row,
    Rows,
    Shared,
    StoredNumbers,
    row_of,
    runs_by_key,
    shared_rows,
)


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
    """Return how far a run is by whichever ends it first, time or steps: 0 to 1.

    Where patience may end it, nobody knows: None.
    """
    if event.patience is not None:
        return None
    shares = []
    if event.limit_seconds:
        shares.append(event.seconds / event.limit_seconds)
    if event.max_steps:
        shares.append(event.step / event.max_steps)
    return min(max(shares), 1.0) if shares else None


def progress_line(event: Progress) -> str:
    """Return where a run stands in one line: epoch, losses, patience, time."""
    parts = [event.stage] if event.stage else []
    parts += [f"epoch {event.epoch:.1f}", f"loss {number(event.train_loss)}"]
    if event.validation is not None:
        parts.append(f"val {number(event.validation)} (best {number(event.best)})")
    return "  ".join([*parts, *how_far(event), _time(event)])


def short_line(event: Progress) -> str:
    """Return where one of several runs stands: epoch, best loss, patience, time left."""
    parts = [event.stage] if event.stage else []
    parts.append(f"epoch {event.epoch:.0f}" if event.epoch >= 10 else f"epoch {event.epoch:.1f}")
    best = event.best if event.best is not None else event.train_loss
    name = "best" if event.best is not None else "loss"
    parts.append(f"{name} {number(best)}")
    return ", ".join([*parts, *how_far(event), _time(event)])


def how_far(event: Progress) -> list[str]:
    """Return how long the best validation ago is, of so many that patience waits, or a share."""
    if event.patience is not None:
        return [f"best {event.bad_validations}/{event.patience} ago"]
    done = fraction_done(event)
    return [] if done is None else [f"{done:.0%}"]


def _time(event: Progress) -> str:
    left = time_left(event)
    return duration(event.seconds) if left is None else f"{duration(left)} left"


def failure_line(title: str, record: RunRecord) -> str:
    """Return what broke a run, and a hint, in one line."""
    outcome = record.outcome
    hint = f"; {outcome.hint}" if outcome.hint else ""
    return f"{title}: {outcome.status}: {outcome.reason}{hint}"


class PlainReporter(Reporter):
    """One row for each run that ended, for logs; where a run stands only after a long silence.

    Args:
        console: Where to.
        stored: What runs are compared with.
        interval: Seconds of silence after which it is said where a run stands; each time twice as
            many, until something else is said.
        lost: Told once where the output cannot be written: runs go on.
    """

    def __init__(
        self,
        console: Console,
        stored: StoredNumbers | None = None,
        interval: float = 60.0,
        lost: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.console, self.interval = console, interval
        self.stored, self._lost = stored or StoredNumbers(), lost
        self.title = ""
        self.published: str | None = None
        self.total = self.ended = 0
        self.budget: float | None = None
        self._runs: Mapping[Key, PlannedRun] = {}
        self._shared: dict[Key, Shared] = {}
        self._rows = Rows()
        self._layout = Layout()
        self._began = self._last = time.monotonic()
        self._silence = interval
        self._told = set[str]()
        self._said = dict[str, float]()
        self._open = True

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell what is left of shared rows; leave the terminal as it was."""
        for shared in {id(s): s for s in self._shared.values()}.values():
            self._show(shared.told())
        self._show(self._rows.told())

    def plan(self, plan: Plan) -> None:
        """Say how many runs there will be, and why others will not."""
        self.total, self.budget = len(plan.chosen), plan.budget_seconds
        self._told |= {run.cell.id for run in plan.left_out}
        self._runs, self._shared = runs_by_key(plan), shared_rows(plan)
        self._layout = Layout(plan.chosen)
        self._began = time.monotonic()
        for line in plan_lines(plan):
            self._say(Text(line))
        if plan.chosen:
            self._say(self._layout.heading(self.console.width))

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        """Note which run begins; say only where it goes on."""
        self.about(title, published)
        if resumed_at_step:
            self.message(f"{title}: goes on at step {resumed_at_step}")

    def about(self, title: str, published: str | None) -> None:
        """Begin what follows with this title."""
        self.title, self.published = title, published

    def progress(self, event: Progress) -> None:
        """Say where the run stands, unless something was said not long ago."""
        self.going([(self.title, event)])

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Say where one of the runs stands, in turns, unless something was said not long ago."""
        now = time.monotonic()
        if runs and now - self._last >= self._silence:
            title, event = min(runs, key=lambda run: self._said.get(run[0], 0.0))
            self._said[title] = now
            silence = 2 * self._silence
            self._say(Text(f"{title}: {progress_line(event)}"))
            self._silence = silence

    def run_stopped(self, reason: str) -> None:
        """Say why it stopped."""
        self.message(stopped_line(reason))

    def run_finished(self, record: RunRecord) -> None:
        """Show the run's row, or what broke it."""
        self._end(record, kept=False)

    def run_kept(self, record: RunRecord) -> None:
        """Show the row of a run that an earlier command finished."""
        self._end(record, kept=True)

    def _end(self, record: RunRecord, *, kept: bool) -> None:
        self.ended += 1
        key = record.recipe_hash, record.seed
        run = self._runs.get(key)
        if record.outcome.failed or run is None:
            title = self.title or f"{record.row}/{record.column} seed {record.seed}"
            self._say(Text(failure_line(title, record), style="red"))
            return
        row: Row | None = row_of(run, record, self.stored, kept=kept)
        if row is not None and key in self._shared:
            row = self._shared[key].take(key, row)
        self._show(row and self._rows.take(row))

    def run_skipped(self, cell_id: str, reason: str) -> None:
        """Say which cell does not run, and why, unless the plan said so."""
        if cell_id not in self._told:
            self._say(Text(f"{cell_id}: not run: {reason}", style="yellow"))

    def planned_again(self, text: str, runs: int) -> None:
        """Say so."""
        self.total = runs
        if text:
            self._say(Text(text, style="cyan"))

    def message(self, text: str) -> None:
        """Say anything else, once."""
        if text not in self._told:
            self._told.add(text)
            self._say(Text(text))

    def say(self, view: RenderableType) -> None:
        """Print what is no event, as long as the output can be written."""
        self._silence, self._last = self.interval, time.monotonic()
        if self._open:
            with self._written():
                self.console.print(view, soft_wrap=isinstance(view, Text))

    def _show(self, row: Row | None) -> None:
        if row is not None:
            self._say(self._layout.line(row, self.console.width))

    def _say(self, text: Text) -> None:
        self.say(text)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Go on without an output that cannot be written: no run is to be lost by it."""
        try:
            yield
        except (OutputError, OSError) as error:
            self._open = False
            self._lost(error)


class QuietReporter(PlainReporter):
    """Only what fails."""

    def plan(self, plan: Plan) -> None:
        """Note the runs."""
        self._told |= {run.cell.id for run in plan.left_out}
        self._runs = runs_by_key(plan)

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def planned_again(self, text: str, runs: int) -> None:
        """Nothing."""

    def _show(self, row: Row | None) -> None:
        """Nothing."""


class RichReporter(PlainReporter):
    """The same rows, and below them what is under way, live."""

    def __init__(
        self,
        console: Console,
        stored: StoredNumbers | None = None,
        lost: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        super().__init__(console, stored, lost=lost)
        self._live: Live | None = None

    def close(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            with self._written():
                self._live.stop()
            self._live = None
        super().close()

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Redraw the live lines."""
        if self._open:
            with self._written():
                self._draw(self.view_of(runs))

    def _draw(self, view: RenderableType) -> None:
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(view, refresh=True)

    def view_of(self, runs: Sequence[tuple[str, Progress]]) -> RenderableType:
        """Return one line for each run, as many as the terminal shows, and one of them all."""
        lines = Table.grid(Column(no_wrap=True), Column(no_wrap=True), padding=(0, 1))
        room = max(self.console.size.height - 5, 1)
        for title, event in runs[:room] if len(runs) > room + 1 else runs[: room + 1]:
            name = title.removesuffix(", seed 0")
            lines.add_row(Text(name, style="bold"), Text(short_line(event), style="cyan"))
        if len(runs) > lines.row_count:
            lines.add_row(Text(f"and {len(runs) - lines.row_count} more", style="dim"), "")
        return Group(lines, self._overall()) if self.total > 1 else lines

    def _overall(self) -> RenderableType:
        """Return how many runs ended, and how much of the budget is over."""
        spent = duration(time.monotonic() - self._began)
        limit = f" of at most {duration(self.budget)}" if self.budget is not None else ""
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.total, completed=min(self.ended, self.total), width=20)
        told = f"{self.ended} of {self.total} runs, {spent}{limit}"
        line.add_row(bar, Text(told, style="dim", no_wrap=True))
        return line


def make_reporter(
    stored: StoredNumbers | None = None,
    lost: Callable[[Exception], None] = lambda error: None,
    *,
    quiet: bool = False,
) -> PlainReporter:
    """Return a live reporter at a terminal, and a plain one anywhere else.

    Args:
        stored: What runs are compared with.
        lost: Told once where standard output cannot be written.
        quiet: Whether only what fails is told.
    """
    console = make_console()
    if quiet:
        return QuietReporter(console, stored, lost=lost)
    return (RichReporter if console.is_terminal else PlainReporter)(console, stored, lost=lost)
