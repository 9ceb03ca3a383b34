"""The table of times, disk and cost in the README.

``python docs/generate/costs_table.py`` writes it anew, in a few seconds, and prints it. Hours of
one core are those of the stored runs, hours of an H200 those of ``dgm-bench plan --on 1xh200``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import evidence

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.data import card
from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import GPU_PRICE, parse_fleet
from dgm_bench.planner.outlook import outlook, plan_on
from dgm_bench.spec import Cell, Table

BEGIN, END = "<!-- costs: begin -->\n", "<!-- costs: end -->\n"
HEAD = (
    "table",
    "recipes",
    "without a download",
    "of these, on one core",
    "all, on one H200",
    "at 2 an hour",
    "downloads",
)


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows: each table, those of folders of images that the user has apart."""
    for table in load_catalog().tables:
        built = [cell for cell in table.cells if cell.recipe is not None]
        theirs = [cell for cell in built if card(cell.column.data).layout]
        yield row(f"`{table.name}`", [cell for cell in built if cell not in theirs])
        if theirs:
            yield row(f"`{table.name}`, {_titles(table, theirs)}", theirs)


def _titles(table: Table, cells: Sequence[Cell]) -> str:
    return ", ".join(sorted({cell.column.data for cell in cells}))


def row(title: str, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return what the recipes of some cells take, with one seed each."""
    free = [cell for cell in cells if not card(cell.column.data).files]
    fleet = parse_fleet("1xh200")
    planned = plan_on(cells, fleet, runnable)
    hours = outlook(planned, fleet, Faults(), price=GPU_PRICE).hours
    return (
        title,
        str(_recipes(cells)),
        str(_recipes(free)),
        _measured(free),
        _time(hours),
        f"{hours * GPU_PRICE:,.0f}" if hours * GPU_PRICE >= 1 else "below 1",
        _downloads(cells),
    )


def _recipes(cells: Sequence[Cell]) -> int:
    return len({cell.recipe.content_hash for cell in cells if cell.recipe is not None})


def _measured(cells: Sequence[Cell]) -> str:
    """Return what the stored runs of recipes took, each recipe's median over its seeds."""
    spent: dict[str, list[float]] = {}
    for cell in cells:
        for run in evidence.store().for_cell(cell):
            seconds = run.budget.seconds * run.environment.threads
            spent.setdefault(run.recipe_hash, []).append(seconds)
    if not spent:
        return ""
    said = _time(sum(map(statistics.median, spent.values())) / 3600)
    return said if len(spent) == _recipes(cells) else f"{said} for {len(spent)}"


def _time(hours: float) -> str:
    if hours < 1:
        return f"{max(60 * hours, 1):.0f} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def _downloads(cells: Sequence[Cell]) -> str:
    """Return the bytes of the files that are fetched, each once."""
    cards = [card(cell.column.data) for cell in cells]
    if any(known.layout for known in cards):
        return "a folder of yours"
    sizes = {item.path: item.size for known in cards for item in known.downloads}
    total = sum(sizes.values())
    if not total:
        return "none"
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:,.0f} MB"


def table() -> str:
    """Return the table as it stands in the README."""
    lines = [f"| {' | '.join(HEAD)} |", "| --- |" + " --- |" * (len(HEAD) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in rows())]) + "\n"


if __name__ == "__main__":
    text = table()
    evidence.write_part(BEGIN, END, text)
    print(text)
