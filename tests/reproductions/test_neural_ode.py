"""Neural ODEs' networks for MNIST: a second transcription of the table, and the schedule."""

import pytest

from dgm_bench.catalog import load_catalog
from dgm_bench.train.schedule import Schedule

# Chen et al., Table 1, as printed: test error, parameters, memory, time.
TABLE = """
1-Layer MLP | 1.60% | 0.24 M | -       | -
ResNet      | 0.41% | 0.60 M | O(L)    | O(L)
RK-Net      | 0.47% | 0.22 M | O(L~)   | O(L~)
ODE-Net     | 0.42% | 0.22 M | O(1)    | O(L~)
"""
PREFIX = "neural-ode/mnist/"
CELLS = {cell.id.removeprefix(PREFIX): cell for cell in load_catalog().select(f"{PREFIX}*")}
ROWS = ("perceptron", "resnet", "rk-net", "ode-net")


def printed():
    for row, line in zip(ROWS, TABLE.strip().splitlines(), strict=True):
        _, error, parameters, *_ = map(str.strip, line.split("|"))
        yield f"{row}/mnist", error.removesuffix("%")
        yield f"{row}/mnist-parameters", parameters.removesuffix(" M")


def test_the_numbers_are_as_printed():
    found = {key: str(cell.published.value) for key, cell in CELLS.items() if cell.published}
    assert found == dict(printed())


@pytest.mark.parametrize("row", ROWS)
def test_the_schedule_is_that_of_the_released_code(row):
    stage = CELLS[f"{row}/mnist"].recipe.stages[0]
    schedule = Schedule(stage.schedule, stage.optimizer.lr)
    # odenet_mnist.py: 160 epochs of 468 whole batches; decay_rates 1, 0.1, 0.01, 0.001.
    assert (stage.batch_size, stage.stopping.max_epochs) == (128, 160)
    for epoch, rate in ((0, 0.1), (59, 0.1), (60, 0.01), (99, 0.01), (100, 1e-3), (140, 1e-4)):
        assert schedule.lr(468 * epoch) == pytest.approx(rate)
        assert schedule.lr(468 * epoch + 467) == pytest.approx(rate)


@pytest.mark.parametrize("row", ROWS)
def test_a_tenth_of_the_schedule_is_the_same_otherwise(row):
    whole, tenth = (CELLS[f"{row}/{column}"].recipe for column in ("mnist", "mnist-16-test-error"))
    (long,), (short,) = whole.stages, tenth.stages
    assert [10 * step for step in short.schedule.milestones] == list(long.schedule.milestones)
    assert 10 * short.stopping.max_epochs == long.stopping.max_epochs
    same = {"schedule": long.schedule, "stopping": long.stopping}
    assert short.model_copy(update=same) == long
    assert 10 * tenth.cost.steps == whole.cost.steps


def test_both_ways_to_the_gradient_differ_in_nothing_else():
    for column in ("mnist", "digits-test-error"):
        through, adjoint = (
            CELLS[f"{row}/{column}"].recipe.stages[0].model.args for row in ("rk-net", "ode-net")
        )
        assert through == {**adjoint, "adjoint": False}
