"""The verb that puts results folders together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dgm_bench.cli import streams
from dgm_bench.cli.options import ResultsFolder, collecting_seldom, examples, results_option
from dgm_bench.escaping import shown


@click.command(
    short_help="Results of several machines into one folder.",
    epilog=examples(
        "dgm-bench merge node1/results node2/results",
        "dgm-bench merge /mnt/*/results --results all --dry-run",
    ),
)
@click.argument(
    "folders",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=ResultsFolder(read=True, weights=True, file_okay=True),
)
@click.option("--dry-run", is_flag=True, help="Only say what would be merged.")
@results_option()
@click.pass_context
@collecting_seldom()
def merge(context: click.Context, folders: Sequence[Path], dry_run: bool, results: Path) -> None:
    """Put the records of results folders into yours, with their curves and artifacts.

    The same run twice is one. Where two files of one run differ, the one that is there stays, and
    a line tells of the other; so it does of damaged ones. Nothing is overwritten, and a merge that
    was ended goes on when it is done again.

    Exits with 0 when everything is there, 1 when something conflicts or is damaged.
    """
    from dgm_bench.merge import merge as merge_folders

    report = merge_folders(folders, results, dry_run=dry_run)
    for line in report.lines():
        streams.tell(line)
    streams.say(f"{shown(results)}: {report.summary(dry_run=dry_run)}")
    context.exit(int(not report.whole))
