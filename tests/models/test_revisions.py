"""Revisions of models: a change of their numbers reaches the recipes concerned, and no others."""

import pytest
from factories import make_recipe

from dgm_bench.catalog import load_catalog
from dgm_bench.models import names, revisions
from dgm_bench.models.revisions import CHANGES, Change, current
from dgm_bench.spec import ModelSpec

CHANGED = Change(("maf:MAF",), "its start", {"layers": 5})


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.what)
def test_a_change_is_of_declared_models(change):
    assert change.what
    assert set(change.models) <= names.MODELS.keys()
    specs = [
        stage.model
        for cell in load_catalog().cells
        if cell.recipe is not None
        for stage in cell.recipe.stages
    ]
    assert any(change.concerns(spec) for spec in specs), "it concerns no recipe"


def test_a_recipe_has_a_revision_for_each_change_that_concerns_it(monkeypatch):
    monkeypatch.setattr(revisions, "CHANGES", (CHANGED, Change(("maf:MAF",), "its masks")))
    both, one = make_recipe(args={"layers": 5}), make_recipe(args={"layers": 10})
    assert current(both).revisions == (3,)
    assert current(one).revisions == (2,)
    assert current(make_recipe(model="made:MADE")).revisions == (1,)
    assert current(both).content_hash != both.content_hash
    assert current(both).unrevised.content_hash == both.content_hash


@pytest.mark.parametrize("args", [{}, {"layers": None}, {"layers": 4}])
def test_a_change_of_some_arguments_leaves_others_alone(args):
    assert not CHANGED.concerns(ModelSpec(name="maf:MAF", args=args))
    assert CHANGED.concerns(ModelSpec(name="maf:MAF", args={**args, "layers": 5}))
