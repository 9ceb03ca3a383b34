"""What the trained stages of a run leave in its record: how they ended, and what they took."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dgm_bench.models.capabilities import SolvesODE
from dgm_bench.records import CUT_SHORT, Budget, Outcome, Scale, Segment
from dgm_bench.spec import Stage
from dgm_bench.train.loop import Trainer
from dgm_bench.train.tally import CURVE_COLUMNS


def outcome_of(ends: Sequence[str], trainers: Sequence[Trainer]) -> Outcome:
    """Say how the stages ended, each by its name where there are several."""
    endings = [_ending(ended, trainer) for ended, trainer in zip(ends, trainers, strict=True)]
    if len(trainers) > 1:
        endings = [f"{t.stage.name}: {text}" for t, text in zip(trainers, endings, strict=True)]
    hint = "the same command with more --budget goes on"
    short = "budget" in ends
    return Outcome(
        status=CUT_SHORT if short else "complete",
        reason="; ".join(endings),
        hint=hint if short else "",
    )


def budget_of(
    trainers: Sequence[Trainer],
    limit_seconds: float | None,
    evaluation_seconds: float,
    peak_memory_bytes: int,
) -> Budget:
    """Return what the stages took together.

    Args:
        trainers: Of the stages that began.
        limit_seconds: What training and validation were allowed, or None.
        evaluation_seconds: What the evaluation took.
        peak_memory_bytes: Of the GPU, or else of the process.
    """
    tallies = [trainer.tally for trainer in trainers]
    models = [trainer.model for trainer in trainers]
    counts = [model.function_evaluations for model in models if isinstance(model, SolvesODE)]
    return Budget(
        limit_seconds=limit_seconds,
        train_seconds=sum(tally.train_seconds for tally in tallies),
        train_seconds_of_others=sum(tally.seconds_of_others for tally in tallies),
        seeds_together=max((tally.together for tally in tallies), default=1),
        validation_seconds=sum(tally.validation_seconds for tally in tallies),
        evaluation_seconds=evaluation_seconds,
        steps=sum(tally.step for tally in tallies),
        epochs=sum(trainer.state.epoch for trainer in trainers),
        examples=sum(tally.examples for tally in tallies),
        function_evaluations=sum(counts) if counts else None,
        peak_memory_bytes=peak_memory_bytes,
        best_step=tallies[-1].best_step if tallies else None,
        segments=tuple(Segment(**s) for tally in tallies for s in tally.segments),
    )


def scale_of(stage: Stage, trainers: Sequence[Trainer], examples: int) -> Scale:
    """Return how large a run is: its last stage's batch and precision, all stages' parameters.

    Args:
        stage: The last that the recipe declares.
        trainers: Of the stages that began.
        examples: Number of training examples, which no batch exceeds.
    """
    models = [trainer.model for trainer in trainers]
    return Scale(
        global_batch=min(stage.batch_size, examples),
        world_size=trainers[-1].world.size if trainers else 1,
        precision=trainers[-1].state.precision if trainers else stage.precision,
        parameters=sum(p.numel() for model in models for p in model.parameters()),
    )


def curve_csv(trainers: Sequence[Trainer]) -> bytes:
    """Return the curves of all stages, with the number of the stage where there are several."""
    curves = [trainer.tally.curve for trainer in trainers]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    several = len(curves) > 1
    writer.writerow((*CURVE_COLUMNS, "stage") if several else CURVE_COLUMNS)
    for stage, rows in enumerate(curves):
        writer.writerows([*row, stage] if several else row for row in rows)
    return text.getvalue().encode()


def _ending(ended: str, trainer: Trainer) -> str:
    tally, stop = trainer.tally, trainer.stage.stopping
    return {
        "budget": f"out of budget after {tally.seconds:.0f} s, {tally.step} steps",
        "patience": f"more than {stop.patience} validations without improvement",
        "max_steps": f"reached {stop.max_steps} steps",
        "max_epochs": f"reached {stop.max_epochs} epochs",
    }[ended]
