"""What a worker writes to the board of what becomes of its job; the runs themselves are made up."""

import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from factories import make_context, make_record

from dgm_bench.catalog import load_catalog
from dgm_bench.control import Interrupted, ask
from dgm_bench.engines import worker
from dgm_bench.engines.board import Board
from dgm_bench.engines.tasks import Job, task_of, terms_of
from dgm_bench.errors import DataError, ResultsError
from dgm_bench.events import CurveRows, Progress
from dgm_bench.planner import PlannedRun
from dgm_bench.session import Session
from dgm_bench.spec import DataSpec

CELL = "ffjord/density/made/8gaussians"
STEP = Progress(5, 9, 0.5, 1.0, None, 2.0, 3.0, 2.5, 1e-3, 1, 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0.01)
    monkeypatch.setattr(worker, "_last", [])


@pytest.fixture
def job(tmp_path):
    cell = load_catalog().select(CELL)[0]
    runs = [PlannedRun(cell, (cell.id,), seed, cell.recipe, runs=True) for seed in (0, 1)]
    return Job(task=task_of(runs), terms=terms_of(make_context(tmp_path)), attempt=2)


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


@pytest.fixture
def do(job, board, monkeypatch):
    """Do the job with runs that do what a function says, and return what the board says of it."""

    def done(act, changed=job, **options):
        monkeypatch.setattr(Session, "run", act)
        worker.do(changed, board, **options)
        return board.state(job.task.id)

    return done


def until_asked_to_stop(session, group, limit):
    """Work that asks, as all does; its reason to stop is told."""
    until = time.monotonic() + 20
    try:
        while time.monotonic() < until:
            ask()
            time.sleep(0.005)
    except Interrupted as stop:
        session.context.reporter.run_stopped(stop.reason)
        return group[1:]
    raise AssertionError("nobody asked it to stop")


def test_a_job_that_is_done_says_who_did_it_and_what_came_of_it(do, job):
    def act(session, group, limit):
        assert [run.seed for run in group] == [0, 1]
        assert {run.chosen_recipe.content_hash for run in group} == {job.task.recipe_hash}
        reporter = session.context.reporter
        reporter.run_started("T0", "3 nats", 7.0, None)
        reporter.run_started("T1", None, None, 40)
        reporter.progress(STEP)
        session.summary.skip("cell", "no data", session.context)
        session.summary.take(make_record(seed=0), session.context, None)
        session.summary.finished.append(make_record(seed=1))
        session.summary.unfinished.append("cell 2")
        return []

    state = do(act)
    assert (state.state, state.attempt, state.process, state.fault) == (
        "done",
        2,
        os.getpid(),
        None,
    )
    assert [(b.title, b.published, b.limit_seconds, b.resumed_at_step) for b in state.begun] == [
        ("T0", "3 nats", 7.0, None),
        ("T1", None, None, 40),
    ]
    assert (state.step, state.bad_validations, state.patience, state.best) == (5, 1, 4, 2.5)
    assert state.skipped == [("cell", "no data")]
    assert [ending.place for ending in state.records] == ["/".join(make_record(seed=0).place)]
    assert state.earlier == ["/".join(make_record(seed=1).place)]
    assert state.unfinished == ["cell 2"]


def test_a_record_is_noted_at_once(do, board, job, monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 60.0)

    def act(session, group, limit):
        session.summary.take(make_record(), session.context, None)
        assert len(board.state(job.task.id).records) == 1
        return []

    assert do(act).state == "done"


def test_of_many_messages_the_last_are_kept_and_the_others_counted(do):
    def act(session, group, limit):
        for number in range(worker.MOST_MESSAGES + 7):
            session.context.reporter.message(str(number))
        return []

    state = do(act)
    assert state.forgotten == 7
    assert state.messages[0] == "7"
    assert len(state.messages) == worker.MOST_MESSAGES


def test_of_the_rows_of_curves_the_newest_are_kept_and_the_others_counted(do):
    def act(session, group, limit):
        tell = partial(CurveRows, "run", "hash", 1, 7)
        session.context.live(tell(rows=tuple((n, 0.5, float("nan")) for n in range(50))))
        for n in range(worker.MOST_ROWS + 2):
            session.context.live(tell(stage="prior", rows=((50 + n, None, 1.0),)))
        return []

    state = do(act)
    assert state.curves_forgotten == 3
    assert [told.rows[0][0] for told in state.curves] == [*range(52, 72)]
    assert (state.curves[0].run_id, state.curves[0].stage) == ("run", "prior")
    assert state.model_dump_json().count("null") < 60, "the data is not repeated"


def test_what_the_package_warns_of_is_a_message(do, job):
    def act(session, group, limit):
        logging.getLogger("dgm_bench").warning("%s: set aside", "run.json")
        return []

    assert do(act).messages == ["run.json: set aside"]
    logging.getLogger("dgm_bench").warning("afterwards")
    again = job.model_copy(update={"attempt": 3})
    assert do(lambda *_: [], again).messages == []


def test_a_fault_of_the_user_is_told_as_it_is(do):
    def act(session, group, limit):
        raise ResultsError("results", "cannot be written", "free space")

    state = do(act)
    assert (state.state, state.fault.kind, state.fault.thing) == (
        "failed",
        "ResultsError",
        "results",
    )


def test_a_fault_of_the_program_keeps_its_traceback_beside_the_board(do):
    def act(session, group, limit):
        raise ZeroDivisionError("by nothing")

    state = do(act)
    assert (state.state, state.fault.exit_code) == ("failed", 3)
    assert "ZeroDivisionError: by nothing" in state.fault.reason
    assert "raise ZeroDivisionError" in Path(state.fault.remedy.rpartition(" ")[2]).read_text()


def test_broken_data_are_told_though_the_job_is_done(do):
    def act(session, group, limit):
        session.summary.broken = DataError("digits", "is truncated")
        return []

    state = do(act)
    assert (state.state, state.fault.thing) == ("done", "digits")


def test_another_recipe_than_was_planned_is_refused(do, job):
    other = job.task.model_copy(update={"recipe_hash": "0" * 64})
    state = do(lambda *_: [], job.model_copy(update={"task": other}))
    assert state.state == "failed"
    assert "has another recipe on" in state.fault.reason


# ------------------------------------------------------------------------------ stopping


def test_a_lost_command_stops_it_in_good_order(do):
    started = time.monotonic()
    gone = lambda: "its command is gone" if time.monotonic() > started + 0.1 else None  # noqa: E731
    state = do(until_asked_to_stop, gone=gone)
    assert (state.state, state.stop_reason, state.left) == ("stopped", "its command is gone", [1])
    assert not state.messages  # the command that is told says it in its own words


def test_a_command_that_was_lost_before_it_began_leaves_all(do):
    begun = []
    state = do(
        lambda s, group, _: begun.append(s.context.control.stop_reason()) or group,
        gone=lambda: "its command is gone",
    )
    assert begun == ["its command is gone"]
    assert (state.state, state.left) == ("stopped", [0, 1])


def test_a_request_on_the_board_stops_it(do, board):
    def act(session, group, limit):
        board.request_cancel()
        return until_asked_to_stop(session, group, limit)

    assert do(act).stop_reason == "cancelled"


def test_sigterm_stops_it_and_a_signal_that_is_ignored_stays_ignored(do):
    def act(session, group, limit):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert session.context.control.stop_reason() is None
        os.kill(os.getpid(), signal.SIGTERM)
        return until_asked_to_stop(session, group, limit)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert do(act).stop_reason == "SIGTERM"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_work_that_asks_nothing_is_seen_on_the_board(do, board, job):
    def act(session, group, limit):
        session.context.control.ask()
        time.sleep(0.3)
        quiet = board.state(job.task.id).quiet_seconds
        session.context.control.ask()
        time.sleep(0.05)
        assert quiet > 0.15 > board.state(job.task.id).quiet_seconds
        return []

    state = do(act)
    assert (state.state, state.fault) == ("done", None)


# ----------------------------------------------------------------------- what jobs share


def test_the_next_job_finds_the_data_of_the_last_one(do, job, monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setattr("dgm_bench.data.load", lambda name, *_, **__: loaded.append(name) or Kept())

    class Kept:
        verified = True

    def act(session, group, limit):
        session.source.load(DataSpec(name="8gaussians"), 0)
        assert session.source.context is session.context
        return []

    for _ in range(2):
        do(act)
    assert loaded == ["8gaussians"]
    elsewhere = job.terms.model_copy(update={"data_root": tmp_path / "other"})
    do(act, job.model_copy(update={"terms": elsewhere}))
    assert len(loaded) == 2


def test_threads_are_those_of_the_terms(do, job):
    import torch

    terms = job.terms.model_copy(update={"threads": 3})
    seen = []
    do(lambda *_: seen.append(torch.get_num_threads()) or [],
       job.model_copy(update={"terms": terms}))  # fmt: skip
    assert seen == [3]
