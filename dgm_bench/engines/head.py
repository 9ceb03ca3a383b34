"""Follows a plan on an engine: submits its tasks, takes in what becomes of them, tries again.

Whatever happens to this process, the tasks' files and records stay as they are, and the same
command goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

from dgm_bench import errors, provenance
from dgm_bench.context import RunContext
from dgm_bench.engines import Ended, Engine, LastingEngine
from dgm_bench.engines.board import ENDED, Fault, Submission, TaskState
from dgm_bench.engines.earlier import taken_over
from dgm_bench.engines.news import News, Running
from dgm_bench.engines.prepare import prepare
from dgm_bench.engines.tasks import Job, task_of, tasks_of, terms_of
from dgm_bench.errors import DgmBenchError, ResultsError
from dgm_bench.events import stopped_line
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import read_record
from dgm_bench.summary import RunSummary
from dgm_bench.tracking import RunLogger
from dgm_bench.tracking.beside import LoggingBeside, logging_beside
from dgm_bench.turns import Turns
from dgm_bench.workdir import WorkFolder

#: How often a task is tried that gets no further.
TRIES = 3
#: Seconds after which it shows that it is still there, and looks for tasks that were cancelled.
BEAT = 2.0
#: Seconds between two questions to the engine.
PAUSE = 0.2
#: Seconds between two looks at the board, and for each thousand of tasks there.
LOOK, LOOK_OF_THOUSAND = 1.0, 2.0
#: Seconds of silence after which a worker is no longer waited for when the command is to leave.
GIVEN_UP = 20.0


def run_on(
    engine: Engine, plan: Plan, context: RunContext, summary: RunSummary, logger: RunLogger
) -> Sequence[PlannedRun]:
    """Do the runs of a plan on an engine; return those that are left when it has to leave.

    Args:
        engine: Starts the workers; closed at the end.
        plan: Which runs, and the budget they share.
        context: What they share besides.
        summary: Takes in what becomes of them, in the order of the plan.
        logger: Logs each record to MLflow as it comes: workers do not.

    Raises:
        DgmBenchError: The engine cannot take a task, or the board cannot be written.
    """
    if engine.slots is None:
        prepare(plan, context)
    with logging_beside(logger, context) as logging, closing(engine):
        left = _followed(_Head(engine, plan, context, summary, logging))
    summary.sort(plan.chosen)
    return left


def _followed(head: _Head) -> Sequence[PlannedRun]:
    try:
        return head.follow()
    except Exception:
        with suppress(DgmBenchError, OSError):
            head.leave()  # what is under way is to be kept
        raise


@dataclass
class _Tries:
    """The attempts at a task: how many, how far they got, and how many got no further."""

    attempts: int = 0
    reached: tuple[int, int, int] = (0, 0, 0)
    in_vain: int = 0
    stages: list[str] = field(default_factory=list)

    def failed(self, running: Running) -> None:
        """Note that an attempt failed."""
        self.attempts, state = running.job.attempt, running.state or TaskState(task="")
        if state.stage not in self.stages:
            self.stages.append(state.stage)
        now = len(running.recorded), self.stages.index(state.stage), state.step
        self.in_vain = 1 if now > self.reached else self.in_vain + 1
        self.reached = max(now, self.reached)


class _Head:
    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        context: RunContext,
        summary: RunSummary,
        logging: LoggingBeside | None,
    ) -> None:
        self.engine, self.context, self.summary = engine, context, summary
        self.terms = terms_of(context)
        tasks = tasks_of(plan)
        self.board, self.taken_over = taken_over(engine, context.results, self.terms, tasks)
        slots = engine.slots or max(len(tasks), 1)
        self.turns = Turns(plan, self._skip, slots, context.reporter.planned_again)
        self.news = News(self.board, context, summary, logging)
        self.running: dict[str, Running] = {}
        self.tries: dict[str, _Tries] = {}
        self.beat = self.looked = time.monotonic()
        self.heeded = set[str]()
        self.broken_at = len(tasks)
        self.task_ids = {(t.recipe_hash, seed): t.id for t in tasks for seed in t.seeds}
        self.submission = Submission.begun(self.board, engine.name, self.terms, tasks)
        self.submission.source_hash = provenance.source_hash(PACKAGE)
        if engine.slots is None:  # a cluster takes all at once: nothing is planned again
            self.turns.close()

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
            left += self.leave()
            self.context.reporter.message(stopped_line(stop))
        self.turns.close()
        self.board.end(self.submission)
        return [*left, *self.turns.left()]

    def leave(self) -> list[PlannedRun]:
        """Let all workers save and stop; return what they left."""
        with suppress(ResultsError):  # a full disk
            self.board.request_cancel()
        self.engine.cancel([task_id for task_id in self.running if task_id not in self.heeded])
        left, since = list[PlannedRun](), time.monotonic()
        while self.running and _any_heard(self.running.values(), since):
            left += self._take_in(self.engine.poll(PAUSE), leaving=True)
        return left + [run for running in self.running.values() for run in running.left()]

    # ---------------------------------------------------------------- what is under way

    def _submit(self) -> bool:
        """Give the engine what it has room for; say whether anything is under way."""
        while self.engine.slots is None or len(self.running) < self.engine.slots:
            turn = self.turns.next()
            if turn is None:
                break
            group, limit = turn
            task_id = self._noted(group)
            if self.board.cancel_requested(task_id):
                self.turns.over(group)
                self.summary.cancelled += [run.cell.id for run in group]
                continue
            had = self.taken_over.pop(task_id, None)
            attempt = had or (self.tries[task_id].attempts + 1 if task_id in self.tries else 1)
            task = task_of(group).model_copy(update={"id": task_id})
            job = Job(task=task, terms=self.terms, limit_seconds=limit, attempt=attempt)
            if had is None:
                self.engine.submit(job, self.board)
            self.running[task_id] = Running(group, job)
        return bool(self.running)

    def _show_and_heed(self) -> None:
        """Show every few seconds that this process is there; let go of what was cancelled."""
        if time.monotonic() - self.beat > BEAT:
            self.beat = time.monotonic()
            self.board.beat()
            asked = set(self.board.cancelled_among(self.running)) - self.heeded
            self.heeded |= asked
            if asked:  # once: a second SIGTERM leaves no time for a checkpoint
                self.engine.cancel(asked)

    def _note_handles(self) -> None:
        """Keep the engine's names of jobs, for people who look for them."""
        engine, known = self.engine, self.submission.handles
        if isinstance(engine, LastingEngine) and engine.handles != known:
            self.submission.handles = dict(engine.handles)
            self.board.save(self.submission)

    def _take_in(self, ended: Sequence[Ended], *, leaving: bool = False) -> list[PlannedRun]:
        """Tell what is new; return the runs that those tasks left which have ended."""
        pause = LOOK + LOOK_OF_THOUSAND * len(self.running) / 1000
        if time.monotonic() - self.looked >= pause:
            for running in self.running.values():
                self.news.look(running)
            self.news.show(self.running.values())
            self.looked = time.monotonic()
        left: list[PlannedRun] = []
        for end in ended:
            over = self.running.pop(end.task_id, None)
            if over is not None:  # else it was told before
                self.news.look(over)
                again, given_up = self._concluded(over, end.reason, leaving)
                self.turns.over(over.group, again, self.summary.new)
                left += given_up
        return left

    # ---------------------------------------------------------------- what became of tasks

    def _concluded(
        self, running: Running, reason: str | None, leaving: bool
    ) -> tuple[Sequence[PlannedRun], Sequence[PlannedRun]]:
        """Take in the end of a task; return the runs to try again, and those that are left."""
        state = running.state
        if state is not None and state.state in ENDED:
            left = self._outcome(running, state)
        else:
            left = [run for run in running.left() if not self._was_recorded(running, run)]
        if leaving or not left:
            return (), left
        if self.board.cancel_requested(running.job.task.id):
            self.summary.cancelled += [run.cell.id for run in left]
            return (), ()
        if state is not None and state.state in ENDED:
            why = state.stop_reason or "no reason given"
            self.context.reporter.message(stopped_line(why, f"{running.name}:"))
            return (), left
        return self._again(running, left, reason), ()

    def _again(
        self, running: Running, left: Sequence[PlannedRun], reason: str | None
    ) -> Sequence[PlannedRun]:
        """Return the runs of a worker that died, to be tried again unless in vain too often."""
        how = "its process died" + (f" ({reason})" if reason else "")
        tries = self.tries.setdefault(running.job.task.id, _Tries())
        tries.failed(running)
        if tries.in_vain < TRIES:
            self.context.reporter.message(f"{running.name}: {how}; it goes on from its checkpoint")
            return left
        self._lost(running, left, f"{how}, {TRIES} times at the same place")
        return ()

    def _outcome(self, running: Running, state: TaskState) -> list[PlannedRun]:
        """Take in how a task ended by itself; return the runs that it was stopped before."""
        for place in state.earlier:
            self.news.take(running, place, new=False)
        for cell_id, reason in state.skipped:
            self.summary.skip(cell_id, reason, self.context)
        self.summary.unfinished += state.unfinished
        self.summary.unavailable |= state.unavailable
        if state.fault is not None:
            self._broken(running, state.fault)
        if state.fault is not None and state.state == "failed":
            fault = f"{state.fault.thing}: {state.fault.reason}"
            self.context.reporter.message(f"{running.name}: not done: {fault}")
        if state.state != "stopped":
            return []
        # Where another than its worker stopped it, nobody says which.
        return [run for run in running.left() if run.seed in state.left or not state.left]

    def _broken(self, running: Running, fault: Fault) -> None:
        """Keep the fault of the first task in order: who is faster does not decide."""
        place = list(self.task_ids.values()).index(running.job.task.id)
        if self.summary.broken is None or place < self.broken_at:
            self.summary.broken, self.broken_at = _raised(fault), place

    def _was_recorded(self, running: Running, run: PlannedRun) -> bool:
        """Say whether a worker died just after it had recorded a run; take in the record."""
        folder = WorkFolder(self.context.results, run.chosen_recipe.content_hash, run.seed)
        state = folder.state()
        if state is None or state.status is None or state.record is None:
            return False
        with suppress(DgmBenchError):
            record = read_record(self.context.results / state.record)
            if record.budget.segments[-1].ended >= self.submission.created:
                self.news.take(running, "/".join(record.place))
        return run.seed in running.recorded

    def _lost(self, running: Running, left: Sequence[PlannedRun], reason: str) -> None:
        state = running.state or TaskState(task=running.job.task.id)
        died = DgmBenchError(running.name, reason, "the same command goes on")
        with suppress(ResultsError):
            self.board.note(state.model_copy(update={"state": "lost", "fault": Fault.of(died)}))
        self.summary.lost += [(run.cell.id, reason) for run in left]
        self.context.reporter.message(f"{running.name}: given up: {reason}")

    def _skip(self, run: PlannedRun, reason: str) -> None:
        if self._key(run) in self.task_ids:
            skipped = [(run.cell.id, reason)]
            with suppress(ResultsError):
                self.board.note(TaskState(task=self._id_of(run), state="done", skipped=skipped))
        self.summary.left_out.append((run.cell.id, reason))

    def _noted(self, group: Sequence[PlannedRun]) -> str:
        """Return the task of runs, which is put on the board where it was planned later."""
        if self._key(group[0]) not in self.task_ids:
            task = task_of(group)
            self.task_ids |= {self._key(run): task.id for run in group}
            self.submission.tasks += (task,)
            self.board.save(self.submission)
        return self._id_of(group[0])

    def _id_of(self, run: PlannedRun) -> str:
        return self.task_ids[self._key(run)]

    @staticmethod
    def _key(run: PlannedRun) -> tuple[str, int]:
        return run.chosen_recipe.content_hash, run.seed


def _any_heard(tasks: Collection[Running], since: float) -> bool:
    """Say whether a worker wrote a moment ago, or may still after this time."""
    return time.monotonic() - max(since, *(task.heard for task in tasks)) < GIVEN_UP


def _raised(fault: Fault) -> DgmBenchError:
    """Return the error that a worker met."""
    kind = getattr(errors, fault.kind, DgmBenchError)
    error: DgmBenchError = kind(fault.thing, fault.reason, fault.remedy)
    return error
