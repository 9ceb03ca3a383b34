"""A command takes over what an earlier one left on a cluster, where it is the same and nobody's."""

from pathlib import Path

import pytest

from dgm_bench import provenance
from dgm_bench.engines.board import Board, Submission, TaskState
from dgm_bench.engines.earlier import taken_over
from dgm_bench.engines.tasks import Job, Task, Terms
from dgm_bench.engines.worker import _begun
from dgm_bench.paths import PACKAGE
from dgm_bench.processes import own_mark

TASK = Task(id="t", cells=("a/b/c/d",), seeds=(0,), settings=(), recipe_hash="0" * 64)
TERMS = Terms(data_root=Path("/d"), results=Path("/r"), device="cpu", threads=1, offline=False)
OTHER = TERMS.model_copy(update={"device": "cuda"})
MACHINE = own_mark().rpartition("-")[2]
GONE = f"999999999999-1-{MACHINE}"


class Cluster:
    """An engine whose jobs last."""

    name, slots = "slurm", None

    def __init__(self):
        self.handles = {}

    def adopt(self, board):
        return {"t": 2}

    def submit(self, job, board): ...
    def poll(self, seconds): ...
    def cancel(self, task_ids): ...
    def close(self): ...


def left(results, **changes):
    """Leave a submission of that task."""
    board = Board.new(results)
    submission = Submission.begun(board, "slurm", TERMS, [TASK])
    submission.process, submission.source_hash = GONE, provenance.source_hash(PACKAGE)
    board.save(submission.model_copy(update=changes))
    return board


def test_a_request_to_cancel_does_not_outlive_the_command_it_was_for(tmp_path):
    board = left(tmp_path)
    board.request_cancel()
    found, _ = taken_over(Cluster(), tmp_path, TERMS, [TASK])
    assert (found.id, found.cancel_requested("t")) == (board.id, False)


@pytest.mark.parametrize("process", [GONE, "1-1-another"], ids=["gone", "elsewhere"])
def test_what_nobody_follows_any_more_is_taken_over(tmp_path, process):
    board = left(tmp_path, process=process)
    found, attempts = taken_over(Cluster(), tmp_path, TERMS, [TASK])
    assert (found.id, attempts) == (board.id, {"t": 2})


@pytest.mark.parametrize(
    "changes",
    [
        {"process": own_mark()},
        {"ended": "2026-01-01T00:00:00Z"},
        {"source_hash": "another"},
        {"terms": OTHER},
        {"engine": "ray"},
        {"tasks": ()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_followed_or_over_or_not_the_same_is_left_alone(tmp_path, changes):
    board = left(tmp_path, **changes)
    found, attempts = taken_over(Cluster(), tmp_path, TERMS, [TASK])
    assert found.id != board.id
    assert attempts == {}


def test_an_attempt_that_goes_on_in_another_process_keeps_what_it_had_told():
    """Who follows has taken in its first messages and records."""
    before = TaskState(task="t", attempt=2, state="waiting", messages=["half"], step=3)
    job = Job(task=TASK, terms=TERMS, attempt=2)
    state = _begun(job, before)
    assert (state.state, state.messages, state.step) == ("running", ["half"], 0)
    assert _begun(job, before.model_copy(update={"attempt": 1})).messages == []
