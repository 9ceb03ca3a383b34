"""How ``status`` shows what is under way: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dgm_bench.console import new_table
from dgm_bench.engines.interrupted import InterruptedRun
from dgm_bench.overview import Failure, Overview, SubmissionView, TaskView
from dgm_bench.planner import duration
from dgm_bench.progress import fraction_done, how_far, number, time_left

#: Tasks and runs that are shown one by one; JSON has all.
MOST_ROWS = 40


def status_view(found: Overview, where: str) -> RenderableType:
    """Return what runs where, what failed, and what waits to be gone on with.

    Args:
        found: What was found.
        where: The results folder.
    """
    parts = [part for view in found.submissions for part in _submission(view)]
    if not any(view.head != "ended" for view in found.submissions):
        parts.append(Text(f"Nothing is under way in {where}.", overflow="fold"))
    parts += [_warning(f"{folder} is damaged and not shown") for folder in found.damaged]
    if found.ended:
        which = "1 submission" if found.ended == 1 else f"{found.ended} submissions"
        parts.append(Text(f"{which} ended with something that failed: dgm-bench status --all"))
    if found.interrupted:
        parts += [Text(), *_interrupted(found.interrupted)]
    return Group(*parts)


def _submission(view: SubmissionView) -> Iterator[RenderableType]:
    asked = view.submission
    head = f"{asked.id}: {asked.engine}, on {asked.host} since {asked.created}: "
    yield Text(head, style="bold", overflow="fold").append(asked.command, style="not bold")
    counts = ", ".join(f"{n} {state}" for state, n in view.counts.items() if n)
    left = view.seconds_left
    yield Text(counts + (f"; about {duration(left)} left" if left else ""))
    if view.head == "gone":
        yield _warning(f"its command is gone; the same goes on: {asked.command}")
    elif view.head == "silent":
        yield _warning(f"no sign of its command for {duration(view.silent_seconds)}: host gone?")
    if view.running:
        yield from (_running(view.running[:MOST_ROWS]), *_more(len(view.running)))
    failures = [failure for task in view.tasks for failure in task.failures]
    yield from (_failure(failure) for failure in failures[:MOST_ROWS])
    yield from (*_more(len(failures)), Text())


def _running(views: Sequence[TaskView]) -> RenderableType:
    numbers = ("done", "loss", "best", "left at most")
    table = new_table("run", "where", "since", "at", *numbers, right=numbers)
    for view in views:
        state = view.state
        name = Text(state.title or view.name)
        if view.gone:
            name.append("\nits process is gone", style="yellow")
        elif view.silent_seconds is not None:
            told = f"\nno sign for {duration(view.silent_seconds)}: host gone?"
            name.append(told, style="yellow")
        if state.attempt > 1:
            name.append(f"\ntry {state.attempt}", style="yellow")
        loss = state.validation if state.validation is not None else state.train_loss
        table.add_row(
            name,
            f"{state.host} {state.device}",
            state.started,
            _place(view),
            " ".join(how_far(state.progress)) or "-",
            number(loss),
            number(state.best),
            duration(time_left(view.state.progress)),
        )
    return table


def _place(view: TaskView) -> str:
    """Return how far a task is, in words."""
    state = view.state
    if not state.step:
        return "starting"
    stage = f"{state.stage} " if state.stage else ""
    return f"{stage}epoch {state.epoch:.1f}, step {state.step}"


def _failure(failure: Failure) -> Text:
    remedy = f"; {failure.remedy}" if failure.remedy else ""
    return Text(f"{failure.what}: {failure.reason}{remedy}", style="red", overflow="fold")


def _interrupted(runs: Sequence[InterruptedRun]) -> Iterator[RenderableType]:
    yield Text("Interrupted, with a checkpoint", style="bold")
    for run in runs[:MOST_ROWS]:
        name = f"{run.cell} seed {run.seed}" if run.cell else run.folder
        step = "" if run.step is None else f", step {run.step}"
        why = "out of budget " if run.out_of_budget else ""
        place = f"{run.stage}{step}, {why}since {run.since}"
        yield Text(f"{name}: {place}; goes on with {run.command}", overflow="fold")
    yield from _more(len(runs))


def _more(count: int) -> Iterator[Text]:
    if count > MOST_ROWS:
        yield Text(f"and {count - MOST_ROWS} more: dgm-bench status --json")


def _warning(text: str) -> Text:
    return Text(text, style="yellow", overflow="fold")


# --------------------------------------------------------------------------- JSON


def status_json(found: Overview) -> dict[str, Any]:
    """Return what ``status --json`` prints; what is not known is None.

    ``{"submissions": [{"id", "engine", "command", "host", "head": "there" | "gone" | "silent" |
    "ended", "silent_seconds", "created", "ended", "seconds_left", "counts": {"waiting", "running",
    "done", "stopped", "failed", "lost"}, "tasks": [...]}], "interrupted": [{"folder", "cell",
    "seed", "settings", "out_of_budget", "stage", "step", "since", "command"}], "damaged":
    [FOLDER]}``. A task is ``{"id", "cells", "seeds", "state"}`` and, once a worker took it,
    ``{"attempt", "host", "process", "device", "started", "updated", "gone", "silent_seconds",
    "stage", "step", "max_steps", "epoch", "share", "train_loss", "validation", "best", "seconds",
    "seconds_left", "records", "failures": [{"what", "reason", "remedy"}]}``.
    """
    return {
        "submissions": [_submission_json(view) for view in found.submissions],
        "interrupted": [_interrupted_json(run) for run in found.interrupted],
        "damaged": [str(folder) for folder in found.damaged],
    }


def _submission_json(view: SubmissionView) -> dict[str, Any]:
    asked = view.submission
    return {
        "id": asked.id,
        "engine": asked.engine,
        "command": asked.command,
        "host": asked.host,
        "head": view.head,
        "silent_seconds": view.silent_seconds,
        "created": asked.created,
        "ended": asked.ended,
        "seconds_left": view.seconds_left,
        "counts": view.counts,
        "tasks": [_task_json(task) for task in view.tasks],
    }


def _task_json(view: TaskView) -> dict[str, Any]:
    task, state = view.task, view.state
    fields: dict[str, Any] = {
        "id": task.id,
        "cells": task.cells,
        "seeds": task.seeds,
        "state": view.kind,
    }
    if state.state == "waiting":
        return fields
    return {
        **fields,
        "attempt": state.attempt,
        "host": state.host,
        "process": state.process,
        "device": state.device,
        "started": state.started,
        "updated": state.updated,
        "gone": view.gone,
        "silent_seconds": view.silent_seconds,
        "stage": state.stage,
        "step": state.step,
        "max_steps": state.max_steps,
        "epoch": state.epoch,
        "share": fraction_done(view.state.progress),
        "train_loss": state.train_loss,
        "validation": state.validation,
        "best": state.best,
        "seconds": state.seconds,
        "seconds_left": view.seconds_left,
        "records": [ending.place for ending in state.records],
        "failures": [vars(failure) for failure in view.failures],
    }


def _interrupted_json(run: InterruptedRun) -> dict[str, Any]:
    return {**vars(run), "command": run.command}
