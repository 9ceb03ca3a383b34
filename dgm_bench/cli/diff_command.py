"""The verb ``diff``: where two runs part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench.cli import streams
from dgm_bench.cli.options import (
    collecting_seldom,
    examples,
    json_option,
    print_json,
    results_option,
    stored_option,
    strict_option,
)

if TYPE_CHECKING:
    from dgm_bench.quality import Curve
    from dgm_bench.records import RunRecord
    from dgm_bench.store import Store


@click.command(
    short_help="Where two runs part: the first thing that differs.",
    epilog=examples(
        "dgm-bench diff 20261129t060119-e292e6 20261129t080937-995916",
        "dgm-bench diff mine.json theirs.json --json",
    ),
)
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@results_option(read=True)
@stored_option
@strict_option
@json_option
@click.pass_context
@collecting_seldom()
def diff(
    context: click.Context,
    first: str,
    second: str,
    results: Path,
    stored: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Find the first stage in which two runs have not the same bits.

    RUN is a run's identifier, as show prints it with --json, or a record's file. In order: the
    data, each stage's weights as built, its first batch, loss, gradient and step, its validations,
    the trained weights, the metrics. Exits with 0 when all that both records tell is the same to
    the bit, 1 when something differs.
    """
    from dgm_bench.compare.parting import given, made, parting
    from dgm_bench.report.parting import parting_json, render_parting
    from dgm_bench.screen import fitting
    from dgm_bench.store import Store

    store = Store(results, stored, strict=strict)
    (one, one_curve), (other, other_curve) = (_run(name, store) for name in (first, second))
    what, stages = given(one, other), made(one, other, one_curve, other_curve)
    if as_json:
        print_json(parting_json((one, other), what, stages))
    else:
        text = render_parting((one, other), what, stages)
        streams.show("\n".join(fitting(line) for line in text.split("\n")))
    context.exit(1 if parting(stages) else 0)


def _run(name: str, store: Store) -> tuple[RunRecord, Curve]:
    """Return a run and its curve, which lies beside a record that is named by its file."""
    if name.endswith(".json"):
        store = store.of(Path(name))
    record = store.find(name)
    return record, store.known_curve(record)
