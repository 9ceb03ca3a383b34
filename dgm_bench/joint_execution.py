"""Several runs at once: seeds of one recipe, trained together and then concluded one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from dgm_bench.errors import RunFailure
from dgm_bench.execution import Execution
from dgm_bench.records import Outcome, RunRecord
from dgm_bench.train.loop import Trainer
from dgm_bench.train.memory import failures
from dgm_bench.train.together import TrainersTogether, align


def train_together(executions: Sequence[Execution]) -> list[Callable[[], RunRecord]]:
    """Train runs together; return for each what evaluates and records it, in the same order.

    Args:
        executions: Of one recipe with one stage, each with a seed of its own.

    Raises:
        Interrupted: When it is time to stop, with what is done kept.
        DgmBenchError: When something the user can put right is in the way.
    """
    recorded = [execution.begin() for execution in executions]
    waiting = [e for e, record in zip(executions, recorded, strict=True) if record is None]
    ends = dict(zip(waiting, _trained(waiting), strict=True))
    return [
        partial(_conclude, execution, ends[execution]) if record is None else partial(_same, record)
        for execution, record in zip(executions, recorded, strict=True)
    ]


def _trained(executions: Sequence[Execution]) -> Sequence[str | RunFailure]:
    """Return how each training ended."""
    seeds = [execution.run_.seed for execution in executions]
    try:
        with failures():
            trainers = [_opened(execution) for execution in executions]
            align(trainers)
            for execution in executions[:1]:
                execution.speak_of(seeds)
            return TrainersTogether(trainers).run()
    except RunFailure as failure:  # of all: there is no memory for them
        return [failure] * len(executions)


def _opened(execution: Execution) -> Trainer:
    trainer = execution.open_stage(0, execution.limit_seconds)
    trainer.shown_as = f"seed {execution.run_.seed}"
    trainer.state.hold_generators()
    return trainer


def _conclude(execution: Execution, ended: str | RunFailure) -> RunRecord:
    for trainer in execution.trainers:
        trainer.state.resume_generators()
    execution.speak_of([execution.run_.seed])
    return execution.conclude(partial(_outcome, execution, ended))


def _outcome(execution: Execution, ended: str | RunFailure) -> tuple[Outcome, nn.Module]:
    if isinstance(ended, RunFailure):
        raise ended
    return execution.trained_elsewhere(ended, execution.trainers[0].clock.elapsed())


def _same(record: RunRecord) -> RunRecord:
    return record
