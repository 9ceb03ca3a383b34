"""The verb ``data``: where data sets are, getting them, and checking them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import Verbs, data_root_option, examples, root_of
from dgm_bench.errors import DataError, find_named
from dgm_bench.wording import counted

if TYPE_CHECKING:
    from dgm_bench.data import FileCheck
    from dgm_bench.data.cards import DatasetCard
    from dgm_bench.data.weights import WeightsCard

    Card = DatasetCard | WeightsCard

NO_FILES = "has no files: it is generated, or of a library"
FINE = ("ok", "no checksum")


@click.group(cls=Verbs, short_help="Where data is, getting it, checking it.")
def data() -> None:
    """Say where data is, get it, and check that it is the real thing."""


@data.command(
    "list",
    epilog=examples(
        "dgm-bench data list",
        "dgm-bench data list --data-root /scratch/data",
    ),
)
@data_root_option
def data_list(data_root: Path) -> None:
    """List the data sets and weights of networks, and whether their files are here."""
    from dgm_bench import console
    from dgm_bench import data as sets

    rows = [(card, sets.state(card.name, data_root)) for card in sets.cards()]
    console.make_console().print(console.data_view(rows, data_root))


@data.command(
    "fetch",
    epilog=examples(
        "dgm-bench data fetch mnist",
        "dgm-bench data fetch power gas --data-root /scratch/data",
        "dgm-bench data fetch ffjord/density/nsf-coupling/digits",
    ),
)
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.data_sets
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and how much it is.")
@data_root_option
def data_fetch(names: Sequence[str], dry_run: bool, data_root: Path) -> None:
    """Download the files of data sets, or a network's weights; continues a broken download.

    A cell stands for the weights of its trained model, which are checked by its record.
    """
    from dgm_bench import data as sets

    _known(name for name in names if "/" not in name)
    for name in names:
        if "/" in name:
            streams.say(f"{name}: {'weights' if dry_run else _fetched_model(name, data_root)}")
            continue
        here, size = sets.state(name, data_root), _size_to_fetch(name)
        if dry_run:
            streams.say(f"{name}: {_would(here.status, size)}")
            continue
        quiet = root_of(click.get_current_context()).quiet
        if not (here.loadable or quiet) and size:
            streams.tell(f"{name}: fetching {size}")
        files = sets.fetch(name, data_root, progress=sys.stderr.isatty() and not quiet)
        done = "here already" if here.loadable else "fetched"
        streams.say(f"{name}: {done}, {_amount(files)}" if files else f"{name}: {NO_FILES}")
        if not here.loadable:
            streams.say("\n".join(_next(name)))


def _known(names: Iterator[str]) -> Mapping[str, Card]:
    """Return the cards of data sets and weights.

    Raises:
        UsageError: There is none of a name; before anything is done with the others.
    """
    from dgm_bench import data as sets

    known = {card.name: card for card in sets.cards()}
    return {name: find_named(name, known, "data set", "see dgm-bench data list") for name in names}


def _fetched_model(cell: str, data_root: Path) -> Path:
    from dgm_bench.library.folders import open_store
    from dgm_bench.library.weights import fetch_weights, one_cell

    progress = sys.stderr.isatty()
    return fetch_weights(one_cell(cell), open_store(), data_root, progress=progress)


def _size_to_fetch(name: str) -> str:
    """Return how much is downloaded; empty where nothing is."""
    from dgm_bench.data.cards import DatasetCard
    from dgm_bench.planner import gigabytes

    card = _known(iter([name]))[name]
    downloads = card.downloads if isinstance(card, DatasetCard) else (card.download,)
    return gigabytes(sum(download.size for download in downloads)) if downloads else ""


def _would(status: str, size: str) -> str:
    """Return what a fetch would do."""
    if status == "embedded":
        return NO_FILES
    if status == "here":
        return "here already"
    return f"would fetch {size}" if size else "is never downloaded: see dgm-bench data fetch"


def _amount(files: Sequence[Path]) -> str:
    """Return how many files there are, how large, and where."""
    from dgm_bench.planner import gigabytes

    inside = [each for file in files for each in ([file] if file.is_file() else file.rglob("*"))]
    size = sum(file.stat().st_size for file in inside if file.is_file())
    where = Path(os.path.commonpath([str(file) for file in files]))
    folder = where.parent if where.is_file() else where
    return f"{counted(len(files), 'file')} of {gigabytes(size)} in {folder}"


def _next(name: str) -> Iterator[str]:
    """Yield what can be done with a data set that has just come."""
    from dgm_bench.catalog import load_catalog

    for cell in load_catalog().cells:
        recipe = cell.recipe
        judge = recipe.evaluation.judge if recipe else None
        used = [stage.data.name for stage in recipe.stages] if recipe else []
        if name in (*used, *(judge.weights if judge else ())):
            yield f"next: dgm-bench plan '{cell.paper}/{cell.table}/*/{cell.column.id}'"
            return


@data.command(
    "verify",
    epilog=examples(
        "dgm-bench data verify mnist",
        "dgm-bench data verify power gas hepmass",
    ),
)
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.data_sets
)
@data_root_option
def data_verify(names: Sequence[str], data_root: Path) -> None:
    """Check that files are byte for byte the published ones.

    All are looked at. Exits with 2 when one is missing or is not.
    """
    from dgm_bench import console
    from dgm_bench import data as sets

    _known(iter(names))
    found = {name: sets.verify(name, data_root) for name in names}
    checks = [check for files in found.values() for check in files]
    if checks:
        console.make_console().print(console.files_view(checks, data_root))
        streams.say("")
    for name, files in found.items():
        streams.say(f"{name}: {_in_words(files)}")
    wrong = [(name, f) for name, files in found.items() for f in files if f.outcome not in FINE]
    if wrong:
        raise _error(*wrong[0], len(wrong) - 1)


def _in_words(files: Sequence[FileCheck]) -> str:
    """Return what checking a data set gave."""
    wrong = [check for check in files if check.outcome not in FINE]
    unsaid = [check for check in files if check.outcome == "no checksum"]
    if not files:
        return NO_FILES
    if wrong:
        return f"{len(wrong)} of {len(files)} files missing or not the published"
    if unsaid:
        return f"{counted(len(files), 'file')} here, and no checksum is published to compare with"
    return f"as published, {counted(len(files), 'file')}"


def _error(name: str, check: FileCheck, others: int) -> DataError:
    fetch = f"dgm-bench data fetch {name}"
    remedy = fetch if check.outcome == "missing" else f"delete it, then {fetch}"
    more = f", and {counted(others, 'other')} above" if others else ""
    return DataError(check.path, (check.detail or check.outcome) + more, remedy)
