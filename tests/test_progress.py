"""What people see of several runs at once."""

import io
import re

import pytest
from factories import make_record
from planner_parts import MACHINE, a_cell, a_recipe
from rich.console import Console

from dgm_bench import progress
from dgm_bench.events import Progress
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.progress import PlainReporter, RichReporter


def event(step=10, **changes):
    fields = {"max_steps": 100, "epoch": 1.5, "seconds": 30.0, "limit_seconds": None,
              "train_loss": 2.5, "validation": 2.6, "best": 2.4, "lr": 0.0, "bad_validations": 0,
              "patience": None}  # fmt: skip
    return Progress(step, **{**fields, **changes})


def screen(width=100, height=20, terminal=True):
    return Console(
        file=io.StringIO(), width=width, height=height, force_terminal=terminal,
        color_system=None, markup=False, highlight=False,
    )  # fmt: skip


def lines_of(runs, **size):
    target = screen(terminal=False, **size)
    target.print(RichReporter(target).view_of(runs))
    return target.file.getvalue().splitlines()


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_logs_say_in_turns_where_runs_stand_and_ever_more_seldom(clock):
    """After 15, 30, 60 and 120 seconds of silence; anything that is said begins it anew."""
    reporter = PlainReporter(screen(terminal=False), interval=15.0)
    said = []
    for second in range(300):
        before = reporter.console.file.tell()
        reporter.going([("A", event()), ("B", event()), ("C", event())])
        if reporter.console.file.tell() > before:
            said.append(second)
        if second == 230:
            reporter.message("something else")
        clock[0] += 1.0
    told = [line.partition(":")[0] for line in reporter.console.file.getvalue().splitlines()]
    assert told == ["A", "B", "C", "A", "something else", "B", "C"]
    assert said == [15, 45, 105, 225, 245, 275]


def test_a_line_each_has_title_epoch_loss_best_and_time_left():
    (line,) = lines_of([("MAF on digits, seed 0", event(stage="prior"))])
    for part in ("MAF on digits", "prior", "epoch 1.5", "best 2.400", "10%"):
        assert part in line
    assert line.rstrip().endswith("4 min left") or line.rstrip().endswith("270 s left")


def test_of_what_nobody_knows_the_end_the_time_so_far_is_shown():
    (line,) = lines_of([("A", event(max_steps=None, best=None))])
    assert "left" not in line
    assert "best" not in line
    assert "loss 2.500" in line
    assert line.rstrip().endswith("30 s")


@pytest.mark.parametrize("count", [1, 15, 16, 17, 18, 300])
@pytest.mark.parametrize("width", [40, 100])
def test_there_are_at_most_as_many_lines_as_fit_and_no_run_is_kept_secret(count, width):
    found = lines_of([(f"run {n} " + "x" * 60, event()) for n in range(count)], width=width)
    assert len(found) <= 17
    assert all(len(line) <= width for line in found)
    runs = sum("run " in line for line in found)
    more = [int(match[1]) for line in found if (match := re.search(r"and (\d+) more", line))]
    assert runs + sum(more) == count


def test_the_live_lines_stay_while_one_of_the_runs_ends():
    reporter = RichReporter(screen())
    with reporter:
        reporter.run_started("A", None, None, None)
        reporter.going([("A", event()), ("B", event())])
        reporter.about("A", None)
        reporter.run_finished(make_record())
        assert reporter._live is not None
        reporter.going([("B", event())])
    assert reporter._live is None
    assert "A: complete" in reporter.console.file.getvalue()


def test_rows_that_are_shared_are_told_at_the_end_where_a_run_never_came():
    cells = [a_cell(f"r{n}", recipe=a_recipe(lr=n + 1)) for n in range(30)]
    runs = [PlannedRun(cell, (cell.id,), 0, cell.recipe, seconds=1.0, runs=True) for cell in cells]
    reporter = PlainReporter(screen(terminal=False))
    with reporter:
        reporter.plan(Plan(tuple(runs), None, MACHINE))
        for run in runs[:-1]:
            reporter.run_finished(make_record(run.cell, recipe=run.recipe))
        assert "29 runs" not in reporter.console.file.getvalue()
    assert reporter.console.file.getvalue().count("29 runs: 29 none stored") == 1
