"""What ``run`` says at its end: yours, ours and published, where the tables are, what to type."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from dgm_bench.catalog import Catalog
from dgm_bench.cli import queries
from dgm_bench.compare import Beside, beside_stored
from dgm_bench.escaping import shown
from dgm_bench.planner import Plan, PlannedRun, duration
from dgm_bench.report.numbers import published_text, side_text
from dgm_bench.report.tables import render_table
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import YES_NO, Cell, Table
from dgm_bench.store import Store
from dgm_bench.summary import RunSummary
from dgm_bench.verdict import Verdict, not_run
from dgm_bench.wording import STATES, counted, spoken

#: Cells with a published number that are shown one by one, and tables that are.
MOST_CELLS, MOST_TABLES = 6, 4
#: Budgets that are advised, the next larger one.
BUDGETS = {"30m": 1800.0, "2h": 7200.0, "8h": 28800.0, "24h": 86400.0, "72h": 259200.0}
#: Data sets that are named in one command.
MOST_DATA = 4
FOLDER = "tables"


@dataclass(frozen=True)
class Closing:
    """What a command knows when its runs are over.

    Attributes:
        catalog: The declarations.
        store: Both results folders, read anew.
        plan: What was planned.
        summary: What became of it.
        command: What was typed after ``dgm-bench run``, without a budget and seeds.
        replan: Returns the plan of the same command with another budget.
        seconds: How long it took.
    """

    catalog: Catalog
    store: Store
    plan: Plan
    summary: RunSummary
    command: Sequence[str]
    replan: Callable[[str], Plan]
    seconds: float

    @property
    def cells(self) -> dict[str, Cell]:
        """The cells that the command's runs served, by their ids."""
        done = {(r.recipe_hash, r.seed) for r in (*self.summary.finished, *self.summary.failed)}
        ran = [
            run
            for run in self.plan.runs
            if run.recipe is not None and (run.recipe.content_hash, run.seed) in done
        ]
        names = dict.fromkeys(cell for run in ran for cell in run.cells)
        return {cell.id: cell for cell in self.catalog.cells if cell.id in names}

    # ---------------------------------------------------------------- yours, ours, published

    def tables(self) -> list[Table]:
        """Return the tables that the command's runs bear on."""
        names = dict.fromkeys(f"{cell.paper}/{cell.table}" for cell in self.cells.values())
        return [self.catalog.table(name) for name in names]

    def judged(self, tables: Iterable[Table]) -> dict[str, Verdict]:
        """Return the verdicts of all cells of tables."""
        cells = [cell for table in tables for cell in table.cells]
        found, reasons = queries.verdicts_of(self.catalog, cells, self.store), self.plan.reasons()
        idle = [cell for cell in cells if found[cell.id].state == "not-run" and cell.id in reasons]
        return found | {cell.id: not_run(cell, reasons[cell.id]) for cell in idle}

    def compared(self, tables: Sequence[Table], verdicts: Mapping[str, Verdict]) -> Grid:
        """Return a few lines: cells with all three numbers, then how many of each table."""
        grid = Grid.grid(padding=(0, 2))
        grid.add_row(*(Text(name, style="bold") for name in ("", "yours", "ours", "published")))
        published = [cell for cell in self.cells.values() if cell.published is not None]
        numbers = [b for b in beside_stored(published, self.store) if b.cell.column.unit != YES_NO]
        for found in numbers[:MOST_CELLS]:
            grid.add_row(*_three(found, verdicts[found.cell.id]))
        for table in tables[:MOST_TABLES]:
            grid.add_row(*self._counts(table, verdicts))
        return grid

    def _counts(self, table: Table, verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
        """Return how many numbers of a table are yours, ours and published, and what became."""
        whole = [r for r in self.store.records() if not (r.modified or r.outcome.cut_short)]
        own = {r.recipe_hash for r in whole if self.store.is_own(r)}
        own = own or {r.recipe_hash for r in self.summary.finished}
        ours = {r.recipe_hash for r in whole if not self.store.is_own(r)}
        hashes = [cell.recipe.content_hash for cell in table.cells if cell.recipe is not None]
        printed = [cell for cell in table.cells if cell.published and not cell.repeats]
        states = Counter(verdicts[cell.id].state for cell in printed)
        found = ", ".join(
            f"{states[s]} {spoken(s)}" for s in STATES if states[s] and s != "not-run"
        )
        return (
            table.name,
            counted(sum(known in own for known in hashes), "cell"),
            counted(sum(known in ours for known in hashes), "cell"),
            counted(len(printed), "number")
            + (f": {found}" if found else ", none tried") * bool(printed),
        )

    # ---------------------------------------------------------------- what to type next

    def advice(self, verdicts: Mapping[str, Verdict]) -> Iterator[tuple[str, str]]:
        """Yield commands, each with what it does."""
        chosen = (self._more_time(), self._more_seeds(verdicts), self._more_data())
        yield from (advised for advised in chosen if advised is not None)
        patterns = [table.name for table in self.tables()]
        if patterns:
            command = shlex.join(["dgm-bench", "table", patterns[0], *self._where])
            yield command, "the whole table, with every reason"

    @property
    def _where(self) -> Sequence[str]:
        """The words of the command that name the results."""
        at = list(self.command).index("--results") if "--results" in self.command else None
        return () if at is None else self.command[at : at + 2]

    def _run(self, *options: str) -> str:
        return shlex.join(["dgm-bench", "run", *self.command, *options])

    def _more_time(self) -> tuple[str, str] | None:
        """Return the next larger budget in which more runs end on this machine."""
        limit = self.plan.budget_seconds
        if limit is None or not any(run.waits for run in self.plan.runs):
            return None
        for text, seconds in BUDGETS.items():
            more = len(self.replan(text).chosen) - len(self.plan.chosen) if seconds > limit else 0
            if more > 0:
                return self._run("--budget", text), f"{counted(more, 'run')} more"
        return None

    def _more_seeds(self, verdicts: Mapping[str, Verdict]) -> tuple[str, str] | None:
        """Return what decides an inconclusive cell of this command with the fewest seeds."""
        judged = (verdicts[cell_id] for cell_id in self.cells if cell_id in verdicts)
        open_ = [v for v in judged if v.more_seeds and v.state == "inconclusive"]
        few = min(open_, key=lambda verdict: verdict.more_seeds or 0, default=None)
        if few is not None and (needs := self._budget_of(few)) is not None:
            seeds = few.seeds + (few.more_seeds or 0)
            words = [few.cell, "--seeds", str(seeds), "--missing", "--budget", needs]
            command = shlex.join(["dgm-bench", "run", *words, *self._where])
            return command, "should decide that cell"
        single = [run for run in self.plan.chosen if run.seconds and not run.chosen_recipe.fitted]
        if not single or max(run.seed for run in self.plan.chosen):
            return None
        needs = self._budget(2 * self.plan.expected_end_seconds)
        if needs is None:
            return None
        return self._run("--seeds", "3", "--budget", needs), "the spread over seeds"

    def _budget_of(self, verdict: Verdict) -> str | None:
        """Return a budget for the seeds that should decide a cell."""
        known = (run.seconds for run in self.plan.runs if verdict.cell in run.cells)
        seconds = next((seconds for seconds in known if seconds is not None), None)
        more = verdict.more_seeds or 0
        return None if seconds is None else self._budget(1.25 * seconds * more)

    def _budget(self, seconds: float) -> str | None:
        return next((text for text, limit in BUDGETS.items() if limit >= seconds), None)

    def _more_data(self) -> tuple[str, str] | None:
        """Return what fetches data that most runs lack."""
        lacking = Counter(
            run.command.rpartition(" ")[2]
            for run in self.plan.left_out
            if run.command.startswith("dgm-bench data fetch ")
        )
        if not lacking:
            return None
        names = [name for name, _ in lacking.most_common(MOST_DATA)]
        count = sum(lacking[name] for name in names)
        return f"dgm-bench data fetch {' '.join(names)}", f"data of {counted(count, 'run')} more"

    # ---------------------------------------------------------------- the last line

    def last_line(self) -> str:
        """Return how many runs there were, what became of them, and how it goes on."""
        summary = self.summary
        whole = [record for record in summary.finished if not record.outcome.cut_short]
        new = {record.run_id for record in summary.new}
        before = sum(record.run_id not in new for record in whole)
        counts = {
            "done": len(whole),
            "done before": before,
            "unfinished": summary.cut_short,
            "failed": len(summary.failed) + len(summary.lost),
            "cancelled": len(summary.cancelled),
            "not begun": len({*_ids(self.plan.chosen)} & {cell for cell, _ in summary.left_out}),
        }
        if before:
            counts["done"] -= before
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing done"
        goes_on = summary.cut_short or summary.cancelled or summary.interrupted
        return f"{told} in {duration(self.seconds)}" + (
            "; the same command goes on" if goes_on else ""
        )


def _three(found: Beside, verdict: Verdict) -> tuple[str, ...]:
    """Return a cell's name, and its number as it is yours, ours and published."""
    cell = found.cell
    published = f"{published_text(cell)} {cell.column.unit}  {spoken(verdict.state)}"
    name = f"{cell.row.title}, {cell.column.title}"
    yours, stored = (side_text(cell, side) or "-" for side in (found.yours, found.stored))
    return (name, yours, stored, published)


def _ids(runs: Iterable[PlannedRun]) -> Iterator[str]:
    return (run.cell.id for run in runs)


def write_tables(
    tables: Iterable[Table], verdicts: Mapping[str, Verdict], results: Path
) -> list[Path]:
    """Write tables as text into the user's results folder; return the files.

    Raises:
        ResultsError: They cannot be written.
    """
    paths = []
    for table in tables:
        path = results / FOLDER / f"{table.name.replace('/', '-')}.txt"
        write_atomically(path, render_table(table, verdicts, "text").encode())
        paths.append(path)
    return paths


def show_closing(
    closing: Closing, say: Callable[[RenderableType], None], results: Path, *, stopped: bool
) -> None:
    """Print the last lines of a command, having written the whole tables to files.

    Args:
        closing: What it knows.
        say: Prints.
        results: The user's own folder.
        stopped: Whether it has to leave at once: then the very last line alone.
    """
    tables = [] if stopped else closing.tables()
    if tables:
        verdicts = closing.judged(tables)
        say(Text())
        say(closing.compared(tables, verdicts))
        paths = write_tables(tables, verdicts, results)
        where = shown(paths[0] if len(paths) == 1 else paths[0].parent)
        say(Text(f"Whole tables, with verdicts and reasons: {where}", style="dim"))
        say(Text("Next:"))
        for command, does in closing.advice(verdicts):
            say(Text(f"  {command}", style="cyan").append(f"  # {does}", style="dim"))
    say(Text(closing.last_line(), style="bold"))
