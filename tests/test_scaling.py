"""The benchmark of growth: its exponents, and that each of its sweeps still measures."""

import importlib.util
import math
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "scaling.py"
SPEC = importlib.util.spec_from_file_location("scaling", FILE)
scaling = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(scaling)


def test_the_exponent_is_that_of_a_power():
    sizes = (3, 20, 100, 5000)
    for power in (-0.5, 0.0, 1.0, 2.3):
        assert scaling.exponent(sizes, [7 * x**power for x in sizes]) == pytest.approx(power)
    assert math.isnan(scaling.exponent((1, 2), (0.0, 1.0)))


@pytest.mark.parametrize(("name", "size"), [("batch", 2), ("dimension", 2), ("data", 3)])
def test_a_sweep_takes_its_smallest_work(name, size):
    assert scaling.SWEEPS[name].prepare(size)() is not False


def test_planning_is_of_as_many_cells_as_are_asked_for():
    plan = scaling.SWEEPS["cells"].prepare(20)()
    assert sum(len(run.cells) for run in plan.runs) == 20


def test_a_table_has_both_exponents():
    found = [scaling.Point(x, x / 1000 + 0.02 * (x == 1), x**2) for x in (1, 10, 100, 1000)]
    text = scaling.table("batch", found)
    assert "| ms | 21 | 10 | 100 | 1e+03 |" in text
    assert text.count("| 2.00 | 2.00 |") == 1
    assert "| 1.00 |" in text
