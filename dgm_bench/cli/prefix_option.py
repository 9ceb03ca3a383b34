"""``run --prefix``: the first part of trainings beside those that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dgm_bench.cli import streams
from dgm_bench.cli.options import INTERRUPTED
from dgm_bench.errors import DataError, ResultsError, UsageError, shortened

if TYPE_CHECKING:
    from dgm_bench.context import RunContext
    from dgm_bench.spec import Cell
    from dgm_bench.store import Store

#: New runs of each recipe where nobody says how many.
SEEDS = 3
#: Of recipes that cannot be compared, as many are named.
MOST_NAMED = 3
#: Options of ``run`` that mean nothing to a part of a training in this process.
_WITHOUT = (
    "accumulate",
    "address",
    "budget",
    "devices",
    "dry_run",
    "engine",
    "engine_settings",
    "jobs",
    "missing",
    "partition",
    "settings",
    "time_limit",
    "tracker",
)


def _share(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Return the part of a training that ``--prefix`` says."""
    if text is None:
        return None
    number = text.removesuffix("%").strip()
    try:
        percent = float(number)
    except ValueError:
        percent = 0.0
    if number == text or not 0 < percent <= 100:
        message = f"{shortened(text)} is no part of a training; write --prefix 2%"
        raise click.BadParameter(message, context, option)
    return percent / 100


prefix_option = click.option(
    "--prefix",
    metavar="PERCENT",
    callback=_share,
    help="Train so much alone, such as 2%, of three seeds where --seeds does not say, keep "
    "nothing, and say whether it goes as the stored runs did.",
)


def number_of_seeds(command: click.Context, seeds: int) -> int:
    """Return how many new runs a recipe has.

    Raises:
        UsageError: Another option was typed that means nothing here.
    """
    for param in command.command.params:
        name = param.name or ""
        typed = command.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and name in _WITHOUT:
            remedy = f"leave out {param.opts[0]}, or --prefix"
            raise UsageError("--prefix", f"goes without {param.opts[0]}", remedy)
    return SEEDS if command.get_parameter_source("seeds") is ParameterSource.DEFAULT else seeds


def compare_prefixes(
    cells: Sequence[Cell],
    share: float,
    seeds: int,
    context: RunContext,
    store: Store,
    *,
    quiet: bool = False,
) -> int:
    """Train the first part of the cells' recipes, tell how it went, and return the exit code.

    Args:
        cells: Those that were asked for.
        share: Of the steps that stored runs took.
        seeds: New runs of each recipe, with seeds 0, 1, ...
        context: Data root, device and threads.
        store: Its records are compared with.
        quiet: Whether nothing is said of what begins.

    Raises:
        UsageError: There was nothing to compare.
    """
    from dgm_bench.compare.prefix import stored_prefix
    from dgm_bench.control import Interrupted
    from dgm_bench.prefix import run_prefix
    from dgm_bench.report.prefix import closing_line, render_prefix
    from dgm_bench.session import DataSource
    from dgm_bench.wording import counted

    source, left = DataSource(context), []
    errors: list[DataError | ResultsError] = []
    for cell in _of_each_recipe(cells):
        try:
            prefix = stored_prefix(cell, store, share)
            if not quiet:
                streams.tell(f"{cell.id}: {counted(seeds, 'seed')}, {prefix.steps:,} steps each")
            found = run_prefix(cell, prefix, range(seeds), context, source)
        except (DataError, ResultsError) as error:
            errors.append(error)
        except Interrupted as stop:
            streams.tell(f"stopped ({stop.reason}): nothing of it is kept")
            return INTERRUPTED
        else:
            left.append(bool(found.left))
            streams.say(render_prefix(found))
    if errors and not left:
        raise errors[0]
    if not left:
        remedy = "name cells whose models are trained: dgm-bench list PATTERN shows them"
        raise UsageError("--prefix", "nothing is trained", remedy)
    for why in errors[:MOST_NAMED]:
        streams.tell(f"not compared: {why}")
    if others := len(errors[MOST_NAMED:]):
        streams.tell(f"not compared: {counted(others, 'other')}, of which too little is stored")
    streams.say(closing_line(left.count(False), left.count(True), len(errors)))
    return int(any(left))


def _of_each_recipe(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the first cell of each recipe that is trained."""
    seen: set[str] = set()
    for cell in cells:
        recipe = cell.recipe
        if recipe is None or recipe.fitted or recipe.content_hash in seen:
            continue
        seen.add(recipe.content_hash)
        yield cell
