"""Costs that recipes declare: counted for small models by hand."""

import pytest

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.spec import (
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

SIZES = card("moons").sizes


def stage(*hidden, every=100, unit="steps", trace="exact"):
    return Stage(
        data=DataSpec(name="moons"),
        model=ModelSpec(name="ffjord:FFJORD", args={"hidden": list(hidden)}),
        optimizer=OptimizerSpec(lr=1e-3),
        batch_size=50,
        validation=ValidationSpec(every=every, unit=unit, trace=trace),
        stopping=StoppingSpec(max_steps=10),
    )


def test_a_fully_connected_network_has_a_weight_for_each_pair_of_units():
    assert costs.weights((2, 64, 32, 1)) == 2 * 64 + 64 * 32 + 32


def test_memory_is_the_process_the_data_the_weights_and_a_batch():
    data = 2 * sum(SIZES.values())
    assert costs.memory("moons", 100, 7, 9) == 500_000_000 + 4 * (data + 600 + 7) + 9


def test_a_validation_is_spread_over_the_steps_between_two():
    args = {"products": 10, "networks": 3, "steps": 7, "kept": 5}
    found = costs.network_cost("moons", stage(8), **args)
    assert found.flops_per_step == 6 * 10 * 50 + 2 * 10 * SIZES["val"] / 100
    assert found.launches_per_step == 180
    assert found.evaluation_flops == 2 * 10 * SIZES["test"]
    assert found.memory_bytes == costs.memory("moons", 10, 250)
    calibrated = costs.network_cost(
        "moons", stage(8, every=2, unit="epochs"), **args, calibrates=True
    )
    between = 2 * SIZES["train"] / 50
    seen = SIZES["val"] + SIZES["train"]
    assert calibrated.flops_per_step == pytest.approx(6 * 10 * 50 + 2 * 10 * seen / between)
    assert calibrated.evaluation_flops == 2 * 10 * (SIZES["test"] + SIZES["train"])


@pytest.mark.parametrize(
    ("hidden", "exact", "passes"), [((8, 8), True, 4), ((8,), True, 6), ((8,), False, 4)]
)
def test_an_exact_trace_is_dear_unless_it_is_a_product_of_weights(hidden, exact, passes):
    found = costs.ode_cost(
        "moons",
        stage(*hidden, trace="estimate"),
        products=10,
        evaluations=3,
        steps=7,
        kept=5,
        tested=11,
        exact=exact,
    )
    assert found.evaluation_flops == passes * 10 * 11 * SIZES["test"]
    assert found.flops_per_step == 16 * 10 * 3 * 50 + 4 * 10 * 3 * SIZES["val"] / 100
    assert found.launches_per_step == 300
