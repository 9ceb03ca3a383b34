"""What ``status`` tells of boards: states, times left, workers and commands that are gone."""

import os
import time
from dataclasses import replace

import pytest
from board_parts import GONE, planned, submit
from factories import make_context

from dgm_bench.engines.board import Ending, Fault, TaskState
from dgm_bench.engines.tasks import task_of
from dgm_bench.errors import DgmBenchError
from dgm_bench.overview import SILENT, overview
from dgm_bench.processes import own_mark

FAULT = Fault.of(DgmBenchError("a disk", "is full", "free space"))
HALF = {"step": 50, "max_steps": 100, "seconds": 20.0, "mark": own_mark()}


@pytest.fixture
def context(tmp_path):
    return make_context(tmp_path)


def only(context, *patterns, **options):
    (view,) = overview(context.results, patterns, **options).submissions
    return view


def test_each_task_is_counted_in_one_state(context):
    broke = Ending(place="a", title="MAF on x", failure="diverged: nan", hint="lower the rate")
    states = [
        {"state": "done"},
        {"state": "done", "fault": FAULT},
        {"state": "done", "records": [broke]},
        {"state": "failed", "fault": FAULT},
        {"state": "lost", "fault": FAULT},
        {"state": "stopped"},
        {"state": "running", **HALF},
    ]
    submit(context, *states, runs=planned(*range(9)))
    view = only(context)
    assert view.counts == {
        "waiting": 2, "running": 1, "done": 1, "stopped": 1, "failed": 3, "lost": 1,
    }  # fmt: skip
    told = [failure for task in view.tasks for failure in task.failures]
    assert len(told) == 4
    assert vars(told[1]) == {
        "what": "MAF on x", "reason": "diverged: nan", "remedy": "lower the rate",
    }  # fmt: skip
    assert (told[0].reason, told[0].remedy) == ("a disk: is full", "free space")


def test_time_left_is_shared_by_as_many_as_run_and_known_only_where_all_is(context):
    runs = planned(*range(6))
    timed = [replace(run, seconds=100.0) for run in runs]
    board = submit(context, *[{"state": "running", **HALF}] * 2, runs=timed)
    assert only(context).seconds_left == (2 * 20 + 4 * 100) / 2
    board.remove()
    submit(context, {"state": "running", **HALF}, runs=runs)
    assert only(context).seconds_left is None


def test_a_task_that_takes_longer_than_expected_has_what_its_steps_say_left(context):
    (run,) = planned(0)
    board = submit(context, {"state": "running", **HALF}, runs=[replace(run, seconds=15.0)])
    assert only(context).seconds_left == 20.0
    board.note(TaskState(task=task_of([run]).id, state="running", seconds=30.0))
    assert only(context).seconds_left is None


def test_what_failed_is_named_once(context):
    (run,) = planned(0)
    for thing in (run.cell.id, f"{run.cell.id} seed 0", "MAF, seed 0"):
        fault = Fault.of(DgmBenchError(thing, "its process died", "try again"))
        board = submit(
            context, {"state": "lost", "fault": fault, "title": "MAF, seed 0"}, runs=[run]
        )
        (failure,) = only(context).tasks[0].failures
        assert (failure.what, failure.reason) == (f"{run.cell.id} seed 0", "its process died")
        board.remove()


def test_patterns_choose_tasks_and_submissions(context):
    submit(context, runs=planned(0, 1, row="maf"))
    submit(context, runs=[*planned(0, row="maf"), *planned(0, row="made")])
    views = overview(context.results, ("*/made/*",)).submissions
    assert [[task.name for task in view.tasks] for view in views] == [
        ["ffjord/density/made/power seed 0"]
    ]
    assert len(overview(context.results).submissions) == 2
    assert overview(context.results, ("*/iaf/*",)).submissions == []


def test_a_command_or_worker_that_is_gone_is_told(context):
    submit(context, {"state": "running", **HALF, "mark": GONE}, process=GONE)
    view = only(context)
    assert (view.head, view.tasks[0].gone, view.seconds_left) == ("gone", True, None)


@pytest.mark.parametrize("late", [SILENT / 2, 3 * SILENT])
def test_silence_is_told_by_the_clock_of_the_file_system(context, late, monkeypatch):
    """Whatever the clock of this machine says."""
    board = submit(
        context, {"state": "running", **HALF, "mark": "1-2-elsewhere"}, process="1-2-elsewhere"
    )
    past = time.time() - late
    for path in board.folder.rglob("*.json"):
        os.utime(path, (past, past))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    view = only(context)
    silent = late > SILENT
    assert view.tasks[0].silent_seconds == (pytest.approx(late, abs=20) if silent else None)
    assert not view.tasks[0].gone
    board = submit(context, {"state": "running", **HALF}, process=GONE.replace("4194305", "1", 1))


def test_a_command_is_silent_where_its_file_is_and_none_of_its_tasks_are_its_own(context):
    for mark, head in (("1-2-elsewhere", "there"), ("3-4-elsewhere", "silent")):
        board = submit(context, {"state": "running", **HALF, "mark": mark}, process="1-2-elsewhere")
        os.utime(board.folder / "submission.json", (0, time.time() - 3 * SILENT))
        assert only(context).head == head
        board.remove()


def test_where_no_file_can_be_made_the_newest_tells_how_long_at_least(context, monkeypatch):
    monkeypatch.setattr("dgm_bench.overview.file_system_time", lambda folder: None)
    board = submit(context, *[{"state": "running", **HALF}] * 2)
    (old,) = (board.folder / "tasks").glob("*s0.json")
    os.utime(old, (0, time.time() - 3 * SILENT))
    first, second = only(context).tasks
    assert first.silent_seconds == pytest.approx(3 * SILENT, abs=20)
    assert second.silent_seconds is None


def test_what_ended_is_shown_on_request_and_what_is_damaged_is_told(context):
    board = submit(context, {"state": "lost", "fault": FAULT})
    board.end(board.submission())
    damaged = submit(context)
    (damaged.folder / "submission.json").write_bytes(b"{")
    found = overview(context.results)
    assert (found.submissions, found.ended, found.damaged) == ([], 1, [damaged.folder])
    assert only(context, everything=True).head == "ended"


def test_a_folder_that_is_not_there_has_nothing(context):
    found = overview(context.results)
    assert not any(vars(found).values())
    assert not context.results.exists()
