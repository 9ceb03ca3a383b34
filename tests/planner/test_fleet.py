"""Machines that are not here, and what a run takes on several of their devices."""

from dataclasses import replace

import pytest
from planner_parts import a_recipe

from dgm_bench.errors import UsageError
from dgm_bench.planner import Speed, expected_seconds
from dgm_bench.planner.fleet import DEVICES, parse_fleet
from dgm_bench.planner.parallel import exchange_seconds, part_of, seconds_on, weights_of
from dgm_bench.spec import Cost


def test_a_fleet_is_a_number_and_a_kind():
    fleet = parse_fleet("8xh200")
    assert (fleet.device, fleet.count, fleet.jobs, fleet.name) == (DEVICES["h200"], 8, 8, "8xh200")
    assert parse_fleet("H200").count == 1
    assert parse_fleet("4 x A100", 12).sharing == 3
    assert parse_fleet("2xcpu").machine().device == "cpu"
    assert parse_fleet("8xh200", 3).used == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8xh20", "--on 8xh20: no such kind of device; did you mean 'h200'?"),
        ("0xh200", "no number up to 4096"),
        ("70000xh200", "no number up to 4096"),
        ("h200x8", "no such kind|no number"),
        ("", "no number"),
    ],
)
def test_what_is_no_fleet_is_told_in_one_line(text, told):
    with pytest.raises(UsageError, match=told) as caught:
        parse_fleet(text)
    assert "\n" not in str(caught.value)


def test_a_device_alone_takes_what_the_planner_says_of_it():
    recipe = a_recipe(1e6, launches=500)
    fleet = parse_fleet("8xh200")
    assert seconds_on(recipe, recipe.cost, fleet) == pytest.approx(
        expected_seconds(recipe.cost, Speed.h200())
    )
    core = parse_fleet("2xcpu")
    assert seconds_on(recipe, recipe.cost, core) == pytest.approx(
        expected_seconds(recipe.cost, Speed.cpu(1))
    )


def in_bfloat16(recipe, stages=1):
    (stage,) = recipe.stages
    half = stage.model_copy(update={"precision": "bfloat16"})
    return recipe.model_copy(update={"stages": (half,) * stages + (stage,) * (2 - stages)})


def test_stages_in_bfloat16_go_at_the_speed_of_tensor_cores_where_there_are_some():
    recipe, device = a_recipe(1e6), DEVICES["h200"]
    both = in_bfloat16(recipe, 2)
    assert device.speed(both).flops_per_second == pytest.approx(device.bfloat16 / 3)
    mixed = device.speed(in_bfloat16(recipe)).flops_per_second
    assert 2 / mixed == pytest.approx(3 / device.bfloat16 + 3 / device.float32)
    assert DEVICES["v100"].speed(both) == DEVICES["v100"].speed(recipe)


def test_workers_share_the_arithmetic_of_a_gpu_but_not_its_starts():
    busy, waiting = a_recipe(1e7), a_recipe(0, launches=10_000)
    for recipe, times in ((busy, 4), (waiting, 1)):
        alone = seconds_on(recipe, recipe.cost, parse_fleet("2xh200")) - 2
        shared = seconds_on(recipe, recipe.cost, parse_fleet("2xh200", 8)) - 2
        assert shared == pytest.approx(times * alone, rel=1e-3)


def test_devices_divide_the_arithmetic_and_each_starts_all_operations():
    fleet, recipe = parse_fleet("8xh200"), a_recipe(1e9, launches=1000)
    cost = recipe.cost
    exchange = cost.steps * exchange_seconds(1e6, fleet, 4)
    arithmetic = cost.steps * cost.flops_per_step / (67e12 / 3)
    assert seconds_on(recipe, cost, fleet, 4) == pytest.approx(
        2 + arithmetic / 4 + cost.steps * 1000 * 1e-5 + exchange
    )
    assert part_of(recipe, 3) == pytest.approx(34 / 100)  # the largest part of a hundred
    assert part_of(recipe, 512) == pytest.approx(1 / 100)


def test_devices_never_do_more_than_their_number_times_as_much():
    recipe = a_recipe(1e9, launches=10)
    alone = seconds_on(recipe, recipe.cost, parse_fleet("64xh200"))
    for devices in (2, 3, 8, 16, 64):
        assert devices * seconds_on(recipe, recipe.cost, parse_fleet("64xh200"), devices) > alone


def test_gradients_are_exchanged_over_the_slowest_link():
    fleet = parse_fleet("64xh200")
    inside, across = exchange_seconds(1e9, fleet, 8), exchange_seconds(1e9, fleet, 16)
    assert inside == pytest.approx(2 * 7 / 8 * 4e9 / 450e9, rel=0.01)
    assert across == pytest.approx(2 * 15 / 16 * 4e9 / 50e9, rel=0.01)
    assert exchange_seconds(1e9, fleet, 1) == 0


def test_what_does_not_fit_is_done_in_parts_that_start_their_operations_again():
    recipe = a_recipe(0, launches=10_000, memory=300 * 10**9)
    alone, two = (seconds_on(recipe, recipe.cost, parse_fleet("8xh200"), n) for n in (1, 2))
    assert alone - 2 == pytest.approx(3 * 100 * 10_000 * 1e-5)
    assert two - 2 == pytest.approx(2 * 100 * 10_000 * 1e-5, rel=1e-3)


def test_images_are_drawn_on_all_devices_and_test_sets_evaluated_on_one():
    cost = Cost(steps=0, flops_per_step=0, launches_per_step=0, evaluation_flops=67e15)
    one, two = a_recipe(), in_bfloat16(a_recipe(), 0)
    fleet = parse_fleet("8xh200")
    assert seconds_on(one, cost, fleet, 4) == pytest.approx(2 + 3000)
    assert seconds_on(two, cost, fleet, 4) == pytest.approx(2 + 3000 / 4)


def test_weights_nobody_counted_are_at_most_the_products_of_an_example():
    recipe = a_recipe(60)
    uncounted = recipe.cost.model_copy(update={"weights": 0})
    assert weights_of(recipe, uncounted) == pytest.approx(6e8 / 600)
    assert weights_of(recipe, recipe.cost) == 10**6


def test_memory_of_gpus_is_of_each_and_of_cores_of_all():
    assert parse_fleet("4xcpu").machine().memory_bytes == 16 * 10**9
    assert parse_fleet("4xh200").room().memory_bytes == 141 * 10**9
    assert replace(parse_fleet("4xh200"), count=2).room().memory_bytes == 141 * 10**9
