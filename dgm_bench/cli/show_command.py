"""The verb ``show``: everything about one cell."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench.cli import completion
from dgm_bench.cli.options import (
    collecting_seldom,
    data_root_option,
    examples,
    json_option,
    print_json,
    results_option,
    stored_option,
    strict_option,
)
from dgm_bench.errors import UsageError
from dgm_bench.escaping import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dgm_bench.catalog import Catalog
    from dgm_bench.spec import Cell
    from dgm_bench.store import Store


@click.command(
    short_help="Everything about one cell.",
    epilog=examples(
        "dgm-bench show ffjord/density/maf-5/bsds300-patches",
        "dgm-bench show maf-5/power",
        "dgm-bench show ffjord/vi/iaf/caltech --json",
    ),
)
@click.argument("name", metavar="CELL", shell_complete=completion.cells)
@data_root_option
@results_option(read=True)
@stored_option
@strict_option
@json_option
@collecting_seldom()
def show(
    name: str, data_root: Path, results: Path, stored: Path | None, strict: bool, as_json: bool
) -> None:
    """Show everything about one cell on one screen.

    Its published number with source and meaning, recipe, cost, records, verdict with the interval
    drawn against its margin, what would decide it, and the command that runs it. The end of a name
    is enough where one cell alone has it. Of several cells it lists them, and exits with 2.
    """
    from dgm_bench import console
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli.cell_facts import facts_json, look_at
    from dgm_bench.context import RunContext
    from dgm_bench.store import Store

    catalog, store = load_catalog(), Store(results, stored, strict=strict)
    cells = _meant(catalog, name)
    if len(cells) > 1:
        _list(catalog, cells, store)
        reason, nearest = f"matches {len(cells)} cells", cells[0].id
        raise UsageError(name, reason, f"name one of them, such as {nearest}")
    facts = look_at(cells[0], catalog, store, RunContext(data_root, results, stored, offline=True))
    if as_json:
        print_json(facts_json(facts))
        return
    from dgm_bench.cli.show_view import show_view

    console.make_console().print(show_view(facts))


def _meant(catalog: Catalog, name: str) -> Sequence[Cell]:
    """Return the cells that a name means: whole, a pattern, or the end of it.

    Raises:
        UsageError: There is none; says which is near.
    """
    for pattern in (name, f"*/{name}"):
        found = [cell for cell in catalog.cells if fnmatchcase(cell.id, pattern)]
        if found:
            return found
    return catalog.named(name)


def _list(catalog: Catalog, cells: Sequence[Cell], store: Store) -> None:
    """List cells with their numbers and states."""
    from dgm_bench import console
    from dgm_bench.cli import queries

    verdicts = queries.verdicts_of(catalog, cells, store)
    pairs = [(cell, verdicts[cell.id]) for cell in cells]
    console.make_console().print(console.cells_view(pairs, shown(store.results)))
