"""What a plan would take elsewhere: the simulation against schedules that are known."""

import numpy as np
import pytest
from planner_parts import a_cell, a_recipe

from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import DEVICES, parse_fleet
from dgm_bench.planner.outlook import outlook, plan_on, schedule_end

#: Seconds on ``planner_parts.MACHINE`` that are an hour on an H200: about 22,000 times as fast.
HOUR = 3598 * DEVICES["h200"].float32 / 3 / 1e9
NONE = Faults(None, None)


def able(cell):
    return cell.recipe is not None, "no recipe yet"


def cells_of(*hours, launches=0, memory=10**8, priority=0):
    return [
        a_cell(
            f"r{place}",
            recipe=a_recipe(h * HOUR, lr=place, launches=launches, memory=memory),
            priority=priority,
        )
        for place, h in enumerate(hours, 1)
    ]


def looked(cells, on, faults=NONE, jobs=None, seeds=1, **options):
    fleet = parse_fleet(on, jobs)
    return outlook(plan_on(cells, fleet, able, seeds), fleet, faults, price=2.0, **options)


def test_one_device_without_faults_takes_the_sum():
    found = looked(cells_of(1, 2, 4), "1xh200")
    assert found.hours == pytest.approx(7, rel=1e-3)
    assert found.interval == (found.hours, found.hours)
    assert found.efficiency == pytest.approx(1)
    assert (found.device_hours, found.cost) == pytest.approx((found.hours, 2 * found.hours))


def test_without_faults_it_is_the_list_schedule():
    cells = cells_of(5, 4, 3, 3, 3)
    found = looked(cells, "2xcpu")  # where no run is divided
    planned = plan_on(cells, parse_fleet("2xcpu"), able)
    assert found.ends == (pytest.approx(planned.expected_end_seconds),)
    assert {work.devices for work in found.work} == {1}


@pytest.mark.parametrize("devices", [1, 2, 5, 16])
def test_no_more_useful_work_than_devices_can_do(devices):
    cells = cells_of(*np.random.default_rng(devices).exponential(3, 12), launches=1000)
    for faults in (NONE, Faults(1e6, 3e4)):
        for jobs in (None, 3 * devices):
            found = looked(cells, f"{devices}xh200", faults, jobs, draws=20)
            assert 0 < found.efficiency <= 1 + 1e-9


def test_more_devices_are_not_slower_than_grahams_bound():
    """Twice the best of fewer, at most; that of one device is the sum."""
    cells = cells_of(*np.random.default_rng(0).exponential(3, 12), launches=1000)
    ends = [looked(cells, f"{count}xh200").hours for count in (1, 2, 3, 4, 8, 16, 64)]
    for place, end in enumerate(ends):
        assert all(end <= 2 * before for before in ends[:place])
    assert ends[-1] < ends[0] / 8


def test_the_longest_run_gets_more_devices_where_it_keeps_all_others_waiting():
    cells = cells_of(16, 1, 1)
    found = looked(cells, "8xh200")
    longest = max(found.work, key=lambda work: work.alone)
    assert longest.devices > 1
    assert found.hours < 16 / 4
    alone = looked(cells, "1xh200")
    assert [work.devices for work in alone.work] == [1, 1, 1]


def test_devices_are_not_given_to_runs_that_are_no_shorter_with_them():
    found = looked(cells_of(0, launches=10**7), "8xh200")
    assert [work.devices for work in found.work] == [1]
    assert found.bound == "the longest run"


def test_seeds_trained_together_stay_on_one_device():
    cells = [a_cell(recipe=a_recipe(HOUR / 1e3, launches=10**8))]
    (work,) = looked(cells, "8xh200", seeds=3).work
    assert (len(work.unit.runs), work.devices) == (3, 1)


def test_what_bounds_the_end_is_told():
    assert looked(cells_of(*[1] * 40), "2xh200").bound == "the amount of work"
    assert looked(cells_of(0, launches=10**7) + cells_of(0.1), "4xh200").bound == "the longest run"
    tight = looked(cells_of(*[1e-4] * 4, memory=9 * 10**9), "4xcpu")  # 16 GB for all
    assert tight.bound == "memory"


def test_expected_hours_with_faults_are_those_of_the_closed_form():
    faults = Faults(3e5, 4e4)
    found = looked(cells_of(50), "1xh200", faults)
    (work,) = found.work
    expected = faults.of(1, work.cost.weights).expected(work.seconds)
    error = np.std(found.ends) / len(found.ends) ** 0.5
    assert abs(3600 * found.hours - expected) < 4 * error
    assert expected > work.seconds + 1000


def test_draws_are_the_same_with_the_same_seed_alone():
    cells, faults = cells_of(5, 4, 3), Faults(1e6, 3e4)
    first, again = (looked(cells, "2xh200", faults) for _ in range(2))
    assert first.ends == again.ends
    assert looked(cells, "2xh200", faults, seed=1).ends != first.ends
    low, high = first.interval
    assert low < first.hours < high


def test_what_has_no_recipe_or_cost_is_counted():
    cells = [a_cell("none"), a_cell("dear", recipe=a_recipe(costed=False, lr=9)), *cells_of(1)]
    big = a_cell("big", recipe=a_recipe(1, lr=8, memory=9 * 10**9))
    found = looked([*cells, big], "1xcpu")
    assert found.without == {"no cost": 1, "no recipe": 1, "needs 9.0 GB memory": 1}
    assert len(found.work) == 1
    assert looked([*cells, big], "1xh200").without == {"no cost": 1, "no recipe": 1}
    assert looked(cells[:1], "8xh200").hours == 0


def test_the_schedule_is_the_best_of_divided_and_undivided():
    cells = cells_of(10, 9, 9, 9)
    found = looked(cells, "4xh200")
    planned = plan_on(cells, parse_fleet("4xh200"), able)
    assert found.hours * 3600 <= planned.expected_end_seconds * (1 + 1e-9)
    assert schedule_end(found.work, found.fleet.room()) == pytest.approx(found.hours * 3600)
