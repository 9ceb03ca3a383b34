"""What a command tells of tasks that others do."""

import threading

import pytest
from engines.fake_engine import Heard, Logger, dies, done, follow, goes_on, rows
from factories import make_context

from dgm_bench.engines import news
from dgm_bench.engines.board import Board

pytestmark = pytest.mark.usefixtures("quick")


def test_messages_are_told_once_with_the_name_of_their_run(context):
    def talks(engine, job):
        kept = [f"word {n}" for n in range(engine.polls, engine.polls + 3)]
        fields = {"title": "Model on data", "messages": kept, "forgotten": engine.polls}
        if engine.polls < 5:
            engine.state(job, "running", **fields)
            return None
        return done(engine, job, **fields)

    follow(context, {"a": [talks]})
    assert context.reporter.texts() == [f"Model on data: word {n}" for n in range(1, 8)]


def test_a_run_begins_once_and_then_goes_on(context):
    begun = {"begun": [{"title": "M, seed 0", "published": "3 nats", "limit_seconds": 9.0}]}

    def begins(engine, job):
        return dies(engine, job, **begun)

    def resumes(engine, job):
        return done(engine, job, begun=[{"title": "M, seed 0", "resumed_at_step": 40}])

    follow(context, {"a": [begins, resumes]})
    said = [rest for what, *rest in context.reporter.said if what == "run_started"]
    assert said == [["M, seed 0", "3 nats", 9.0, None]]
    assert "M, seed 0: goes on at step 40" in context.reporter.texts()


def test_a_silent_worker_is_told_once_and_let_live(context, monkeypatch):
    monkeypatch.setattr(news, "SILENT", 0.0)
    acts = [lambda e, j: goes_on(e, j) if e.polls == 1 else (done(e, j) if e.polls > 9 else None)]
    engine, summary, _ = follow(context, {"a": acts})
    (text,) = context.reporter.texts()
    assert text.startswith("Going: no sign of life for 0 s; where process 77 on here hangs")
    assert not engine.cancelled
    assert rows(summary.finished) == ["a"]


def test_work_that_hangs_is_told_though_its_process_writes(context):
    def stuck(engine, job):
        if engine.polls > 5:
            return done(engine, job)
        engine.state(job, "running", quiet_seconds=601.0, title="Going")
        return None

    follow(context, {"a": [stuck]})
    (text,) = context.reporter.texts()
    assert "no sign of life for 10 min" in text


def test_where_runs_stand_is_shown(context):
    follow(context, {"a": [lambda e, j: done(e, j) if e.polls > 3 else goes_on(e, j)]})
    shown = [runs for what, runs in (s[:2] for s in context.reporter.said) if what == "going"]
    assert shown
    ((title, event),) = shown[0]
    assert (title, event.step) == ("Going", 5)


def test_rows_of_curves_are_handed_on_once(context):
    class Shows(Logger):
        def __init__(self):
            super().__init__()
            self.steps = []

        def tell(self, told):
            self.steps += [row[0] for rows in told for row in rows.rows]

    def tells(engine, job):
        known = {"run_id": "r", "recipe_hash": job.task.recipe_hash, "seed": 0, "time": 7}
        kept = [{**known, "rows": [[n, 0.5]]} for n in range(engine.polls, engine.polls + 3)]
        fields = {"curves": kept, "curves_forgotten": engine.polls}
        if engine.polls >= 5:
            return done(engine, job, **fields)
        engine.state(job, "running", **fields)
        return None

    logger = Shows()
    follow(context, {"a": [tells]}, logger=logger)
    assert logger.steps == [1, 2, 3, 4, 5, 6, 7]


def test_mlflow_holds_up_nobody(context):
    holding = threading.Event()

    class Slow(Logger):
        def log(self, record):
            assert holding.wait(20)
            return f"MLflow does not have {record.row}"

    def last(engine, job):
        holding.set()  # it got its turn while the first was being logged
        return done(engine, job)

    follow(context, {"a": [done], "b": [last]}, slots=1, logger=Slow())
    assert context.reporter.texts() == ["MLflow does not have a", "MLflow does not have b"]


def test_nothing_is_logged_where_nobody_wants_it(tmp_path):
    context = make_context(tmp_path, reporter=Heard(), track=False)
    logger = Logger()
    follow(context, {"a": [done]}, logger=logger)
    assert not logger.logged


def test_the_board_shows_what_was_asked_for(context):
    def looks(engine, job):
        submission = Board(engine.board.folder).submission()
        assert [task.cells for task in submission.tasks] == [("ffjord/density/a/digits",)]
        assert submission.ended is None
        return done(engine, job)

    follow(context, {"a": [looks]})
