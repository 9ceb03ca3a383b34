"""The verbs for what is under way: status, cancel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import (
    collecting_seldom,
    examples,
    json_option,
    print_json,
    results_option,
)
from dgm_bench.errors import UsageError
from dgm_bench.escaping import shown

if TYPE_CHECKING:
    from dgm_bench.overview import Overview, SubmissionView, TaskView

    Chosen = dict[str, list[TaskView]]

#: Seconds between two looks.
_EVERY = 2.0
#: Seconds that runs have to save in before ``cancel`` leaves them to it.
PATIENCE = 60.0
_PAUSE = 0.1


@click.command(
    short_help="What runs where, how far, what failed.",
    epilog=examples(
        "dgm-bench status",
        "dgm-bench status 'ffjord/*' --watch",
        "dgm-bench status --all --json",
    ),
)
@completion.pattern_argument
@click.option("--all", "everything", is_flag=True, help="Also the last few that ended badly.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds while anything runs.")
@results_option(read=True)
@json_option
@collecting_seldom()
def status(
    pattern: Sequence[str], everything: bool, watch: bool, results: Path, as_json: bool
) -> None:
    """Show what runs where, since when, how far it is, and what failed.

    Times are those of the machine that wrote them. Below it stand runs that were interrupted and
    wait for the same command. Exits with 0, also when nothing runs.
    """
    from dgm_bench import console
    from dgm_bench.cli.status_view import status_json, status_view
    from dgm_bench.overview import overview

    if as_json and watch:
        raise UsageError("--watch", "shows it to people", "leave out --json")
    screen = console.make_console()
    while True:
        found = overview(results, pattern, everything=everything)
        if as_json:
            print_json(status_json(found))
        else:
            if watch:
                screen.clear()
            screen.print(status_view(found, shown(results)))
        if not (watch and any(view.head == "there" for view in found.submissions)):
            return
        time.sleep(_EVERY)


@click.command(
    short_help="End runs in good order.",
    epilog=examples(
        "dgm-bench cancel 'ffjord/density/*/power'",
        "dgm-bench cancel --all",
        "dgm-bench cancel --all --now",
    ),
)
@completion.pattern_argument
@click.option("--all", "everything", is_flag=True, help="All runs, in place of PATTERN.")
@click.option("--now", is_flag=True, help="Leave no time for a checkpoint.")
@click.option("--wait/--no-wait", default=True, help="Wait until they have stopped; the default.")
@results_option(read=True)
@click.pass_context
def cancel(
    context: click.Context,
    pattern: Sequence[str],
    everything: bool,
    now: bool,
    wait: bool,
    results: Path,
) -> None:
    """End runs in good order, wherever they are: those under way save first.

    Runs that have not begun do not begin. The command that follows them goes on with the others
    and exits with 130; the same command goes on with what was cancelled. Exits with 0 when all
    have stopped, 1 when some have not after a minute, 2 when nothing matches.
    """
    if everything == bool(pattern):
        remedy = "name cells, such as 'ffjord/*/*/digits', or --all"
        raise UsageError("dgm-bench cancel", "takes either a PATTERN or --all", remedy)
    chosen = _under_way(results, pattern)
    if not chosen:
        thing = " ".join(pattern) or "dgm-bench cancel --all"
        reason = "matches no run that is under way" if pattern else "nothing is under way"
        reason += f" in {shown(results)}"
        raise UsageError(thing, reason, "see dgm-bench status")
    _request(results, chosen, now)
    running = {
        name: [v for v in views if v.state.state == "running"] for name, views in chosen.items()
    }
    under_way = _runs(running)
    saving = _runs(_wait(results, running)) if wait else under_way
    streams.say(_in_words(under_way - saving, _runs(chosen) - under_way, saving))
    context.exit(int(wait and saving > 0))


def _under_way(results: Path, patterns: Sequence[str]) -> Chosen:
    """Return the tasks that are not over, by the board that they are on."""
    from dgm_bench.overview import overview

    found: Overview = overview(results, patterns)
    left = {view.board.id: _left(view) for view in found.submissions}
    return {name: views for name, views in left.items() if views}


def _left(view: SubmissionView) -> list[TaskView]:
    """Return the tasks of a submission that a worker does, or will do."""
    from dgm_bench.engines.board import ENDED

    # Nobody begins what a pool had not begun whose command is gone.
    over = (
        (*ENDED, "waiting") if view.head == "gone" and view.submission.engine == "local" else ENDED
    )
    return [task for task in view.tasks if task.state.state not in over and not task.gone]


def _request(results: Path, chosen: Chosen, now: bool) -> None:
    from dgm_bench.engines.board import Board, submissions_folder

    for name, views in chosen.items():
        board = Board(submissions_folder(results) / name)
        board.request_cancel([view.task.id for view in views], now=now)


def _wait(results: Path, running: Chosen) -> Chosen:
    """Wait until tasks have stopped; return those that have not in time."""
    from dgm_bench.engines.board import ENDED, Board, submissions_folder
    from dgm_bench.processes import is_gone

    ends = time.monotonic() + PATIENCE
    while running and time.monotonic() < ends:
        time.sleep(_PAUSE)
        for name, views in list(running.items()):
            board = Board(submissions_folder(results) / name)
            states = [(view, board.state(view.task.id)) for view in views]
            running[name] = [
                view
                for view, state in states
                if state is not None and state.state not in ENDED and not is_gone(state.mark)
            ]
            if not running[name]:
                del running[name]
    return running


def _runs(chosen: Chosen) -> int:
    return sum(len(view.task.seeds) for views in chosen.values() for view in views)


def _in_words(stopped: int, not_begun: int, saving: int) -> str:
    """Return what became of runs, in one line."""
    parts = [f"{_many(stopped)} stopped"] if stopped else []
    parts += [f"{_many(not_begun)} will not begin"] if not_begun else []
    parts += [f"{_many(saving)} not stopped yet: see dgm-bench status"] if saving else []
    return ", ".join(parts)


def _many(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
