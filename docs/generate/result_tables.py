"""The tables of ``results/tables`` and the README's table of judged numbers, from stored records.

``python docs/generate/result_tables.py`` writes them anew, in a few seconds. Each table is there
as ``dgm-bench table`` prints it from the stored records alone: Markdown to read, CSV to compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import evidence
import hours_table

from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.spec import YES_NO, Cell, Table
from dgm_bench.wording import STATES

FOLDER = evidence.RESULTS / "tables"
BEGIN, END = "<!-- verdicts: begin -->\n", "<!-- verdicts: end -->\n"
#: States of numbers that no complete run stands behind.
UNTRIED = frozenset({"not-run", "unfinished"})


def files() -> Mapping[str, str]:
    """Return what belongs into ``results/tables``, by file name."""
    found = {"README.md": overview(), "hours.md": hours_table.page()}
    for table in evidence.catalog().tables:
        name = table.name.replace("/", "-")
        found[f"{name}.md"] = evidence.rendered(table, "markdown").rstrip("\n") + "\n"
        found[f"{name}.csv"] = evidence.rendered(table, "csv").rstrip("\n") + "\n"
    return found


def overview() -> str:
    """Return the list of tables, with how many published numbers are in which state."""
    states = [state for state in STATES if any(_states(t)[state] for t in _tables())]
    head = ["table", "published", *states, "columns of ours"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for table in _tables():
        counts = [str(_states(table)[state] or "") for state in states]
        name = table.name.replace("/", "-")
        of_paper, ours = sum(_states(table).values()), _measured_of_ours(table)
        row = [f"[`{table.name}`]({name}.md) ([csv]({name}.csv))", str(of_paper or "")]
        lines.append(f"| {' | '.join([*row, *counts, ours])} |")
    return f"{INTRODUCTION}\n" + "\n".join(lines) + "\n"


INTRODUCTION = """# Tables

All tables as the stored records make them; `python docs/generate/result_tables.py` writes them
anew. Of the numbers that a paper prints: how many are in which state. Columns of ours: numbers
measured, of those declared. [Hours](hours.md): what the runs were planned to take, and took.
"""


def _tables() -> tuple[Table, ...]:
    return tuple(evidence.catalog().tables)


def _states(table: Table) -> Counter[str]:
    return Counter(evidence.verdicts()[cell.id].state for cell in _printed(table))


def _printed(table: Table) -> list[Cell]:
    return [cell for cell in table.cells if cell.published and not cell.repeats]


def _measured_of_ours(table: Table) -> str:
    ours = [cell for cell in table.cells if not cell.published and not cell.repeats]
    measured = sum(evidence.verdicts()[cell.id].mean is not None for cell in ours)
    return f"{measured} of {len(ours)}" if ours else ""


# --------------------------------------------------------------------------- the README


def judged() -> str:
    """Return the table of published numbers that complete runs stand behind, and the rest."""
    lines = ["| number | published | measured here | seeds | verdict |", "| --- |" + " --- |" * 4]
    lines += [line for table in _tables() for line in _judged(table)]
    tried = [c for t in _tables() for c in _printed(t) if _state(c) not in UNTRIED]
    counts = Counter(map(_state, tried))
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    total = sum(len(_printed(table)) for table in _tables())
    rest = f"Of {total} published numbers complete runs have tried {len(tried)}: {said}."
    return "\n".join(lines) + f"\n\n{rest}\n"


def _judged(table: Table) -> Iterator[str]:
    tried = [cell for cell in _printed(table) if _state(cell) not in UNTRIED]
    properties = [cell for cell in tried if cell.column.unit == YES_NO]
    for cell in tried:
        if cell not in properties:
            verdict = evidence.verdicts()[cell.id]
            unit = cell.column.unit
            numbers = f"{published_text(cell)} {unit} | {measured_text(cell, verdict)}"
            state = f"{STATES[verdict.state].mark} {verdict.state}"
            yield f"| `{cell.id}` | {numbers} | {verdict.seeds} | {state} |"
    if properties:
        as_published = sum(_state(cell) == "reproduced" for cell in properties)
        state = f"{as_published} as published"
        yield f"| `{table.name}`, {len(properties)} properties | yes or no | | | {state} |"


def _state(cell: Cell) -> str:
    return evidence.verdicts()[cell.id].state


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    table = judged()
    evidence.write_part(BEGIN, END, table)
    print(table)
