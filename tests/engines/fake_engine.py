"""An engine without processes: what its workers would write to the board, a test says."""

import time

from factories import make_record
from planner_parts import MACHINE, a_cell, a_recipe

from dgm_bench.engines import Ended
from dgm_bench.engines.board import Ending, TaskState
from dgm_bench.engines.head import run_on
from dgm_bench.events import Reporter
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import write_record
from dgm_bench.summary import RunSummary


class Heard(Reporter):
    """Keeps what is said, a word and its text each."""

    def __init__(self):
        self.said = []

    def __getattribute__(self, name):
        known = ("said", "texts", "__class__")
        if name in known:
            return object.__getattribute__(self, name)
        return lambda *args, **options: self.said.append((name, *args, *options.values()))

    def texts(self):
        return [text for what, *rest in self.said for text in rest[:1] if what == "message"]


class Logger:
    def __init__(self, seconds=0.0):
        self.seconds, self.logged = seconds, []

    def log(self, record):
        time.sleep(self.seconds)
        self.logged.append(record.run_id)


class Fake:
    """Does what a test says of each attempt at each task, when it is asked how jobs go.

    Args:
        context: Whose results folder gets the records.
        acts: What an attempt does, by its row; the last one is repeated. Each returns how it ends,
            or None where it goes on.
        slots: Jobs at once.
    """

    name = "local"

    def __init__(self, context, acts, slots=2):
        self.context, self.acts, self.slots = context, acts, slots
        self.jobs, self.submitted, self.cancelled = {}, [], []
        self.closed, self.polls = False, 0

    def submit(self, job, board):
        self.board = board
        self.submitted.append(job)
        self.jobs[job.task.id] = job

    def poll(self, seconds):
        self.polls += 1
        assert self.polls < 300, "it goes on for ever"
        ended = []
        for task_id, job in list(self.jobs.items()):
            acts = self.acts[job.task.cells[0].split("/")[2]]
            end = acts[min(job.attempt, len(acts)) - 1](self, job)
            if end is not None:
                del self.jobs[task_id]
                ended += [end] if isinstance(end, Ended) else end
        return ended

    def cancel(self, task_ids):
        self.cancelled.append(sorted(task_ids))

    def close(self):
        self.closed = True

    def state(self, job, state, **fields):
        note = TaskState(task=job.task.id, attempt=job.attempt, state=state, **fields)
        self.board.note(note)

    def record(self, job, seed, **overrides):
        """Write a record of a run; return its place."""
        recipe = next(r for r in RECIPES.values() if r.content_hash == job.task.recipe_hash)
        number = f"{len(self.submitted):03}{seed:03}-{job.task.recipe_hash[:8]}"
        cell = a_cell(job.task.cells[0].split("/")[2], recipe=recipe)
        record = make_record(cell, seed=seed, run_id=f"20260101t{number}", **overrides)
        write_record(record, self.context.results)
        return "/".join(record.place)


RECIPES = {row: a_recipe(lr=lr, launches=1000) for lr, row in enumerate("abcd", 1)}


def done(engine, job, **fields):
    endings = [Ending(place=engine.record(job, s), title=f"T{s}") for s in job.task.seeds]
    engine.state(job, "done", records=endings, **fields)
    return Ended(job.task.id)


def dies(engine, job, reason="killed", **fields):
    engine.state(job, "running", title=f"Title of {job.task.cells[0]}", **fields)
    return Ended(job.task.id, reason)


def dies_unseen(engine, job):
    return Ended(job.task.id, "killed")


def goes_on(engine, job):
    engine.state(job, "running", title="Going", step=5, host="here", process=77)


def after(polls, act):
    return lambda engine, job: act(engine, job) if engine.polls >= polls else None


def planned(rows, seeds=1, budget=None):
    runs = [
        PlannedRun(cell, (cell.id,), seed, cell.recipe, seconds=1.0, runs=True)
        for cell in (a_cell(row, recipe=RECIPES[row]) for row in rows)
        for seed in range(seeds)
    ]
    return Plan(tuple(runs), budget, MACHINE)


def follow(context, acts, seeds=1, slots=2, logger=None, **options):
    """Return what became of a plan with a row for each of ``acts``."""
    engine, summary = Fake(context, acts, slots), RunSummary()
    plan = planned(acts, seeds, **options)
    left = run_on(engine, plan, context, summary, logger or Logger())
    assert engine.closed
    assert not engine.jobs or context.control.stop_reason()
    return engine, summary, left


def rows(records):
    return [record.row for record in records]
