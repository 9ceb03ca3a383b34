"""The verbs that only read: list, plan, table, report, doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import (
    collecting_seldom,
    data_root_option,
    examples,
    fleet_options,
    jobs_option,
    json_option,
    planning_options,
    print_json,
    results_option,
    stored_option,
    strict_option,
    typed,
)
from dgm_bench.errors import UsageError
from dgm_bench.escaping import shown

if TYPE_CHECKING:
    from dgm_bench.context import RunContext
    from dgm_bench.report.tables import Format
    from dgm_bench.spec import Table
    from dgm_bench.store import Store
    from dgm_bench.verdict import Verdict

TABLE_FORMATS = ("text", "markdown", "csv", "json", "latex")


@click.command(
    "list",
    short_help="Cells, published and measured numbers, states.",
    epilog=examples(
        "dgm-bench list",
        "dgm-bench list 'ffjord/density/*/power'",
        "dgm-bench list 'ffjord/vi/*' --json",
    ),
)
@completion.pattern_argument
@results_option(read=True)
@stored_option
@strict_option
@json_option
@collecting_seldom()
def list_cells(
    pattern: Sequence[str], results: Path, stored: Path | None, strict: bool, as_json: bool
) -> None:
    """List cells with their published numbers, measured numbers and states."""
    from dgm_bench import console
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli import queries
    from dgm_bench.store import Store

    catalog = load_catalog()
    cells = catalog.select(*(pattern or ("*",)))
    verdicts = queries.verdicts_of(catalog, cells, Store(results, stored, strict=strict))
    if as_json:
        print_json({"cells": [queries.cell_json(cell, verdicts[cell.id]) for cell in cells]})
    else:
        pairs = [(cell, verdicts[cell.id]) for cell in cells]
        console.make_console().print(console.cells_view(pairs, shown(results)))


@click.command(
    short_help="What would run, and what every cell takes.",
    epilog=examples(
        "dgm-bench plan",
        "dgm-bench plan 'ffjord/density/*/bsds300-patches' --budget 2h --seeds 3",
        "dgm-bench plan 'ffjord/*' --jobs 4",
        "dgm-bench plan 'vqvae2/*/*/imagenet-256*' --on 64xh200",
        "dgm-bench plan --json",
    ),
)
@completion.pattern_argument
@planning_options
@jobs_option
@fleet_options
@click.option("--all", "everything", is_flag=True, help="Also every run that does not run.")
@data_root_option
@results_option(read=True)
@stored_option
@strict_option
@json_option
@collecting_seldom()
def plan(
    pattern: Sequence[str],
    seeds: int,
    missing: bool,
    budget: str,
    device: str,
    jobs: int | None,
    on: str | None,
    mtbf: str,
    preempt_every: str,
    restart: str,
    price: float | None,
    data_root: Path,
    results: Path,
    stored: Path | None,
    strict: bool,
    as_json: bool,
    everything: bool,
) -> None:
    """Show what would run; with --all, what every other cell would take, too.

    Says for each the state of its data, the expected time and memory, and why it does not run.
    With --on, what all of it would take on a machine that is not here, data that is missing here
    or not: hours, cost and what bounds it, from many draws of failures and preemptions.
    """
    from dgm_bench import console
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli import queries
    from dgm_bench.context import RunContext
    from dgm_bench.store import Store

    if on is None:
        for name in ("price", "mtbf", "preempt_every", "restart"):
            if typed(name, True):
                remedy = "add --on MACHINE, or leave it out"
                raise UsageError(f"--{name.replace('_', '-')}", "is of a machine elsewhere", remedy)
    cells = load_catalog().select(*(pattern or ("*",)))
    store = Store(results, stored, strict=strict)
    if on is not None:
        from dgm_bench.cli import elsewhere

        elsewhere.require_here(typed("budget", budget) or "auto")
        asked = elsewhere.Elsewhere(on, mtbf, preempt_every, restart, price)
        done = queries.complete_runs(cells, store) if missing else ()
        there, found = asked.look(cells, typed("jobs", jobs), seeds, done)
        if as_json:
            print_json(elsewhere.outlook_json(there, found))
        else:
            from dgm_bench.screen import width_and_colour

            streams.say(elsewhere.outlook_text(found, asked, width_and_colour()[0]))
        return
    context = RunContext(data_root, results, stored, device=device, offline=True)
    planned = queries.make_plan(
        cells, context, store, budget=budget, seeds=seeds, missing=missing, jobs=jobs
    )
    if as_json:
        print_json(queries.plan_json(planned))
    else:
        view = console.plan_view if everything else console.plan_brief
        console.make_console().print(view(planned))
        streams.say(f"New results go to {shown(results)}.")


@click.command(
    short_help="A paper's table, published against measured.",
    epilog=examples(
        "dgm-bench table ffjord/density",
        "dgm-bench table --paper ffjord",
        "dgm-bench table ffjord/vi --format markdown",
        "dgm-bench table ffjord/density --format latex > table.tex",
    ),
)
@click.argument("name", metavar="[TABLE]", required=False, shell_complete=completion.tables)
@click.option(
    "--paper",
    metavar="NAME",
    shell_complete=completion.papers,
    help="All tables of a paper, in place of TABLE.",
)
@click.option(
    "--format", "style", type=click.Choice(TABLE_FORMATS), default="text", show_default=True
)
@data_root_option
@results_option(read=True)
@stored_option
@strict_option
@collecting_seldom()
def table(
    name: str | None,
    paper: str | None,
    style: Format,
    data_root: Path,
    results: Path,
    stored: Path | None,
    strict: bool,
) -> None:
    """Print a paper's table: published against measured, with a verdict for each number.

    A cell that was not run shows why, and the command that would run it. All tables of a paper
    come in declared order; as JSON they are one object, by table.
    """
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli import queries
    from dgm_bench.context import RunContext
    from dgm_bench.store import Store

    if (name is None) == (paper is None):
        remedy = "name a TABLE, such as ffjord/density, or --paper ffjord"
        raise UsageError("dgm-bench table", "takes either a table or a paper", remedy)
    catalog = load_catalog()
    tables = catalog.paper(paper).tables if paper is not None else (catalog.table(name or ""),)
    context = RunContext(data_root, results, stored, offline=True)
    store = Store(results, stored, strict=strict)
    cells = [cell for chosen in tables for cell in chosen.cells]
    verdicts = queries.verdicts_of(catalog, cells, store)
    texts = {
        chosen.name: _rendered(
            chosen, style, verdicts | _idle(chosen, verdicts, context, store), store
        )
        for chosen in tables
    }
    if paper and style == "json":
        print_json({table: json.loads(text) for table, text in texts.items()})
    else:
        streams.show("\n\n".join(texts.values()))


def _idle(
    chosen: Table, verdicts: Mapping[str, Verdict], context: RunContext, store: Store
) -> dict[str, Verdict]:
    """Return a table's cells that were not run, with the plan's reason for each."""
    from dgm_bench.cli import queries
    from dgm_bench.verdict import not_run

    idle = [cell for cell in chosen.cells if verdicts[cell.id].state == "not-run"]
    reasons = queries.make_plan(idle, context, store).reasons()
    return {cell.id: not_run(cell, reasons.get(cell.id, "")) for cell in idle}


def _rendered(chosen: Table, style: Format, verdicts: Mapping[str, Verdict], store: Store) -> str:
    """Return a table as it is printed."""
    from dgm_bench.report.tables import render_table
    from dgm_bench.report.time_to_quality import times_of
    from dgm_bench.screen import fitting, width_and_colour
    from dgm_bench.verdict import judge_claims, pool_variances

    times = times_of(chosen.cells, verdicts, store)
    width, colour = width_and_colour()
    own = shown(store.results)
    text = render_table(
        chosen,
        verdicts,
        style,
        width=width,
        colour=colour,
        times=times,
        own=own,
        fit=fitting,
        claims=judge_claims(chosen, store, pool_variances(store.records()))
        if chosen.claims
        else (),
    )
    return text.rstrip("\n")


@click.command(
    short_help="Write one self-contained HTML page.",
    epilog=examples(
        "dgm-bench report -o report.html",
        "dgm-bench report -o power.html 'ffjord/density/*/power'",
        "dgm-bench report -o report.html --paper ffjord --figures figures",
    ),
)
@completion.pattern_argument
@click.option(
    "--paper", metavar="NAME", shell_complete=completion.papers, help="Show the cells of one paper."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The page to write.",
)
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write the tables' figures there, as PNG.",
)
@results_option(read=True)
@stored_option
@strict_option
@collecting_seldom()
def report(
    output: Path,
    pattern: Sequence[str],
    paper: str | None,
    figures: Path | None,
    results: Path,
    stored: Path | None,
    strict: bool,
) -> None:
    """Write one self-contained HTML page: tables, verdicts, curves, pictures.

    It shows all cells, or those whose ids match a PATTERN or that are of a paper. A link to a
    cell is the page's address with #paper/table/row/column.
    """
    from dgm_bench.catalog import load_catalog
    from dgm_bench.report.figures import write_figures
    from dgm_bench.report.page import write_report
    from dgm_bench.sealed import require_writable
    from dgm_bench.store import Store

    catalog = load_catalog()
    asked = [*pattern, *([f"{catalog.paper(paper).id}/*"] if paper is not None else [])]
    chosen = {cell.id for cell in catalog.select(*asked)} if asked else None
    for file in (output, *([figures / "figure.png"] if figures else [])):
        require_writable(file)
    store = Store(results, stored, strict=strict)
    write_report(output, catalog=catalog, store=store, chosen=chosen)
    streams.say(f"wrote {output}")
    if figures:
        for path in write_figures(figures, catalog=catalog, store=store, chosen=chosen):
            streams.say(f"wrote {path}")


@click.command(
    short_help="What this machine can do, and what is missing.", epilog=examples("dgm-bench doctor")
)
@data_root_option
@results_option()
@stored_option
def doctor(data_root: Path, results: Path, stored: Path | None) -> None:
    """Say what this machine can do, and what is missing."""
    from dgm_bench import console
    from dgm_bench.doctor import checks

    rows = [(c.name, c.state, c.detail, c.remedy) for c in checks(results, stored, data_root)]
    console.make_console().print(console.checks_view(rows))
