"""Plans for several workers: what fits, in which order, and when the last run ends."""

import time
from dataclasses import replace

import pytest
from cpu_time import YARDSTICK
from planner_parts import MACHINE, Record, Spent, a_cell, a_recipe, around

from dgm_bench.planner import (
    PLANNED_SHARE,
    Machine,
    Speed,
    expected_seconds,
    measured_seconds,
    plan,
    share_of,
    units,
)

GB = 10**9


def several(workers, **changes):
    return around(machine=replace(MACHINE, workers=workers, **changes))


def cells_of(*seconds, memory=10**8, priority=0, launches=0):
    return [
        a_cell(f"r{place}", recipe=a_recipe(s, lr=place, memory=memory, launches=launches))
        for place, s in enumerate(seconds, 1)
    ]


def rows(runs):
    return [run.cell.row.id for run in runs]


def test_several_workers_take_the_longest_first_among_equal_priorities():
    cells = [*cells_of(10, 30, 20), a_cell("first", recipe=a_recipe(1, lr=9), priority=1)]
    cells.append(a_cell("unknown", recipe=a_recipe(lr=10, costed=False)))
    assert rows(plan(cells, several(1), budget=None).chosen) == [
        "first",
        "r1",
        "r3",
        "r2",
        "unknown",
    ]
    planned = plan(cells, several(2), budget=None)
    assert rows(planned.chosen) == ["first", "unknown", "r2", "r3", "r1"]


def test_the_end_is_that_of_the_list_schedule_and_the_sum_stays():
    cells = cells_of(50, 40, 30, 30, 30)
    planned = plan(cells, several(2), budget=None)
    assert planned.seconds == pytest.approx(180)
    assert planned.expected_end_seconds == pytest.approx(100)  # 50 + 30 beside 40 + 30 + 30
    assert plan(cells, several(1), budget=None).expected_end_seconds == pytest.approx(180)


def test_memory_decides_what_goes_at_once():
    cells = cells_of(50, 50, memory=3 * GB)
    assert plan(cells, several(2), budget=None).expected_end_seconds == pytest.approx(100)
    cells = cells_of(50, 50, memory=2 * GB)
    assert plan(cells, several(2), budget=None).expected_end_seconds == pytest.approx(50)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_so_many_workers_do_so_many_times_as_much_in_a_budget(workers):
    cells = cells_of(*[100] * 20)
    planned = plan(cells, several(workers), budget=300 / PLANNED_SHARE)
    assert len(planned.chosen) == 3 * workers
    assert planned.expected_end_seconds <= 300 * (1 + 1e-9)


def test_no_run_is_longer_than_the_budget_however_many_workers():
    planned = plan(cells_of(500, 100), several(8), budget=400)
    assert rows(planned.chosen) == ["r2"]
    assert "over the budget" in planned.left_out[0].reason


def test_what_memory_keeps_from_going_at_once_is_not_counted_on():
    cells = cells_of(*[100] * 8, memory=3 * GB)
    planned = plan(cells, several(4), budget=300)
    assert len(planned.chosen) == 3
    assert planned.expected_end_seconds == pytest.approx(300)


def test_seeds_trained_together_are_one_unit_of_work_for_one_worker():
    apart, joint = cells_of(100)[0], a_cell("joint", recipe=a_recipe(10, lr=7, launches=10_000))
    planned = plan([apart, joint], several(4), budget=None, seeds=3)
    found = [(unit.runs[0].cell.row.id, len(unit.runs)) for unit in planned.units]
    assert sorted(found) == [("joint", 3), ("r1", 1), ("r1", 1), ("r1", 1)]
    assert planned.expected_end_seconds == pytest.approx(100)
    alone = plan([joint], several(4), budget=None, seeds=3)
    assert alone.expected_end_seconds == pytest.approx(alone.seconds)
    assert [run.seed for run in units(alone.chosen)[0].runs] == [0, 1, 2]


def test_seeds_trained_together_share_the_time_of_one_worker_in_a_budget():
    joint = a_cell("joint", recipe=a_recipe(10, lr=7, launches=10_000))
    (one,) = plan([joint], several(4), budget=None).chosen
    planned = plan([joint], several(4), budget=2 * one.seconds / PLANNED_SHARE, seeds=9)
    assert len(planned.chosen) == 2


def test_shares_of_several_workers_leave_each_its_part_for_later_runs():
    assert share_of(600, 100, 400, workers=4) == 500
    assert share_of(150, 100, 800, workers=4) == pytest.approx(50)
    assert share_of(600, None, 400, workers=4) == 500
    assert share_of(None, 100, 400, workers=4) is None


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("budget", [120.0, 700.0])
def test_workers_that_use_their_whole_shares_end_when_the_budget_does(workers, budget):
    """Ten runs of 50 s, each of which takes its limit."""
    free, later = [0.0] * workers, 500.0
    while later:
        later -= 50
        worker = free.index(min(free))
        limit = share_of(budget - free[worker], 50, later, workers)
        assert limit is not None
        assert limit > 0
        free[worker] += limit
    assert max(free) == pytest.approx(budget)


def test_a_worker_has_the_speed_of_its_cores_or_of_its_part_of_a_gpu(monkeypatch):
    module = "dgm_bench.planner.machine.provenance"
    monkeypatch.setattr(f"{module}.cores", lambda: 16)
    monkeypatch.setattr(f"{module}.driver_gpus", lambda: (12, ("A", "A")))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # which torch heeds
    assert Machine.here("cpu").speed == Speed.cpu(3)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Machine.here("cpu").speed == Speed.cpu(16)
    assert Machine.here("cpu", workers=4).speed == Speed.cpu(4)
    crowded = Machine.here("cpu", workers=32).speed  # two take turns on each core
    assert crowded.flops_per_second == pytest.approx(Speed.cpu(1).flops_per_second / 2)
    assert crowded.seconds_per_launch == pytest.approx(2 * Speed.cpu(1).seconds_per_launch)
    many = Machine.here("cpu", threads=1600).speed  # are no faster than one a core
    assert many.flops_per_second == pytest.approx(Speed.cpu(16).flops_per_second)
    assert Machine.here("cpu", threads=3, workers=4).speed == Speed.cpu(3)
    shared = Machine.here("cuda", workers=6)
    assert (shared.devices, shared.workers) == (2, 6)
    assert shared.speed.flops_per_second == pytest.approx(Speed.gpu().flops_per_second / 3)
    assert shared.speed.seconds_per_launch == Speed.gpu().seconds_per_launch
    assert Machine.here("cuda", workers=1).devices == 1


def test_what_was_measured_with_other_threads_is_scaled_as_declared_work():
    recipe = a_recipe(seconds=500)
    records = [Record("h", Spent(40.0), recipe=recipe, threads=2)]
    ratio = expected_seconds(recipe.cost, Speed.cpu(1)) / expected_seconds(
        recipe.cost, Speed.cpu(2)
    )
    assert measured_seconds(records, "thismach") == {"h": 40}
    assert measured_seconds(records, "thismach", Speed.cpu(2))["h"] == pytest.approx(40)
    assert measured_seconds(records, "thismach", Speed.cpu(1))["h"] == pytest.approx(40 * ratio)
    assert ratio > 1.5


#: Pieces of work that planning may take: about 60 are needed, which is a second.
QUICK = 150


def test_ten_thousand_runs_are_planned_in_two_seconds():
    """Of five hundred recipes, where memory keeps most workers waiting."""
    cells = [
        a_cell(f"r{n}", recipe=a_recipe(n % 97 + 1, lr=n + 1, memory=(n % 8 + 1) * 10**8))
        for n in range(500)
    ]
    began = time.process_time()
    planned = plan(cells, several(64, memory_bytes=24 * GB), budget=8000, seeds=20)
    assert planned.expected_end_seconds <= 8000
    took = time.process_time() - began
    assert len(planned.runs) == 10_000
    assert 1000 < len(planned.chosen) < 10_000
    work: dict = {}
    exec(YARDSTICK, work)
    before = time.process_time()
    piece = before / work["pieces_of_work"]()
    assert took / piece < QUICK


def test_memory_is_taken_in_steps_and_never_less_than_needed():
    (run,) = plan(cells_of(1, memory=150_000_001), several(2), budget=None).chosen
    (unit,) = units([run])
    assert unit.need.memory_bytes == 200_000_000
