"""Progress of runs on the console: a line for each event, and at a terminal a live display."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dgm_bench.console import make_console, plan_view
from dgm_bench.events import Progress, Reporter, stopped_line
from dgm_bench.measured import error_bar
from dgm_bench.planner import Plan, duration
from dgm_bench.records import FAILED, Metric, RunRecord
from dgm_bench.spec import YES_NO
from dgm_bench.wording import RUN_LEGEND, with_error, yes_or_no

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


def short_line(event: Progress) -> str:
    """Return where one of several runs stands: epoch, loss, best validation, time left."""
    parts = [event.stage] if event.stage else []
    parts += [f"epoch {event.epoch:.1f}", f"loss {number(event.train_loss)}"]
    parts += [f"best {number(event.best)}"] if event.best is not None else []
    left = time_left(event)
    parts.append(duration(event.seconds) if left is None else f"{duration(left)} left")
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
    so_far, how = ("so far ", f", unfinished: {outcome.reason}") if outcome.cut_short else ("", "")
    beside = f" (published {published})" if published else ""
    took = duration(spent.train_seconds + spent.validation_seconds + spent.evaluation_seconds)
    return f"{title}: {so_far}{', '.join(numbers)}{beside}, {took}{how}"


class PlainReporter(Reporter):
    """One line for each event of note, for logs: progress at most every ``interval`` seconds."""

    def __init__(self, console: Console, interval: float = 15.0) -> None:
        self.console, self.interval = console, interval
        self.title = ""
        self.published: str | None = None
        self._last = 0.0
        self._total = self._done = 0
        self._told: set[str] = set()
        self._said: dict[str, float] = {}

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(self, *error: object) -> None:
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
        """Print which run begins or continues."""
        self.about(title, published)
        self._last = time.monotonic()
        self._done += 1
        count = f"[{self._done}/{self._total}] " if self._total else ""
        limit = f", at most {duration(limit_seconds)}" if limit_seconds is not None else ""
        resumed = f", goes on at step {resumed_at_step}" if resumed_at_step else ""
        beside = f", published {published}" if published else ""
        self.message(f"{count}{title}{beside}{limit}{resumed}")

    def about(self, title: str, published: str | None) -> None:
        """Begin what follows with this title."""
        self.title, self.published = title, published

    def progress(self, event: Progress) -> None:
        """Say where the run stands, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._last >= self.interval:
            self._last = now
            self.message(f"{self.title}: {progress_line(event)}")

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Say where one of the runs stands, in turns, unless another's was said a moment ago."""
        now = time.monotonic()
        if runs and now - self._last >= self.interval:
            self._last = now
            title, event = min(runs, key=lambda run: self._said.get(run[0], 0.0))
            self._said[title] = now
            self.message(f"{title}: {progress_line(event)}")

    def run_stopped(self, reason: str) -> None:
        """Say why it stopped."""
        self.message(stopped_line(reason))

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
        self._several = False

    def close(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, event: Progress) -> None:
        """Redraw the live lines."""
        self._draw(self.view(event))

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Redraw the live lines of several runs."""
        self._several = True
        self._draw(self.view_of(runs))

    def _draw(self, view: RenderableType) -> None:
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(view, refresh=True)

    def view_of(self, runs: Sequence[tuple[str, Progress]]) -> RenderableType:
        """Return one line for each run, as many as the terminal shows beside the last messages."""
        lines = Table.grid(Column(), Column(no_wrap=True), Column(no_wrap=True), padding=(0, 1))
        room = max(self.console.size.height - 4, 1)
        for title, event in runs[:room] if len(runs) > room + 1 else runs[: room + 1]:
            done = fraction_done(event)
            bar = ProgressBar(total=1.0, completed=done or 0.0, width=10, pulse=done is None)
            lines.add_row(bar, Text(title, style="bold"), Text(short_line(event)))
        if len(runs) > lines.row_count:
            lines.add_row("", Text(f"and {len(runs) - lines.row_count} more", style="dim"), "")
        return lines

    def view(self, event: Progress) -> RenderableType:
        """Return the live lines: a bar with title and published value, and where the run stands."""
        done = fraction_done(event)
        bar = ProgressBar(total=1.0, completed=done or 0.0, width=24, pulse=done is None)
        head = Table.grid(padding=(0, 1))
        beside = f"published {self.published}" if self.published else ""
        head.add_row(bar, Text(self.title, style="bold"), Text(beside, style="cyan"))
        return Group(head, Text(progress_line(event), overflow="ellipsis", no_wrap=True))

    def run_finished(self, record: RunRecord) -> None:
        """Say how the run ended, in place of its live lines or above those of others."""
        if not self._several:
            self.close()
        super().run_finished(record)


def make_reporter() -> PlainReporter:
    """Return a live reporter at a terminal, and a plain one anywhere else."""
    console = make_console(stderr=True)
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
