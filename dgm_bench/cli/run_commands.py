"""The verbs that change something: run, sync."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import (
    INTERRUPTED,
    data_root_option,
    engine_options,
    examples,
    planning_options,
    results_option,
    root_of,
    setting,
    stored_option,
    strict_option,
    tracker_option,
    typed,
    work_option,
)
from dgm_bench.cli.prefix_option import compare_prefixes, number_of_seeds, prefix_option
from dgm_bench.errors import UsageError
from dgm_bench.escaping import shown
from dgm_bench.wording import counted

#: More than any machine has cores; with very many, libraries end the process.
MOST_THREADS = 1024
#: More than any run can be divided into.
MOST_DEVICES = 1024

if TYPE_CHECKING:
    from dgm_bench.catalog import Catalog
    from dgm_bench.spec import Cell


@click.command(
    short_help="Train, evaluate and record; resumes.",
    epilog=examples(
        "dgm-bench run 'ffjord/*'",
        "dgm-bench run ffjord/density/maf-5/digits --seeds 3 --budget none",
        "dgm-bench run 'ffjord/density/*/mnist' --device cuda --time-limit 55m",
        "dgm-bench run ffjord/density/made/digits --set optimizer.lr=1e-3",
        "dgm-bench run ffjord/density/maf-5/digits --prefix 5%",
    ),
)
@completion.pattern_argument
@click.option(
    "--paper",
    metavar="NAME",
    shell_complete=completion.papers,
    help="All cells of a paper; with PATTERN those that it matches.",
)
@planning_options
@click.option(
    "--time-limit",
    metavar="TIME",
    help="Checkpoint and leave after this time; the same command continues from there.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    metavar="N",
    show_default="torch's choice",
    help="CPU threads.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, MOST_DEVICES),
    default=1,
    metavar="N",
    show_default=True,
    help="GPUs of this machine, or processes where there are none, that compute each run "
    "together, with the recipe's batch.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(1, MOST_DEVICES),
    default=1,
    metavar="N",
    show_default=True,
    help="Compute each batch in so many parts, where it does not fit in memory.",
)
@engine_options
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe, such as optimizer.lr=1e-4. Marks the record as modified: verdicts "
    "do not use it.",
)
@prefix_option
@click.option("--offline", is_flag=True, help="Download nothing.")
@tracker_option
@click.option("--no-tracking", is_flag=True, help="As --tracker none.")
@click.option("-q", "--quiet", is_flag=True, help="Print what fails, and the last lines.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and do nothing.")
@data_root_option
@results_option()
@stored_option
@work_option
@strict_option
@click.pass_context
def run(
    command: click.Context,
    pattern: Sequence[str],
    paper: str | None,
    seeds: int,
    missing: bool,
    budget: str,
    device: str,
    time_limit: str | None,
    threads: int | None,
    devices: int,
    accumulate: int,
    engine: str,
    jobs: int | None,
    partition: str | None,
    address: str | None,
    engine_settings: Mapping[str, str],
    settings: Sequence[str],
    prefix: float | None,
    offline: bool,
    tracker: str,
    no_tracking: bool,
    quiet: bool,
    dry_run: bool,
    data_root: Path,
    results: Path,
    stored: Path | None,
    strict: bool,
) -> None:
    """Train, evaluate and record; continue what was interrupted.

    Exits with 0 when every cell that was planned to run finished, 1 when one failed, 2 for a
    wrong command or file, 130 when interrupted, after a checkpoint. A run that --time-limit or
    --budget cut short is unfinished, which is no failure: the last line says how many there are.
    With --prefix it exits with 1 when a recipe left the band of its stored runs.
    """
    from dgm_bench import console, planner
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli import queries
    from dgm_bench.cli.closing import Closing, show_closing
    from dgm_bench.context import RunContext
    from dgm_bench.control import Control
    from dgm_bench.overrides import change_cells
    from dgm_bench.progress import make_reporter
    from dgm_bench.run_rows import StoredNumbers
    from dgm_bench.store import Store

    limit = planner.parse_duration(time_limit, "--time-limit") if time_limit else None
    overrides = dict(setting("--set", text) for text in settings)
    catalog = load_catalog()
    cells = change_cells(_chosen(catalog, pattern, paper), overrides)

    from dgm_bench.engines.choice import Choice, make_engine
    from dgm_bench.runner import run_plan
    from dgm_bench.team import follows_another

    if engine != "local" and command.get_parameter_source("jobs") is ParameterSource.ENVIRONMENT:
        jobs = None  # the variable is for the pool
    if engine == "local" and devices > 1:
        jobs = jobs or 1  # each run takes several devices
    choice = Choice(engine, jobs, partition, address, engine_settings)
    choice.require_meaning()
    if no_tracking and typed("tracker", tracker) not in (None, "none"):
        raise UsageError(f"--tracker {tracker}", "contradicts --no-tracking", "leave out one")
    context = RunContext(
        data_root,
        results,
        stored,
        device=choice.device(device),
        threads=threads,
        offline=offline,
        track=not no_tracking and tracker != "none",
        tracker=tracker,
        devices=devices,
        accumulate=accumulate,
        control=Control(limit),
    )
    if follows_another(context):
        return
    store = Store(results, stored, strict=strict)
    if prefix is not None:
        number, quiet = number_of_seeds(command, seeds), quiet or root_of(command).quiet
        command.exit(compare_prefixes(cells, prefix, number, context, store, quiet=quiet))

    def make_plan(budget: str) -> planner.Plan:
        return queries.make_plan(
            cells,
            context,
            store,
            budget=budget,
            seeds=seeds,
            missing=missing,
            jobs=jobs if engine == "local" else 1,  # on a cluster they do not share a machine
            memory_bytes=choice.memory_bytes(),
        )

    planned = make_plan(budget)
    if dry_run:
        console.make_console().print(console.plan_brief(planned))
        return
    if planned.is_done:
        streams.say(f"Nothing is missing: {counted(len(planned.runs), 'run')} complete already.")
        return
    began, quiet = time.monotonic(), quiet or root_of(command).quiet
    with make_reporter(StoredNumbers(store), streams.without_output, quiet=quiet) as reporter:
        context = replace(context, reporter=reporter)
        summary = run_plan(planned, context, make_engine(choice, context, planned.machine))
    now = Store(results, stored, strict=strict)
    words = [*(pattern or ("--paper", paper or "")), *_repeated(command, settings)]
    seconds = time.monotonic() - began
    closing = Closing(catalog, now, planned, summary, words, make_plan, seconds)
    stopped = context.control.stop_reason() is not None
    show_closing(closing, reporter.say, results, stopped=stopped)
    if (why := summary.why_nothing_ran) is not None:
        raise UsageError("nothing ran", why, "dgm-bench plan --all shows every cell")
    missed = bool(summary.failed or summary.lost) or summary.unavailable
    command.exit(INTERRUPTED if summary.interrupted else int(missed))


@click.command(
    short_help="Log your records to MLflow.",
    epilog=examples(
        "MLFLOW_TRACKING_URI=http://localhost:5000 dgm-bench sync",
        "dgm-bench sync --time-limit 5m",
    ),
)
@click.option(
    "--time-limit",
    metavar="TIME",
    default="1h",
    show_default=True,
    help="Leave after this time; the same command goes on from there.",
)
@tracker_option
@results_option(read=True)
@click.pass_context
def sync(context: click.Context, time_limit: str, tracker: str, results: Path) -> None:
    """Log your records to MLflow that it does not have yet in full, once each.

    They go to MLFLOW_TRACKING_URI, or else to a SQLite file beside the results: an experiment a
    table, a run a cell with its seeds below. Runs that an earlier version logged are kept, and
    brought into that shape. It ends when no record gets through for 20 seconds, whatever a server
    does; what is logged by then stays.

    Exits with 0 when MLflow has every record, 1 when it does not, 130 when interrupted.
    """
    from dgm_bench import planner
    from dgm_bench.control import Control
    from dgm_bench.tracking import sync as sync_records

    control = Control(planner.parse_duration(time_limit, "--time-limit"))
    tracker = "mlflow" if tracker == "none" else tracker  # a default, and this was asked for
    with control.catching_signals():
        done = sync_records(results, control=control, tracker=tracker)
    left = f", {len(done.left)} left" if done.left else ""
    found = f"{len(done.logged)} logged, {len(done.already)} there already{left}"
    streams.say(f"{shown(results)}: {found}")
    for reason, runs in _by_reason(done.failed):
        streams.tell(f"{', '.join(runs)}: {reason}")
    if done.interrupted:
        streams.tell(f"stopped ({done.stopped}); the same command goes on from here")
    elif done.stopped:
        streams.tell(f"error: {done.stopped}")
    missed = done.failed or done.left or done.stopped
    context.exit(INTERRUPTED if done.interrupted else int(bool(missed)))


def _by_reason(failed: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Put together runs that failed for the same reason; of many, the first and their number."""
    for reason in dict.fromkeys(failed.values()):
        runs = [run for run, why in failed.items() if why == reason]
        yield reason, runs if len(runs) <= 3 else [runs[0], f"{len(runs) - 1} others"]


def _repeated(command: click.Context, settings: Sequence[str]) -> list[str]:
    """Return the options of a command that belong into the next one."""
    words = [word for text in settings for word in ("--set", text)]
    for name in ("results", "data_root", "device"):
        if command.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [f"--{name.replace('_', '-')}", str(command.params[name])]
    return words


def _chosen(catalog: Catalog, pattern: Sequence[str], paper: str | None) -> list[Cell]:
    """Return the cells of a pattern, of a paper, or of both."""
    if not pattern and paper is None:
        remedy = "name cells, such as 'ffjord/*/*/digits', or --paper ffjord"
        raise UsageError("dgm-bench run", "takes a PATTERN or a paper", remedy)
    if paper is None:
        return catalog.select(*pattern)
    known = catalog.paper(paper).id
    cells = catalog.select(*(pattern or [f"{known}/*"]))
    if other := next((cell for cell in cells if cell.paper != known), None):
        raise UsageError(other.id, f"is no cell of {known}", "leave out --paper")
    return cells
