"""Submissions as commands and workers put them on boards."""

import os

from factories import make_cell, make_recipe

from dgm_bench.engines.board import Board, Submission, TaskState
from dgm_bench.engines.tasks import task_of, terms_of
from dgm_bench.planner import PlannedRun
from dgm_bench.processes import own_mark

#: Of a process that this machine never had.
GONE = own_mark().replace(str(os.getpid()), "4194305", 1)


def planned(*seeds, row="maf"):
    """Return runs of the recipe of a row."""
    recipe = make_recipe(args={"layers": len(row)})
    cell = make_cell(row, recipe=recipe)
    return [PlannedRun(cell, (cell.id,), seed, recipe, runs=True) for seed in seeds]


def submit(context, *states, runs=(), engine="local", **changes):
    """Put a submission on a board, of two runs by default, with states of its first tasks."""
    board = Board.new(context.results)
    tasks = [task_of([run]) for run in runs or planned(0, 1)]
    asked = Submission.begun(board, engine, terms_of(context), tasks)
    board.save(asked.model_copy(update=changes))
    for task, state in zip(tasks, states, strict=False):
        board.note(TaskState(task=task.id, **state))
    return board
