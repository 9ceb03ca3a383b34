"""The numbers on file are those of the code, and the tool that compares them tells a change."""

from dataclasses import replace

import golden_steps
import pytest
import torch
from golden_steps import compare, declared, keys_of, stored
from stand_ins import one_of_each_kind

from dgm_bench.train.schedule import Schedule

CELLS = declared()
KNOWN = stored()
#: What float32 normal draws on file were computed with; without they differ in the last bit.
VECTORISED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.fixture(autouse=True)
def as_in_a_run(unchecked):
    """Weights are drawn in float32, and steps are not slowed by checks of shapes."""
    torch.set_default_dtype(torch.float32)


def test_every_recipe_has_entries_and_no_entry_is_stale():
    """``python tests/golden_steps.py --write`` brings the file up to date."""
    assert sorted(keys_of(CELLS)) == sorted(KNOWN)


@pytest.mark.skipif(not VECTORISED, reason="float32 normal draws differ without AVX2")
@pytest.mark.parametrize("cell", one_of_each_kind(), ids=lambda cell: cell.id)
def test_first_steps_are_those_on_file(cell):
    assert not list(compare(cell, KNOWN))


@pytest.fixture
def made():
    return next(cell for cell in CELLS.values() if cell.id == "ffjord/density/made/8gaussians")


def test_a_rate_that_is_one_step_late_is_told_with_what_to_do(made, monkeypatch):
    rate = Schedule.lr
    monkeypatch.setattr(Schedule, "lr", lambda self, step: rate(self, step) * 1.001)
    lines = list(compare(made, KNOWN))
    assert [line.split(": ")[1].split()[0] for line in lines] == ["losses", "moved", "validation"]
    assert all("raise the revision" in line for line in lines)


def test_entries_on_file_are_kept_missing_ones_added_and_stale_ones_removed(made, tmp_path):
    path = tmp_path / "entries.csv"
    (key,) = keys_of({made.recipe.content_hash[:12]: made})
    altered = replace(KNOWN[key], losses="1 2 3")
    old = replace(KNOWN[key], recipe="0" * 12)
    golden_steps.write([altered, old], path)
    golden_steps.bring_up_to_date({key[0]: made}, path)
    assert stored(path) == {key: altered}
    golden_steps.write([old], path)
    golden_steps.bring_up_to_date({key[0]: made}, path)
    assert stored(path).keys() == {key}
    assert not KNOWN[key].differences(stored(path)[key])


@pytest.mark.parametrize("field", ["weights", "batch", "losses", "moved", "validation"])
def test_a_difference_of_a_millionth_is_one(field, made):
    (key,) = keys_of({made.recipe.content_hash[:12]: made})
    entry = KNOWN[key]
    numbers = [float(number) for number in getattr(entry, field).split()]
    moved = {name: " ".join(f"{x * by:.9g}" for x in numbers)
             for name, by in (("little", 1 + 1e-7), ("much", 1 + 3e-6))}  # fmt: skip
    assert not entry.differences(replace(entry, **{field: moved["little"]}))
    assert entry.differences(replace(entry, **{field: moved["much"]})) == [field]


def test_a_sum_of_weights_changes_with_every_number_and_every_place():
    x = torch.randn(9000)
    whole = golden_steps.weighted_sum([x])
    for k in (0, 4095, 4096, 8999):
        moved = x.clone()
        moved[k] += 0.01
        assert abs(golden_steps.weighted_sum([moved]) - whole) > 1e-6
    assert golden_steps.weighted_sum([x.flip(0)]) != pytest.approx(whole)
    assert golden_steps.weighted_sum([x[:1], x[1:]]) == golden_steps.weighted_sum([x[1:], x[:1]])
