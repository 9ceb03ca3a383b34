"""What the verbs print: plans, lists of cells and data, checks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style, StyleType
from rich.table import Table
from rich.text import Span, Text

from dgm_bench.data.cards import DatasetCard
from dgm_bench.escaping import plain
from dgm_bench.planner import Plan, PlannedRun, duration, durations, gigabytes
from dgm_bench.report.grid import Entry, Heading, Line, Section
from dgm_bench.report.numbers import how_far, measured_text, published_text
from dgm_bench.report.padded import Span as PaddedSpan
from dgm_bench.screen import columns, fitting
from dgm_bench.together import why_apart
from dgm_bench.wording import MEASURED_LEGEND, PUBLISHED_LEGEND, STATES, counted, spoken

if TYPE_CHECKING:
    from pathlib import Path

    from dgm_bench.data import DataState, FileCheck
    from dgm_bench.data.weights import WeightsCard
    from dgm_bench.spec import Cell
    from dgm_bench.verdict import Verdict

#: Of what stands below a name.
INDENT = "    "
STYLES = {"ok": "green", "warn": "yellow", "missing": "red"}


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr; text is shown as it is, without markup."""
    file = sys.stderr if stderr else sys.stdout
    width = columns(terminal=file.isatty())
    return _Console(file=file, width=width, markup=False, highlight=False, emoji=False)


class _Console(Console):
    """A console on which text has no control characters but those of its own styles."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        shown = fitted(renderable) if isinstance(renderable, Text) else renderable
        for segment in super().render(shown, options):
            text = segment.text if segment.control else plain(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def fitted(text: Text) -> Text:
    """Return a text with the marks that standard output has, and its styles."""
    if fitting(text.plain) == text.plain:
        return text
    whole = text.blank_copy()
    ends = sorted({place for span in text.spans for place in (span.start, span.end)})
    for part in text.divide(ends):
        part.plain = fitting(part.plain)
        part.spans = [Span(0, len(part), span.style) for span in part.spans]
        whole.append_text(part)
    return whole


class _Table(Table):
    """A table that is laid out by what standard output shows."""

    def add_row(
        self,
        *renderables: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        texts = (Text(each) if isinstance(each, str) else each for each in renderables)
        shown = (fitted(each) if isinstance(each, Text) else each for each in texts)
        super().add_row(*shown, style=style, end_section=end_section)


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; columns named in ``right`` hold numbers."""
    table = _Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
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


def plan_lines(plan: Plan) -> list[str]:
    """Return how many of a plan's runs run, for how many cells, and why the others do not."""
    limit, machine = plan.budget_seconds, plan.machine
    served, cells = (
        len({cell for run in runs for cell in run.cells}) for runs in (plan.chosen, plan.runs)
    )
    whom = counted(cells, "cell") if served == cells else f"{served} of {cells} cells"
    budget = "" if limit is None else f" of {duration(limit)}"
    at_once = f", {machine.workers} at once" if machine.workers > 1 else ""
    lines = [
        f"{len(plan.chosen)} of {len(plan.runs)} runs ({whom}): "
        f"about {duration(plan.expected_end_seconds)}{budget}{at_once} on {machine.device}"
    ]
    why = Counter(map(_kind, plan.left_out))
    if why:
        lines.append("Not run: " + ", ".join(f"{n} {kind}" for kind, n in why.most_common()))
    return lines


def _kind(run: PlannedRun) -> str:
    """Return why a run does not run, in a few words."""
    if run.recipe is None:
        return "without a recipe"
    if run.waits:
        return "over the budget"
    if run.data in ("missing", "incomplete"):
        return "without their data"
    memory = run.reason.startswith("needs") and "memory" in run.reason
    return "over the memory" if memory else run.reason.partition(":")[0]


def plan_brief(plan: Plan) -> RenderableType:
    """Return what runs, in order, and in a line why the others do not."""
    lines = [Text(line) for line in plan_lines(plan)]
    if any(not run.runs for run in plan.runs):
        lines[-1].append("; dgm-bench plan --all lists them")
    if not plan.chosen:
        return Group(*lines)
    return Group(_plan_table(plan.chosen), *_seeds_in_words(plan.chosen), Text(), *lines)


def plan_view(plan: Plan) -> RenderableType:
    """Return a plan for people: what runs, in order, then what does not, by reason."""
    parts: list[RenderableType] = []
    if plan.chosen:
        parts += [Text("Runs, in this order", style="bold"), _plan_table(plan.chosen), Text()]
        parts += [*_seeds_in_words(plan.chosen)]
    without = [run for run in plan.left_out if run.recipe is None]
    costed = [run for run in plan.left_out if run.recipe is not None]
    if costed:
        names = ("Does not run", "data", "time", "1 H200", "memory")
        parts += [_Aligned(*names, style="bold"), *_by_reason(costed), Text()]
    if without:
        parts += [Text("Has no recipe", style="bold"), *_without_recipe(without), Text()]
    return Group(*parts, plan_summary(plan))


def _seeds_in_words(runs: Sequence[PlannedRun]) -> list[RenderableType]:
    """Return of each recipe with several seeds whether they are trained together, or why not."""
    seeds: dict[str, list[PlannedRun]] = {}
    for run in runs:
        seeds.setdefault(run.cells[0], []).append(run)
    several = {cell: len(group) for cell, group in seeds.items() if len(group) > 1}
    apart = {cell: why_apart(seeds[cell][0].chosen_recipe) for cell in several}
    lines = [
        f"{cell}: {several[cell]} seeds, " + (f"one after the other: {why}" if why else "together")
        for cell, why in apart.items()
    ]
    return [*(Text(line, overflow="fold") for line in lines), Text()] if lines else []


def plan_summary(plan: Plan) -> str:
    """Return one line: how many runs, how long, how many at once and until when, on what."""
    limit, machine = plan.budget_seconds, plan.machine
    budget = "no budget" if limit is None else f"budget {duration(limit)}"
    runs = f"{len(plan.chosen)} of {len(plan.runs)} runs"
    end = f"about {duration(plan.expected_end_seconds)}"
    if machine.workers > 1:
        end = f"{duration(plan.seconds)} in sum, {machine.workers} at once: {end}"
    return f"{runs}, {end} on {machine.device} ({budget})"


def _plan_table(runs: Sequence[PlannedRun]) -> _CellsTable:
    numbers = [Heading((word,), right=True) for word in ("time", "1 H200", "memory")]
    headings = (Heading(("cell",)), Heading(("data",)), *numbers)
    rows = tuple((_served(run), *map(Entry.of, (run.data, *_cost(run)))) for run in runs)
    return _CellsTable(Section("", headings, rows))


def _served(run: PlannedRun) -> Entry:
    """Return the cells that a run serves, and what limits it."""
    also = (Line(f"  and {cell}", "dim") for cell in run.cells[1:])
    limit = (Line(f"  {run.reason}", "yellow"),) if run.reason else ()
    return Entry((Line(_name(run)), *also, *limit))


def _cost(run: PlannedRun) -> tuple[str, str, str]:
    here, there = durations(run.seconds, run.h200_seconds)
    return here, there, gigabytes(run.memory_bytes)


def _by_reason(runs: Sequence[PlannedRun]) -> list[RenderableType]:
    """Return runs with what they would take; those with the same reason share its line."""
    parts: list[RenderableType] = []
    for reason, group in groupby(runs, key=lambda run: run.reason):
        for run in group:
            parts.append(_left_out(run))
        reason_below = Text(reason, style="yellow", overflow="fold")
        parts.append(Padding(reason_below, (0, 0, 0, 4), expand=False))
    return parts


def _left_out(run: PlannedRun) -> _Aligned:
    return _Aligned(_name(run), run.data, *_cost(run))


def _name(run: PlannedRun) -> str:
    return run.cells[0] + (f" seed {run.seed}" if run.seed else "")


@dataclass(frozen=True)
class _Aligned:
    """A line of the runs that are left out; its name stands alone where there is no room."""

    name: str
    data: str
    here: str
    h200: str
    memory: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield it."""
        numbers = f"{self.data:<10} {self.here:>8} {self.h200:>8} {self.memory:>8}"
        line = f"{self.name:<42} {numbers}"
        if len(line) <= options.max_width:
            yield Text(line, style=self.style)
        else:
            yield Text(self.name, style=self.style, overflow="fold")
            yield Text(f"    {numbers}", style=self.style, overflow="fold")


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


def cells_view(
    pairs: Sequence[tuple[Cell, Verdict]], own: str = "your results folder"
) -> RenderableType:
    """Return ``list`` for people: for each table its cells, published and measured, and states.

    Args:
        pairs: Cells with their verdicts.
        own: The folder of the user's own runs, whose seeds are told.
    """
    parts: list[RenderableType] = []
    for name, group in groupby(pairs, key=lambda pair: f"{pair[0].paper}/{pair[0].table}"):
        parts += [Text(name, style="bold"), _cells_table(list(group)), Text()]
    said = [MEASURED_LEGEND, PUBLISHED_LEGEND]
    shares = [v.unfinished or v.own_unfinished for _, v in pairs]
    if any(share is not None and share.early_stopping for share in shares):
        said.append("unfinished ~: early stopping not reached, a share of the steps expected.")
    if any(verdict.own_seeds or verdict.own_unfinished for _, verdict in pairs):
        said.append(f"yours: of your runs, in {own}; all others came with the suite.")
    return Group(*parts, *map(Text, said))


def _cells_table(pairs: Iterable[tuple[Cell, Verdict]]) -> _CellsTable:
    rows = []
    for cell, verdict in pairs:
        style = STATES[verdict.state].style if verdict.state == "unfinished" else ""
        measured = Entry((Line(measured_text(cell, verdict), style),))
        shown = (f"{cell.row.id}/{cell.column.id}", published_text(cell))
        rows.append((*map(Entry.of, shown), measured, Entry.of(_seeds(verdict)), _state(verdict)))
    numbers = [Heading((word,), right=True) for word in ("published", "measured", "seeds")]
    headings = (Heading(("row/column",)), *numbers, Heading(("state",)))
    return _CellsTable(Section("", headings, tuple(rows)))


def _seeds(verdict: Verdict) -> str:
    """Return how many seeds a number is over, and how many of them are the user's own."""
    own, seeds = len(verdict.own_seeds), str(verdict.seeds or "")
    if not (own and seeds):
        return seeds
    return f"{seeds} yours" if own == verdict.seeds else f"{seeds}, {own} yours"


def _state(verdict: Verdict) -> Entry:
    """Return a state in words, and how far unfinished runs are: of the cell, or the user's own."""
    words, ahead = STATES[verdict.state], verdict.own_unfinished
    said = f"{words.mark} {spoken(verdict.state)}"
    if verdict.unfinished is not None:
        said += f" {how_far(verdict.unfinished)}".removesuffix(" done")
        said += ", yours" if verdict.own_seeds else ""
    lines = [Line(said, words.style)]
    lines += [] if ahead is None else [Line(f"  yours {how_far(ahead)}", "dim")]
    return Entry(tuple(lines))


@dataclass(frozen=True)
class _CellsTable:
    """A table without space between rows; rich lays it out where it has to be folded."""

    section: Section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        section = self.section.escaped(fitting)
        lines = section.padded(options.max_width, spaced=False)
        lines = lines or _stacked(section, options.max_width)
        if lines is None:
            yield self._folded()
        spans = (span for line in lines or () for span in (*line, ("\n", "")))
        for style, alike in groupby(spans, key=lambda span: span[1]):  # rich is slow with many
            yield Segment("".join(text for text, _ in alike), Style.parse(style))

    def _folded(self) -> Table:
        names = [heading.lines[0] for heading in self.section.headings]
        numbers = [heading.lines[0] for heading in self.section.headings if heading.right]
        table = new_table(*names, right=numbers)
        for row in self.section.rows:
            table.add_row(*(_folding(entry) for entry in row))
        return table


def _stacked(section: Section, width: int) -> list[list[PaddedSpan]] | None:
    """Return a table too wide for a screen with each name on a line of its own, above its numbers.

    Args:
        section: Its first column has the names.
        width: Most columns of a line.

    Returns:
        None where the numbers alone are too wide, or a name is.
    """
    rest = Section("", section.headings[1:], tuple(row[1:] for row in section.rows))
    names = [[(line.text, line.shown) for line in row[0].lines] for row in section.rows]
    single = all(len(entry.lines) < 2 for row in rest.rows for entry in row)
    numbers = rest.padded(width - len(INDENT), spaced=False) if single else None
    if numbers is None or any(len(text) > width for name in names for text, _ in name):
        return None
    head, rule, *rows = ([(INDENT, ""), *line] for line in numbers)
    lines = [[(section.headings[0].lines[0], "bold")], head, rule]
    for (first, *others), row in zip(names, rows, strict=True):
        lines += [[first], row, *([span] for span in others)]
    return lines


def _folding(entry: Entry) -> Text:
    """Return an entry for rich to fold: its lines below each other."""
    return Text("\n").join(Text(line.text, line.style) for line in entry.lines)


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


def files_view(checks: Iterable[FileCheck], root: Path) -> Table:
    """Return the table of ``data verify``, with files as they are called below the data root."""
    table = new_table("file", "state", "found")
    for check in checks:
        inside = check.path.is_relative_to(root)
        name = check.path.relative_to(root) if inside else check.path
        table.add_row(str(name), check.outcome, check.detail)
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
