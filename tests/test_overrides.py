"""``--set``: which recipes it changes, what it refuses, and what a changed recipe costs."""

import pytest
from factories import make_cell, make_recipe

from dgm_bench.errors import UsageError
from dgm_bench.models import revisions
from dgm_bench.models.revisions import Change
from dgm_bench.overrides import apply_overrides, change_cells
from dgm_bench.spec import Cost, StoppingSpec, ValidationSpec

COST = Cost(steps=1000, flops_per_step=10.0, launches_per_step=7, memory_bytes=5)


def test_a_changed_cell_says_what_was_changed():
    cell = make_cell(recipe=make_recipe())
    (changed,) = change_cells([cell], {"optimizer.lr": "0.5", "model.args.layers": "7"})
    assert changed.modified == ("optimizer.lr=0.5", "model.args.layers=7")
    (stage,) = changed.recipe.stages
    assert (stage.optimizer.lr, stage.model.args["layers"]) == (0.5, 7)
    assert changed.id == cell.id
    assert changed.recipe.content_hash != cell.recipe.content_hash


def test_a_value_that_is_declared_already_changes_nothing():
    cell = make_cell(recipe=make_recipe())
    assert change_cells([cell], {"optimizer.lr": "1e-4"}) == [cell]
    assert change_cells([cell], {}) == [cell]


def test_each_recipe_is_changed_as_far_as_it_has_the_keys():
    plain = make_cell(recipe=make_recipe())
    (named,) = (s.model_copy(update={"name": "second"}) for s in make_recipe(data="gas").stages)
    other = make_cell(recipe=make_recipe().model_copy(update={"stages": (named,)}))
    without = make_cell(recipe=None)
    overrides = {"second.optimizer.lr": "0.5", "batch_size": "9"}
    found = change_cells([plain, other, without], overrides)
    assert [cell.modified for cell in found] == [
        ("batch_size=9",),
        ("second.optimizer.lr=0.5", "batch_size=9"),
        (),
    ]
    assert change_cells([plain, other], {"second.optimizer.lr": "0.5"})[0] == plain


def test_a_key_that_no_recipe_has_is_refused():
    cells = [make_cell(recipe=make_recipe()), make_cell(recipe=None)]
    with pytest.raises(UsageError, match="a recipe has no 'third'"):
        change_cells(cells, {"optimizer.lr": "1", "third.optimizer.lr": "1"})
    with pytest.raises(UsageError, match="batch_size"):
        change_cells(cells, {"batch_size": "many"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.revision", "1"),
        ("train.model.revision", "1"),
        ("model", '{"name": "maf:MAF", "args": {}, "revision": 9}'),
    ],
)
def test_the_code_of_a_model_is_no_setting(key, value):
    with pytest.raises(UsageError, match="counts changes of the code"):
        change_cells([make_cell(recipe=make_recipe(revision=2))], {key: value})


def test_a_changed_model_has_the_revision_of_its_own_code(monkeypatch):
    where = {"layers": 2}
    monkeypatch.setattr(revisions, "CHANGES", (Change(("maf:MAF",), "its masks", where),))
    changed = apply_overrides(make_recipe(model="maf:MAF"), {"model.args.layers": "2"})
    assert changed.revisions == (2,)


# ------------------------------------------------------------------------------ cost


def recipe(stopping, unit="epochs", batch_size=100):
    update = {"stopping": stopping, "validation": ValidationSpec(unit=unit)}
    (stage,) = (s.model_copy(update=update) for s in make_recipe().stages)
    return make_recipe().model_copy(update={"stages": (stage,), "cost": COST})


@pytest.mark.parametrize(
    ("stopping", "unit", "overrides", "steps", "work"),
    [
        (StoppingSpec(max_steps=1000), "steps", {"optimizer.lr": "1"}, 1000, 1),
        (StoppingSpec(max_steps=1000), "steps", {"stopping.max_steps": "10"}, 10, 1),
        (StoppingSpec(patience=30), "epochs", {"stopping.max_steps": "10"}, 10, 1),
        (StoppingSpec(patience=30), "epochs", {"stopping.max_steps": "5000"}, 1000, 1),
        (StoppingSpec(max_epochs=50), "epochs", {"stopping.max_epochs": "5"}, 100, 1),
        (StoppingSpec(max_steps=1000), "steps", {"batch_size": "50"}, 1000, 0.5),
        (StoppingSpec(max_steps=1000, patience=9), "steps", {"batch_size": "50"}, 1000, 0.5),
        (StoppingSpec(max_epochs=50), "epochs", {"batch_size": "50"}, 2000, 0.5),
        (StoppingSpec(patience=30), "epochs", {"batch_size": "200"}, 500, 2),
    ],
)
def test_the_declared_cost_goes_with_steps_and_batches(stopping, unit, overrides, steps, work):
    changed = apply_overrides(recipe(stopping, unit), overrides).cost
    assert changed.steps == steps
    assert changed.flops_per_step == pytest.approx(10.0 * work)
    assert (changed.launches_per_step, changed.memory_bytes) == (7, 5)


def test_a_recipe_without_a_cost_has_none_when_it_is_changed():
    assert apply_overrides(make_recipe(), {"batch_size": "9"}).cost is None
