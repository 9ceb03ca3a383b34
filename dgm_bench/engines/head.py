"""Follows a plan on an engine: submits its tasks, takes in what becomes of them, tries again.

Whatever happens to this process, the tasks' files and records stay as they are, and the same
command goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from dgm_bench import errors, provenance
from dgm_bench.context import RunContext
from dgm_bench.engines import Ended, Engine, LastingEngine
from dgm_bench.engines.board import ENDED, Fault, Submission, TaskState
from dgm_bench.engines.earlier import taken_over
from dgm_bench.engines.tasks import Job, task_of, tasks_of, terms_of
from dgm_bench.errors import DgmBenchError
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import read_record
from dgm_bench.summary import RunSummary
from dgm_bench.tracking import RunLogger
from dgm_bench.turns import Turns

#: How often a task is tried whose worker dies.
TRIES = 3
#: Seconds after which it shows that it is still there, and looks for tasks that were cancelled.
BEAT = 2.0
#: Seconds between two looks at the engine and the board.
PAUSE = 0.2


def run_on(
    engine: Engine, plan: Plan, context: RunContext, summary: RunSummary, logger: RunLogger
) -> Sequence[PlannedRun]:
    """Do the runs of a plan on an engine; return those that are left when it has to leave.

    Args:
        engine: Starts the workers; closed at the end.
        plan: Which runs, and the budget they share.
        context: What they share besides.
        summary: Takes in what becomes of them.
        logger: Logs each record to MLflow as it comes: workers do not.

    Raises:
        DgmBenchError: The engine cannot take a task, or the board cannot be written.
    """
    with closing(engine):
        return _Head(engine, plan, context, summary, logger).follow()


@dataclass
class _Running:
    """A task that the engine has, and what was already told of its state."""

    runs: Sequence[PlannedRun]
    job: Job
    messages: int = 0
    records: int = 0


class _Head:
    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        context: RunContext,
        summary: RunSummary,
        logger: RunLogger,
    ) -> None:
        self.engine, self.context, self.summary, self.logger = engine, context, summary, logger
        self.terms = terms_of(context)
        tasks = tasks_of(plan)
        self.board, self.taken_over = taken_over(engine, context.results, self.terms, tasks)
        self.turns = Turns(plan, self._skip, engine.slots or max(len(tasks), 1))
        self.running: dict[str, _Running] = {}
        self.beat, self.heeded = time.monotonic(), set[str]()
        self.task_ids = {(t.recipe_hash, seed): t.id for t in tasks for seed in t.seeds}
        self.submission = Submission.begun(self.board, engine.name, self.terms, tasks)
        self.submission.source_hash = provenance.source_hash(PACKAGE)

    def follow(self) -> Sequence[PlannedRun]:
        """Submit and take in until nothing is left, or it is time to leave."""
        self.board.save(self.submission)
        if self.taken_over:
            text = f"{len(self.taken_over)} jobs of an earlier command go on: {self.board.folder}"
            self.context.reporter.message(text)
        left: list[PlannedRun] = []
        while (stop := self.context.control.stop_reason()) is None and self._submit():
            left += self._take_in(self.engine.poll(PAUSE))
            self._show_and_heed()
            self._note_handles()
        if stop is not None:
            left += self._leave()
        self.board.end(self.submission)
        return [*left, *self.turns.left()]

    def _show_and_heed(self) -> None:
        """Show every few seconds that this process is there; let go of what was cancelled."""
        if time.monotonic() - self.beat > BEAT:
            self.beat = time.monotonic()
            self.board.beat()
            asked = set(self.board.cancelled_among(self.running)) - self.heeded
            self.heeded |= asked
            if asked:  # once: a second SIGTERM leaves no time for a checkpoint
                self.engine.cancel(asked)

    def _submit(self) -> bool:
        """Give the engine what it has room for; say whether anything is under way."""
        while self.engine.slots is None or len(self.running) < self.engine.slots:
            turn = self.turns.next()
            if turn is None:
                break
            runs, limit = turn
            if self.board.cancel_requested(task_of(runs).id):
                self.summary.cancelled += [run.cell.id for run in runs]
                continue
            job = Job(task=task_of(runs), terms=self.terms, limit_seconds=limit)
            attempt = self.taken_over.get(job.task.id)
            if attempt is None:
                self.engine.submit(job, self.board)
            else:
                job = job.model_copy(update={"attempt": attempt})
            self.running[job.task.id] = _Running(runs, job)
        return bool(self.running)

    def _note_handles(self) -> None:
        """Keep the engine's names of jobs, for people who look for them."""
        engine, known = self.engine, self.submission.handles
        if isinstance(engine, LastingEngine) and engine.handles != known:
            self.submission.handles = dict(engine.handles)
            self.board.save(self.submission)

    def _leave(self) -> list[PlannedRun]:
        """Let all workers save and stop; return what they left."""
        self.board.request_cancel()
        self.engine.cancel(tuple(self.running))
        left: list[PlannedRun] = []
        while self.running:
            left += self._take_in(self.engine.poll(PAUSE), again=False)
        return left

    # ---------------------------------------------------------------- what became of tasks

    def _take_in(self, ended: Sequence[Ended], again: bool = True) -> list[PlannedRun]:
        """Tell what is new of each task; return the runs that those left which have ended."""
        over = {end.task_id: end.reason for end in ended}
        left: list[PlannedRun] = []
        for task_id, running in list(self.running.items()):
            state = self.board.state(task_id)
            if state is not None and state.attempt == running.job.attempt:
                self._tell(running, state)
            if task_id in over:
                del self.running[task_id]
                left += self._conclude(running, state, over[task_id], again)
        return left

    def _conclude(
        self, running: _Running, state: TaskState | None, reason: str | None, again: bool
    ) -> Sequence[PlannedRun]:
        """Take in the end of a task; try it again where its worker died."""
        job = running.job
        cancelled = again and self.board.cancel_requested(job.task.id)
        left = running.runs
        if state is not None and state.attempt == job.attempt and state.state in ENDED:
            left = self._outcome(running, state)
        elif again and not cancelled:
            return self._tried_again(running, reason)
        if not cancelled:
            return left
        self.summary.cancelled += [run.cell.id for run in left]
        return ()

    def _tried_again(self, running: _Running, reason: str | None) -> Sequence[PlannedRun]:
        """Try a task again whose worker died, unless it did so too often."""
        job = running.job
        died = "its process died" + (f" ({reason})" if reason else "")
        if job.attempt == TRIES:
            self._failed(running, died, TRIES)
            return ()
        self.context.reporter.message(
            f"{job.task.cells[0]}: {died}; it goes on from its checkpoint"
        )
        self.running[job.task.id] = _Running(
            running.runs, job.model_copy(update={"attempt": job.attempt + 1})
        )
        self.engine.submit(self.running[job.task.id].job, self.board)
        return ()

    def _tell(self, running: _Running, state: TaskState) -> None:
        """Take in the messages and records of a task that are new."""
        for text in state.messages[running.messages :]:
            self.context.reporter.message(text)
        running.messages = len(state.messages)
        for ending in state.records[running.records :]:
            self.context.reporter.about(ending.title, ending.published)
            self._took(ending.place)
        running.records = len(state.records)

    def _took(self, place: str) -> None:
        record = read_record(self.context.results / "runs" / place)
        self.summary.take(record, self.context, self.logger)

    def _outcome(self, running: _Running, state: TaskState) -> Sequence[PlannedRun]:
        """Take in how a task ended by itself; return the runs that it left."""
        for place in state.earlier:
            self.summary.finished.append(read_record(self.context.results / "runs" / place))
        for cell_id, reason in state.skipped:
            self.summary.skip(cell_id, reason, self.context)
        self.summary.unfinished += state.unfinished
        self.summary.unavailable |= state.unavailable
        if state.fault is not None:
            self.summary.broken = self.summary.broken or _raised(state.fault)
        if state.state == "stopped":
            done = len(state.records) + len(state.earlier) + len(state.skipped)
            return running.runs[done + len(state.unfinished) :]
        return ()

    def _failed(self, running: _Running, reason: str, tries: int) -> None:
        state = self.board.state(running.job.task.id) or TaskState(task=running.job.task.id)
        state.state, cell_id = "lost", running.runs[0].cell.id
        died = DgmBenchError(cell_id, f"{reason}, {tries} times", "the same command goes on")
        self.board.note(state.model_copy(update={"fault": Fault.of(died)}))
        for run in running.runs:
            self.summary.lost.append((run.cell.id, f"{reason}, {tries} times"))
            self.context.reporter.message(f"{run.cell.id} seed {run.seed}: {reason}")

    def _skip(self, run: PlannedRun, reason: str) -> None:
        task_id = self.task_ids[run.chosen_recipe.content_hash, run.seed]
        self.board.note(TaskState(task=task_id, state="done", skipped=[(run.cell.id, reason)]))
        self.summary.skip(run.cell.id, reason, self.context)


def _raised(fault: Fault) -> DgmBenchError:
    """Return the error that a worker met."""
    kind = getattr(errors, fault.kind, DgmBenchError)
    error: DgmBenchError = kind(fault.thing, fault.reason, fault.remedy)
    return error
