"""The verb ``export``: records or published numbers as a file for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench import extras
from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import (
    collecting_seldom,
    examples,
    results_option,
    stored_option,
    strict_option,
)
from dgm_bench.errors import UsageError, choose_from
from dgm_bench.escaping import csv_cell

if TYPE_CHECKING:
    from dgm_bench.library.rows import Row

Columns = Sequence[str]


@click.command(
    short_help="Records or published numbers for other programs.",
    epilog=examples(
        "dgm-bench export -o results.csv",
        "dgm-bench export 'ffjord/density/*/mnist' -o mnist.parquet",
        "dgm-bench export --published -o published.json",
    ),
)
@completion.pattern_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Ends in .csv, .json or .parquet; without it, CSV is printed.",
)
@click.option("--published", is_flag=True, help="What papers say, in place of what was measured.")
@results_option(read=True)
@stored_option
@strict_option
@collecting_seldom()
def export(
    pattern: Sequence[str],
    output: Path | None,
    published: bool,
    results: Path,
    stored: Path | None,
    strict: bool,
) -> None:
    """Write one row for each metric of each record, yours and stored, or each published number.

    Columns are those of dgm_bench.results() and dgm_bench.published(); unit, split and protocol of
    a number stand in its row.
    """
    from dgm_bench.catalog import load_catalog
    from dgm_bench.library.rows import (
        PUBLISHED_COLUMNS,
        RESULT_COLUMNS,
        published_rows,
        result_rows,
    )
    from dgm_bench.store import Store

    write = _writer(output)
    catalog, patterns = load_catalog(), pattern or ("*",)
    if published:
        rows, columns = published_rows(catalog, *patterns), PUBLISHED_COLUMNS
    else:
        store = Store(results, stored, strict=strict)
        rows, columns = result_rows(catalog, store, *patterns), RESULT_COLUMNS
    found = list(rows)
    content = write(found, columns)
    if output is None:
        streams.show(content.decode().rstrip("\n"))
        return
    from dgm_bench.sealed import write_atomically

    write_atomically(output, content)
    streams.say(f"wrote {output}: {len(found):,} rows, {len(columns)} columns")


def _writer(output: Path | None) -> Callable[[Sequence[Row], Columns], bytes]:
    """Return what makes the content of a file, by its ending.

    Raises:
        UsageError: The ending is of no known format, the file cannot be written, or a package is
            not installed.
    """
    if output is None:
        return _csv
    if output.suffix not in _WRITERS:
        reason = f"ends in {output.suffix or 'nothing'}, which is no known format"
        raise UsageError(output, reason, choose_from(output.suffix, _WRITERS))
    from dgm_bench.sealed import require_writable

    if output.suffix == ".parquet":
        with extras.needing("a .parquet file"):
            import pyarrow  # noqa: F401  pandas says it in three lines
    require_writable(output)
    return _WRITERS[output.suffix]


def _csv(rows: Sequence[Row], columns: Columns) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row[name]) for name in columns] for row in rows)
    return file.getvalue().encode()


def _json(rows: Sequence[Row], columns: Columns) -> bytes:
    lines = (json.dumps({name: row[name] for name in columns}, allow_nan=False) for row in rows)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _parquet(rows: Sequence[Row], columns: Columns) -> bytes:
    from dgm_bench.library.frames import frame_of

    file = io.BytesIO()
    frame_of(rows, columns).to_parquet(file, index=False)
    return file.getvalue()


_WRITERS: Mapping[str, Callable[[Sequence[Row], Columns], bytes]] = {
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
