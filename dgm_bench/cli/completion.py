"""Completion of verbs, options, cells, tables, papers and data sets by the shell."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

import click
from click.shell_completion import get_completion_class

from dgm_bench.cli import streams
from dgm_bench.cli.options import COMPLETE, examples
from dgm_bench.errors import DgmBenchError, UsageError

SHELLS = ("bash", "zsh", "fish")


def _ids() -> list[str]:
    """Return the names of all cells; none where declarations are broken: a verb tells of it."""
    from dgm_bench.catalog import load_catalog

    try:
        return [cell.id for cell in load_catalog().cells]
    except DgmBenchError:
        return []


def next_parts(names: Iterable[str], typed: str, depth: int = 4) -> list[str]:
    """Return how a typed beginning of names goes on, to the next ``/`` at which they differ.

    Parts before the last may be shell patterns. A single beginning goes on until there are
    several, or a whole name: a shell puts a space behind what is alone.

    Args:
        names: Of parts with ``/`` between.
        typed: What stands there so far.
        depth: Parts of a name at most.
    """
    *parents, last = typed.split("/")
    while True:
        found: dict[str, None] = {}
        for name in names:
            parts = name.split("/")[:depth]
            fits = len(parts) > len(parents) and all(map(fnmatchcase, parts, parents))
            if fits and parts[len(parents)].startswith(last):
                whole = len(parts) == len(parents) + 1
                found["/".join([*parents, parts[len(parents)]]) + ("" if whole else "/")] = None
        if len(found) != 1 or not next(iter(found)).endswith("/"):
            return list(found)
        *parents, last = next(iter(found)).split("/")


def cells(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Complete a cell."""
    return next_parts(_ids(), typed)


def tables(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Complete a table."""
    return next_parts(_ids(), typed, depth=2)


def papers(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Complete a paper."""
    return next_parts(_ids(), typed, depth=1)


def names(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Complete a cell, a table or a paper."""
    groups = next_parts(_ids(), typed, depth=typed.count("/") + 1)
    whole = [name for name in groups if not name.endswith("/")]
    return list(dict.fromkeys([*whole, *cells(context, parameter, typed)]))


def data_sets(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete a data set or a network's weights that does not stand there yet."""
    from dgm_bench import data

    there = context.params.get("names") or ()
    return [
        card.name for card in data.cards() if card.name.startswith(typed) and card.name not in there
    ]


pattern_argument = click.argument("pattern", nargs=-1, shell_complete=cells)


@click.command(
    short_help="Let the shell complete names.",
    epilog=examples(
        """eval "$(dgm-bench completion bash)"     # in ~/.bashrc""",
        """eval "$(dgm-bench completion zsh)"      # in ~/.zshrc""",
        """dgm-bench completion fish > ~/.config/fish/completions/dgm-bench.fish""",
    ),
)
@click.argument("shell", required=False, metavar="[bash|zsh|fish]", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print what makes a shell complete verbs, options, cells, tables, papers and data sets.

    Without a name it is for the shell of $SHELL.
    """
    used = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(used)
    if kind is None:
        raise UsageError(used or "$SHELL", "is no shell that can complete", "use bash, zsh or fish")
    root = context.find_root()
    name = root.info_name or "dgm-bench"
    streams.show(kind(root.command, {}, name, COMPLETE).source().strip())
