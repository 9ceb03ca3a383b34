"""What lies on boards, who removes it, and requests to end runs."""

import os
import time
from functools import partial

import pytest
from board_parts import GONE, planned, submit
from factories import make_context

from dgm_bench.control import CANCELLED
from dgm_bench.engines import orphans, worker
from dgm_bench.engines.board import (
    Fault,
    TaskState,
    boards,
    file_system_time,
    submissions_folder,
)
from dgm_bench.engines.here import OwnBoard
from dgm_bench.engines.tasks import task_of
from dgm_bench.errors import ResultsError
from dgm_bench.events import Progress
from dgm_bench.planner import Machine, Plan
from dgm_bench.processes import own_mark

FIRST, SECOND = (task_of([run]).id for run in planned(0, 1))


@pytest.fixture
def context(tmp_path):
    return make_context(tmp_path)


@pytest.fixture
def submitted(context):
    """Put a submission of two runs on a board."""
    return partial(submit, context)


def test_a_request_is_for_the_tasks_that_it_names(submitted):
    board, other = submitted(), submitted()
    board.request_cancel([SECOND])
    assert [board.cancel_requested(task) for task in (FIRST, SECOND)] == [False, True]
    assert board.cancelled_among([FIRST, SECOND]) == [SECOND]
    assert not board.at_once_requested(SECOND)
    board.request_cancel(now=True)
    assert board.cancelled_among([FIRST, SECOND]) == [FIRST, SECOND]
    assert board.at_once_requested(FIRST)
    assert not other.cancelled_among([FIRST, SECOND])


@pytest.mark.parametrize("content", [b"", b"{", b'{"task": 3}', b"\xff" * 9])
def test_what_is_half_written_is_not_there(submitted, content):
    board = submitted({"state": "running"})
    (board.folder / "tasks" / f"{FIRST}.json").write_bytes(content)
    (board.folder / "tasks" / ".left.tmp").write_bytes(content)
    (board.folder / "submission.json").write_bytes(content)
    assert board.state(FIRST) is None
    assert list(board.states()) == []
    assert board.submission() is None


def test_who_reads_while_a_worker_writes_has_what_was_there_whole(submitted):
    board = submitted({"state": "running", "title": "before"})
    with (board.folder / "tasks" / f"{FIRST}.json").open() as file:
        board.note(TaskState(task=FIRST, title="after"))
        assert TaskState.model_validate_json(file.read()).title == "before"
    assert board.state(FIRST).title == "after"


def test_a_worker_can_write_where_its_board_was_removed_and_not_where_it_may_not(submitted):
    board = submitted()
    board.remove()
    board.note(TaskState(task=FIRST))
    assert board.state(FIRST).updated
    board.remove()
    board.folder.parent.parent.mkdir(parents=True, exist_ok=True)
    board.folder.parent.write_text("in the way")
    with pytest.raises(ResultsError, match="cannot be written"):
        board.note(TaskState(task=FIRST))


def test_a_submission_that_went_well_leaves_nothing(submitted, context):
    board = submitted({"state": "done"}, {"state": "stopped"})
    board.end(board.submission())
    assert not (context.results / "work").exists()


def test_a_submission_that_lost_a_task_is_kept_and_only_the_last_few(submitted, context):
    fault = Fault.of(ResultsError("a disk", "is full", "free space"))
    for _ in range(orphans.KEPT + 2):
        board = submitted({"state": "lost", "fault": fault})
        board.end(board.submission())
    before = boards(context.results)
    assert len(before) == orphans.KEPT + 2
    orphans.tidy(context.results)
    kept = boards(context.results)
    assert [board.id for board in kept] == [board.id for board in before[2:]]
    assert kept[-1].submission().ended


@pytest.mark.parametrize(
    ("process", "engine", "states", "removed"),
    [
        (GONE, "local", [{"state": "running", "mark": GONE}], True),
        (GONE, "local", [], True),
        (GONE, "local", [{"state": "running", "mark": own_mark()}], False),
        (GONE, "slurm", [{"state": "done"}, {"state": "lost"}], False),
        (GONE, "ray", [{"state": "done"}], True),
        (own_mark(), "local", [{"state": "running", "mark": GONE}], False),
        ("1-2-anothermachine", "local", [{"state": "running", "mark": GONE}], False),
    ],
    ids=["worker gone", "no worker", "worker here", "on Slurm", "on Ray", "command here", "far"],
)
def test_a_board_is_removed_once_nobody_can_write_to_it(
    submitted, context, process, engine, states, removed
):
    submitted(*states, process=process, engine=engine)
    orphans.tidy(context.results)
    assert (not boards(context.results)) == removed


def test_a_board_of_another_machine_or_without_its_file_goes_after_a_day(submitted, context):
    old, new = submitted(process="1-2-anothermachine"), submitted(process="1-2-anothermachine")
    without, fresh = submitted(), submitted()
    queued = submitted(process=GONE, engine="slurm")
    for board in (without, fresh):
        (board.folder / "submission.json").unlink()
    for board in (old, without, queued):
        for path in (*board.folder.rglob("*"), board.folder):
            os.utime(path, (0, time.time() - 2 * 24 * 3600))
    orphans.tidy(context.results)
    assert {board.id for board in boards(context.results)} == {new.id, fresh.id, queued.id}


def test_the_time_of_a_file_is_told_by_its_own_clock(submitted, tmp_path):
    board = submitted({"state": "running"})
    board.beat()
    now = file_system_time(board.folder)
    assert 0 <= now - board.silent_since() < 60
    assert 0 <= now - board.silent_since(FIRST) < 60
    assert board.silent_since(SECOND) is None
    assert file_system_time(tmp_path / "nowhere") is None
    assert not list(board.folder.glob(".*"))


# --------------------------------------------------------------------------- in this process


class StubSession:
    """Does runs until somebody asks for a stop."""

    def __init__(self, context):
        self.context, self.seen = context, []

    def run(self, runs, limit):
        self.context.reporter.run_started("a run", None, limit, None)
        self.context.reporter.progress(
            Progress(7, 10, 1.0, 2.0, limit, 3.0, 4.0, 4.0, 0.1, 0, None)
        )
        ends = time.monotonic() + 20
        while self.context.control.stop_reason() is None and time.monotonic() < ends:
            self.seen = [
                state for board in boards(self.context.results) for state in board.states()
            ]
            if self.seen[0].step:
                boards(self.context.results)[0].request_cancel([task_of(runs).id])
            time.sleep(0.01)
        return runs


def test_a_command_that_does_its_runs_itself_shows_and_heeds(context, monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0.02)
    runs = planned(0, 1)
    own = OwnBoard(Plan(tuple(runs), None, Machine.here("cpu")), context)
    session = StubSession(own.context)
    with own.shown():
        (shown,) = boards(context.results)
        assert [task.seeds for task in shown.submission().tasks] == [(0,), (1,)]
        assert own.done(session, runs[:1], 5.0) == runs[:1]
        assert context.control.stop_reason() == CANCELLED
        assert own.withdrawn(runs[:1])
        assert not own.withdrawn(runs[1:])
        assert context.control.stop_reason() is None
        assert (session.seen[0].state, session.seen[0].step) == ("running", 7)
        assert shown.state(FIRST).state == "stopped"
    assert not submissions_folder(context.results).exists()


def test_a_signal_counts_more_than_a_run_that_is_cancelled(context):
    control = context.control
    control.request(CANCELLED)
    control.request("SIGTERM")
    control.request(CANCELLED)
    control.go_on()
    assert control.stop_reason() == "SIGTERM"


def test_a_board_that_cannot_be_written_holds_up_no_run(context):
    runs = planned(0)
    own = OwnBoard(Plan(tuple(runs), None, Machine.here("cpu")), context)
    submissions_folder(context.results).parent.mkdir(parents=True)
    submissions_folder(context.results).write_text("in the way")
    session = StubSession(own.context)
    session.run = lambda runs, limit: ()
    with own.shown():
        assert own.done(session, runs, None) == ()
