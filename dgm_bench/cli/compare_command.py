"""The verb that holds new records against stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dgm_bench.cli import streams
from dgm_bench.cli.options import (
    ResultsFolder,
    collecting_seldom,
    examples,
    results_option,
    stored_option,
    strict_option,
)
from dgm_bench.errors import UsageError
from dgm_bench.escaping import shown

if TYPE_CHECKING:
    from dgm_bench.compare import Comparison

    CompareFormat = Literal["text", "markdown", "csv", "json"]

COMPARE_FORMATS = ("text", "markdown", "csv", "json")


@click.command(
    short_help="New records against stored ones: what changed.",
    epilog=examples(
        "dgm-bench compare",
        "dgm-bench compare /tmp/results results",
        "dgm-bench compare /tmp/results results --format markdown",
    ),
)
@click.argument("new", type=ResultsFolder(read=True, file_okay=True), required=False)
@click.argument("baseline", type=ResultsFolder(read=True, file_okay=True), required=False)
@click.option("--all", "everything", is_flag=True, help="Every number, also what did not change.")
@click.option(
    "--format", "style", type=click.Choice(COMPARE_FORMATS), default="text", show_default=True
)
@results_option()
@stored_option
@strict_option
@click.pass_context
@collecting_seldom()
def compare(
    context: click.Context,
    new: Path | None,
    baseline: Path | None,
    everything: bool,
    style: CompareFormat,
    results: Path,
    stored: Path | None,
    strict: bool,
) -> None:
    """Compare new records with stored ones: which changes are more than noise.

    NEW and BASELINE are record files, folders of records, or results folders: where they are not
    named, your results and those that came with the suite. Of two results folders, stored times of
    training steps are compared too, within a class of machines. Prints what changed and counts the
    rest; files for machines have every number. Exits with 0 when nothing got worse, 1 when
    something did, 3 when they are not comparable.
    """
    from dgm_bench.report.comparison import render_comparison
    from dgm_bench.screen import fitting, width_and_colour

    sides = new or _yours(results), baseline or _stored(stored, new or results)
    comparison = _compared(*sides, strict=strict)
    width, colour = width_and_colour()
    names = (
        shown(sides[0]) if new else f"yours ({shown(sides[0])})",
        shown(sides[1]) if baseline else f"stored ({shown(sides[1])})",
    )
    text = render_comparison(
        comparison,
        style,
        width=width,
        colour=colour,
        everything=everything,
        names=names,
        fit=fitting,
    )
    streams.show(text.rstrip("\n"))
    context.exit(comparison.exit_code)


def _yours(results: Path) -> Path:
    """Return the user's results folder.

    Raises:
        UsageError: It has no records.
    """
    if not (results / "runs").is_dir():
        remedy = "dgm-bench run PATTERN makes some, or name two folders: NEW BASELINE"
        raise UsageError(shown(results), "you have no results there yet", remedy)
    return results


def _stored(stored: Path | None, new: Path) -> Path:
    """Return the folder of the results that came with the suite.

    Raises:
        UsageError: There is none, or it is the new one.
    """
    remedy = "name two folders: dgm-bench compare NEW BASELINE"
    if stored is None:
        raise UsageError("dgm-bench compare", "there are no stored results to compare with", remedy)
    if stored.resolve() == new.resolve():
        raise UsageError(shown(new), "these are the stored results themselves", remedy)
    return stored


def _compared(new: Path, baseline: Path, *, strict: bool) -> Comparison:
    from dgm_bench.catalog import load_catalog
    from dgm_bench.compare import compare as compare_records
    from dgm_bench.compare import declared_directions, with_speed
    from dgm_bench.performance import read_measurements
    from dgm_bench.store import Store

    directions = declared_directions(load_catalog().papers)
    stores = [Store.of(path, strict=strict) for path in (new, baseline)]
    ours, theirs = (store.records() for store in stores)
    measured = read_measurements(new), read_measurements(baseline)
    curves = stores[0].known_curve, stores[1].known_curve
    quality = compare_records(ours, theirs, directions)
    return with_speed(quality, (ours, theirs), measured, curves)
