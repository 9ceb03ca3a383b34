"""What a command makes of tasks that end, die, hang or are stopped: an engine without processes."""

from collections import Counter

import pytest
from engines.fake_engine import (
    Fake,
    Heard,
    Logger,
    after,
    dies,
    dies_unseen,
    done,
    follow,
    goes_on,
    planned,
    rows,
)
from factories import make_budget, make_context

from dgm_bench.engines import Ended, head
from dgm_bench.engines.board import Ending, Fault
from dgm_bench.engines.head import run_on
from dgm_bench.engines.tasks import task_of
from dgm_bench.errors import DataError, ResultsError, UsageError
from dgm_bench.records import Segment, utc_now
from dgm_bench.summary import RunSummary
from dgm_bench.workdir import RunState, WorkFolder

pytestmark = pytest.mark.usefixtures("quick")


def test_all_is_in_the_plans_order_whichever_ends_first(context):
    acts = {"a": [after(3, done)], "b": [after(2, done)], "c": [done]}
    logger = Logger()
    engine, summary, left = follow(context, acts, logger=logger)
    assert rows(summary.finished) == ["a", "b", "c"]
    assert not left
    assert Counter(logger.logged) == {record.run_id: 1 for record in summary.finished}
    finished = [what for what, *_ in context.reporter.said if what == "run_finished"]
    assert len(finished) == 3
    assert not engine.board.folder.exists()  # nothing is left to look up


def test_no_more_is_submitted_than_there_is_room_for(context):
    acts = {row: [after(place, done)] for place, row in enumerate("abcd", 1)}
    engine, *_ = follow(context, acts, slots=2)
    assert len(engine.submitted) == 4
    one, *_ = follow(make_context(context.results / "x", reporter=Heard()), acts, slots=None)
    assert len(one.submitted) == 4


def test_a_task_whose_worker_died_has_the_next_turn(context):
    engine, summary, _ = follow(context, {"a": [dies, done], "b": [done], "c": [done]}, slots=1)
    assert [(job.task.cells[0][-8], job.attempt) for job in engine.submitted]
    assert [job.attempt for job in engine.submitted] == [1, 2, 1, 1]
    assert rows(summary.finished) == ["a", "b", "c"]
    (text,) = context.reporter.texts()
    assert text == (
        "Title of ffjord/density/a/digits: its process died (killed); "
        "it goes on from its checkpoint"
    )


@pytest.mark.parametrize("death", [dies, dies_unseen])
def test_a_task_that_dies_at_the_same_place_is_given_up_and_the_others_are_done(context, death):
    engine, summary, left = follow(context, {"a": [death], "b": [done]})
    assert [job.attempt for job in engine.submitted if job.task.cells[0].endswith("a/digits")] == [
        1, 2, 3,
    ]  # fmt: skip
    assert summary.lost == [
        ("ffjord/density/a/digits", "its process died (killed), 3 times at the same place")
    ]
    assert rows(summary.finished) == ["b"]
    assert not left
    state = engine.board.state(engine.submitted[0].task.id)
    assert state.state == "lost"
    assert "3 times" in state.fault.reason


def test_a_task_that_gets_further_each_time_is_not_given_up(context):
    deaths = [lambda engine, job: dies(engine, job, step=job.attempt) for _ in range(9)]
    engine, summary, _ = follow(context, {"a": [*deaths, done]})
    assert [job.attempt for job in engine.submitted] == list(range(1, 11))
    assert rows(summary.finished) == ["a"]
    assert not summary.lost


def test_further_means_further_than_ever(context):
    acts = [lambda engine, job: dies(engine, job, step=100 * (job.attempt % 2))]
    engine, summary, _ = follow(context, {"a": acts})
    assert len(engine.submitted) == 3
    assert summary.lost


def test_seeds_that_were_recorded_are_not_done_again(context):
    def dies_between(engine, job):
        first = Ending(place=engine.record(job, job.task.seeds[0]), title="T")
        engine.state(job, "running", records=[first])
        return Ended(job.task.id, "killed")

    engine, summary, _ = follow(context, {"a": [dies_between, done]}, seeds=3)
    assert [job.task.seeds for job in engine.submitted] == [(0, 1, 2), (1, 2)]
    assert len({job.task.id for job in engine.submitted}) == 1
    assert [record.seed for record in summary.finished] == [0, 1, 2]


@pytest.mark.parametrize("status", ["complete", "diverged"])
def test_a_record_that_a_dying_worker_could_not_note_counts(context, status):
    now = Segment(started=utc_now(), ended=utc_now(), host="here", reason="done")

    def records_and_dies(engine, job):
        budget = make_budget(segments=(now,))
        place = engine.record(job, 0, status=status, budget=budget)
        folder = WorkFolder(context.results, job.task.recipe_hash, 0)
        folder.save(RunState(run_id="r", created="c", status=status, record=f"runs/{place}"))
        return Ended(job.task.id, "killed")

    logger = Logger()
    engine, summary, _ = follow(context, {"a": [records_and_dies]}, logger=logger)
    assert len(engine.submitted) == 1
    assert len(summary.finished + summary.failed) == 1
    assert len(logger.logged) == 1


def test_what_was_recorded_before_the_command_is_done_again_where_it_failed(context):
    def dies_at_first(engine, job):
        place = engine.record(job, 0, status="diverged")  # its segment is of January
        folder = WorkFolder(context.results, job.task.recipe_hash, 0)
        folder.save(RunState(run_id="r", created="c", status="diverged", record=f"runs/{place}"))
        return Ended(job.task.id, "killed")

    engine, summary, _ = follow(context, {"a": [dies_at_first, done]})
    assert len(engine.submitted) == 2
    assert not summary.failed


def test_records_of_before_are_neither_told_nor_logged(context):
    def finds(engine, job):
        engine.state(job, "done", earlier=[engine.record(job, 0)])
        return Ended(job.task.id)

    logger = Logger()
    _, summary, _ = follow(context, {"a": [finds]}, logger=logger)
    assert rows(summary.finished) == ["a"]
    assert not logger.logged
    assert "run_finished" not in {what for what, *_ in context.reporter.said}


def test_a_record_that_the_next_attempt_finds_counts_once(context):
    places = []

    def records_and_dies(engine, job):
        places.append(engine.record(job, 0))
        return dies(engine, job, records=[Ending(place=places[0], title="T")])

    def finds(engine, job):
        engine.state(job, "done", earlier=places)
        return Ended(job.task.id)

    _, summary, _ = follow(context, {"a": [records_and_dies, finds]}, seeds=2)
    assert [record.seed for record in summary.finished] == [0]


def test_an_end_that_is_told_twice_counts_once(context):
    def done_twice(engine, job):
        return [done(engine, job), Ended(job.task.id, "killed")]

    engine, summary, _ = follow(context, {"a": [done_twice], "b": [done]})
    assert len(engine.submitted) == 2
    assert rows(summary.finished) == ["a", "b"]


def test_a_note_of_an_earlier_attempt_is_not_taken_for_this_ones(context):
    def talks_and_dies(engine, job):
        return dies(engine, job, messages=["once"])

    engine, summary, _ = follow(context, {"a": [talks_and_dies, dies_unseen, done]})
    assert [job.attempt for job in engine.submitted] == [1, 2, 3]
    assert sum("once" in text for text in context.reporter.texts()) == 1
    assert rows(summary.finished) == ["a"]


# ------------------------------------------------------------------------------ stopping


def stops_when_asked(engine, job):
    if not engine.cancelled:
        return goes_on(engine, job)
    engine.state(job, "stopped", stop_reason="SIGTERM", left=list(job.task.seeds))
    return Ended(job.task.id)


def request_after(control, polls, act):
    def inner(engine, job):
        if engine.polls == polls:
            control.request("Ctrl-C")
        return act(engine, job)

    return inner


def test_when_it_is_to_stop_all_workers_are_told_once_and_waited_for(context):
    first = request_after(context.control, 3, stops_when_asked)
    acts = {"a": [first], "b": [stops_when_asked], "c": [done]}
    engine, summary, left = follow(context, acts)
    assert engine.cancelled == [sorted(job.task.id for job in engine.submitted)]
    assert [run.cell.row.id for run in left] == ["a", "b", "c"]
    assert len(engine.submitted) == 2
    assert context.reporter.texts() == ["stopped (Ctrl-C); the same command goes on from here"]
    summary.leave(left, context)
    assert summary.interrupted
    assert not summary.unfinished


def test_a_worker_that_hangs_is_not_waited_for(context, monkeypatch):
    monkeypatch.setattr(head, "GIVEN_UP", -1.0)
    hangs = request_after(context.control, 2, lambda engine, job: None)
    engine, _, left = follow(context, {"a": [lambda e, j: goes_on(e, j) or hangs(e, j)]})
    assert [run.cell.row.id for run in left] == ["a"]
    assert engine.cancelled


@pytest.mark.parametrize("left", [[1], []])
def test_what_others_stopped_is_left_for_the_same_command(context, left):
    def stopped(engine, job):
        first = Ending(place=engine.record(job, 0), title="T")
        engine.state(job, "stopped", stop_reason="SIGTERM", left=left, records=[first])
        return Ended(job.task.id, "killed")

    engine, summary, left = follow(context, {"a": [stopped], "b": [done]}, seeds=2)
    assert [job.attempt for job in engine.submitted] == [1, 1]
    assert [(run.cell.row.id, run.seed) for run in left] == [("a", 1)]
    assert rows(summary.finished) == ["a", "b", "b"]
    (text,) = context.reporter.texts()
    assert "stopped (SIGTERM); the same command goes on" in text


def test_a_run_that_is_cancelled_is_left_and_the_others_are_done(context):
    def cancelled(engine, job):
        engine.board.request_cancel([job.task.id])
        return stops_when_asked(engine, job) if engine.polls > 4 else goes_on(engine, job)

    engine, summary, left = follow(context, {"a": [cancelled], "b": [after(5, done)]})
    assert engine.cancelled == [[engine.submitted[0].task.id]]
    assert summary.cancelled == ["ffjord/density/a/digits"]
    assert rows(summary.finished) == ["b"]
    assert not left


def test_a_waiting_run_that_is_cancelled_never_begins(context):
    def cancels_other(engine, job):
        engine.board.request_cancel([task_of(planned("b").runs).id])
        return done(engine, job)

    engine, summary, _ = follow(context, {"a": [cancels_other], "b": [done]}, slots=1)
    assert len(engine.submitted) == 1
    assert summary.cancelled == ["ffjord/density/b/digits"]


# -------------------------------------------------------------------------------- faults


def broken(error, state="failed"):
    def act(engine, job):
        engine.state(job, state, fault=Fault.of(error))
        return Ended(job.task.id)

    return act


@pytest.mark.parametrize("late", ["a", "b"])
def test_the_first_fault_in_order_is_the_one_that_is_raised(context, late):
    faults = {"a": broken(ResultsError("first", "is full")), "b": broken(DataError("second", "x"))}
    acts = {row: [after(4 if row == late else 1, act)] for row, act in faults.items()}
    _, summary, _ = follow(context, {**acts, "c": [done]})
    assert isinstance(summary.broken, ResultsError)
    assert summary.broken.thing == "first"
    assert rows(summary.finished) == ["c"]
    assert any("not done: second: x" in text for text in context.reporter.texts())


def test_a_task_that_the_engine_does_not_take_ends_the_command_in_good_order(context):
    engine = Fake(context, {"a": [stops_when_asked], "b": [done]})
    submit = engine.submit

    def refuses(job, board):
        if len(engine.submitted) == 1:
            raise UsageError("sbatch", "says no")
        submit(job, board)

    engine.submit = refuses
    with pytest.raises(UsageError, match="sbatch"):
        run_on(engine, planned("ab"), context, RunSummary(), Logger())
    assert engine.closed
    assert engine.cancelled


def test_a_damaged_record_is_told_at_the_end(context):
    def damages(engine, job):
        place = engine.record(job, 0)
        (context.results / "runs" / place).write_text("{}")
        engine.state(job, "done", records=[Ending(place=place, title="T")])
        return Ended(job.task.id)

    _, summary, _ = follow(context, {"a": [damages], "b": [done]})
    assert summary.broken is not None
    assert rows(summary.finished) == ["b"]


def test_the_budget_leaves_runs_out_that_it_has_no_time_for(context):
    _, summary, _ = follow(context, {"a": [done], "b": [done]}, budget=1e-9)
    assert [cell for cell, _ in summary.left_out] == [f"ffjord/density/{r}/digits" for r in "ab"]
