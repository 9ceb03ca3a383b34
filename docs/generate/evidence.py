"""What the site's pages are made of: declarations, stored records and their verdicts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from dgm_bench.catalog import Catalog, load_catalog
from dgm_bench.report.figures import write_figures
from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.report.tables import Format, render_table
from dgm_bench.report.time_to_quality import times_of
from dgm_bench.spec import Cell, Table
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, Verdict, judge_claims, judge_table, pool_variances
from dgm_bench.wording import STATES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
README = ROOT / "README.md"


@cache
def catalog() -> Catalog:
    """Return all declarations."""
    return load_catalog(ROOT / "reproductions")


@cache
def store() -> Store:
    """Return the stored records: those that come with the suite, and no others."""
    return Store(RESULTS)


@cache
def pool() -> Pool:
    """Return how much seeds usually differ."""
    return pool_variances(store().records())


@cache
def verdicts() -> Mapping[str, Verdict]:
    """Return the verdict of every cell."""
    judged = (judge_table(table, store(), pool()) for table in catalog().tables)
    return {cell: verdict for table in judged for cell, verdict in table.items()}


def table_markdown(table: Table) -> str:
    """Return a table as ``dgm-bench table --format markdown`` prints it, without its heading."""
    return numbers(rendered(table, "markdown").split("\n", 1)[1].strip())


def rendered(table: Table, format: Format) -> str:
    """Return a table as ``dgm-bench table`` prints it from the stored records alone."""
    times = times_of(table.cells, verdicts(), store())
    claims = judge_claims(table, store(), pool())
    return render_table(table, verdicts(), format, times=times, claims=claims)


def write_part(begin: str, end: str, text: str) -> None:
    """Write a part of the project's README anew, between the lines that mark it."""
    before, rest = README.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def numbers(text: str) -> str:
    """Return Markdown whose tables keep each number on its line, and scroll where they are wide."""
    return f'<div class="numbers" markdown>\n\n{text}\n\n</div>'


@cache
def figures() -> Mapping[str, bytes]:
    """Return all figures by file name: those made of records here, the others as stored."""
    found = {path.name: path.read_bytes() for path in sorted((RESULTS / "figures").glob("*.png"))}
    with tempfile.TemporaryDirectory() as folder:
        drawn = write_figures(Path(folder), catalog=catalog(), store=store())
        return found | {path.name: path.read_bytes() for path in drawn}


def figures_of(name: str) -> list[str]:
    """Return the files of the figures of a paper (``ffjord``) or table (``ffjord/density``)."""
    start = name.replace("/", "-") + "-"
    return [file for file in figures() if file.startswith(start)]


def lines_of(cells: Sequence[Cell]) -> list[str]:
    """Return a line of a Markdown table for each cell with a published or a measured number."""
    lines = []
    for cell in cells:
        verdict = verdicts()[cell.id]
        published, measured = published_text(cell), measured_text(cell, verdict)
        if published or measured:
            link = f"[`{cell.id}`](../papers/{cell.paper}.md#{anchor(cell)})"
            unit = cell.column.unit
            state = f"{STATES[verdict.state].mark} {verdict.state}"
            lines.append(f"| {link} | {published} | {measured} | {unit} | {state} |")
    return lines


def anchor(cell: Cell) -> str:
    """Return the anchor of a cell's table on the page of its paper."""
    return f"{cell.paper}-{cell.table}"
