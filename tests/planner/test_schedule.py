"""The list schedule, against what it promises and against the best schedule there is."""

import itertools

import numpy as np
import pytest

from dgm_bench.planner import Need, Room, end_of, list_schedule


def random_runs(seed, count=40, devices=1):
    """Seconds and needs: memory up to beyond a device of 100, up to so many devices."""
    draw = np.random.default_rng(seed)
    seconds = draw.exponential(10, count).tolist()
    memory = draw.integers(0, 130, count).tolist()
    several = draw.integers(1, devices + 1, count).tolist()
    return seconds, [Need(*need) for need in zip(memory, several, strict=True)]


def loads(placed, needs, moment, devices):
    """Runs and memory on each device at a moment; a run of several devices fills each."""
    count, memory = [0] * devices, [0] * devices
    for run, need in zip(placed, needs, strict=True):
        for device in run.devices if run.start <= moment < run.end else ():
            count[device] += 1 if need.devices == 1 else 1_000
            memory[device] += min(need.memory_bytes, 100)
    return count, memory


@pytest.mark.parametrize(("workers", "devices"), [(1, 1), (4, 1), (3, 3), (7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_no_device_has_more_runs_or_memory_than_it_has_room_for(workers, devices, seed):
    seconds, needs = random_runs(seed, devices=devices)
    placed = list_schedule(seconds, needs, Room(workers, devices, 100))
    most = [workers // devices + (d < workers % devices) for d in range(devices)]
    assert [run.end - run.start for run in placed] == pytest.approx(seconds)
    assert all(len(run.devices) == need.devices for run, need in zip(placed, needs, strict=True))
    for run in placed:
        count, memory = loads(placed, needs, run.start, devices)
        assert all(c <= m or c == 1_000 for c, m in zip(count, most, strict=True))
        assert max(memory) <= 100


@pytest.mark.parametrize(("workers", "devices"), [(4, 1), (7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_no_run_waits_while_there_is_room_for_it(workers, devices, seed):
    seconds, needs = random_runs(seed)
    placed = list_schedule(seconds, needs, Room(workers, devices, 100))
    most = [workers // devices + (d < workers % devices) for d in range(devices)]
    for moment in sorted({run.end for run in placed}):
        count, memory = loads(placed, needs, moment, devices)
        free = [100 - m for c, m, most_ in zip(count, memory, most, strict=True) if c < most_]
        for run, need in zip(placed, needs, strict=True):
            assert run.start <= moment or min(need.memory_bytes, 100) > max(free, default=-1)


@pytest.mark.parametrize(("workers", "devices"), [(4, 1), (7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_no_run_starts_before_one_ahead_of_it_that_needs_no_more(workers, devices, seed):
    seconds, needs = random_runs(seed)
    placed = list_schedule(seconds, needs, Room(workers, devices, 100))
    pairs = list(zip(placed, needs, strict=True))
    for (first, less), (later, more) in itertools.combinations(pairs, 2):
        assert first.start <= later.start or less.memory_bytes > more.memory_bytes


def test_one_worker_takes_one_after_the_other():
    seconds, needs = random_runs(0)
    placed = list_schedule(seconds, needs, Room(1, 1, 100))
    assert [run.end for run in placed] == pytest.approx(np.cumsum(seconds))


def shortest(seconds, workers):
    """The end of the best schedule, by trying all."""
    assigned = itertools.product(range(workers), repeat=len(seconds))
    return min(
        max(sum(s for s, w in zip(seconds, who, strict=True) if w == worker) for worker in who)
        for who in assigned
    )


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_keeps_grahams_bounds(workers, seed):
    """On multiprocessing timing anomalies (1969), theorems 1 and 2; 2 with longest first."""
    seconds, needs = random_runs(seed, count=7)
    best, room = shortest(seconds, workers), (workers, workers, 100)
    end = end_of(list_schedule(seconds, needs, Room(*room)))
    assert best <= end * (1 + 1e-12)
    assert end <= (2 - 1 / workers) * best
    longest = sorted(seconds, reverse=True)
    assert end_of(list_schedule(longest, needs, Room(*room))) <= (4 / 3 - 1 / (3 * workers)) * best


def test_the_worst_case_of_a_list_is_met():
    """Graham's example: short ones first, and the longest alone at the end."""
    seconds = [1.0] * 6 + [3.0]
    assert end_of(list_schedule(seconds, [Need()] * 7, Room(3, 1, 0))) == 5
    assert end_of(list_schedule(seconds[::-1], [Need()] * 7, Room(3, 1, 0))) == 3


def test_runs_spread_over_devices_by_memory():
    room = Room(4, 2, 100)
    assert [room.take(Need(memory)) for memory in (60, 30, 30, 50)] == [(0,), (1,), (1,), None]
    room.leave(Need(60), (0,))
    assert room.take(Need(50)) == (0,)
    assert room.take(Need(0)) == (0,)
    assert room.full


def test_a_run_of_several_devices_waits_for_idle_ones():
    room = Room(4, 2, 100)
    assert room.take(Need(10)) == (0,)
    assert room.take(Need(10, devices=2)) is None
    room.leave(Need(10), (0,))
    assert room.take(Need(10, devices=2)) == (0, 1)
    assert room.full
    with pytest.raises(ValueError, match="more devices"):
        list_schedule([1.0], [Need(devices=3)], Room(2, 2, 100))
