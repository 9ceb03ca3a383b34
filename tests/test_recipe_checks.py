"""Arguments of recipes: all that are declared fit, and what does not is told in one line."""

import json
from typing import get_type_hints

import pytest
from factories import make_cell, make_recipe
from pydantic import ValidationError

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.models.arguments import model_definition
from dgm_bench.models.build import model_class
from dgm_bench.models.names import MODELS
from dgm_bench.overrides import apply_overrides
from dgm_bench.recipe_checks import PARTS, fitted_args
from dgm_bench.signatures import module, parameters
from dgm_bench.spec import DataSpec, EvaluationSpec, ModelSpec, ObjectiveSpec, OptimizerSpec
from dgm_bench.train.objectives import OBJECTIVES

RECIPES = {c.recipe.content_hash: c.recipe for c in load_catalog().cells if c.recipe}


def repr_of(args):
    """JSON that tells 1, 1.0 and true apart."""
    return json.dumps(args, sort_keys=True)


def test_every_declared_recipe_fits_as_it_is():
    """And --set with a declared value changes neither a value nor a type."""
    for recipe in RECIPES.values():
        for stage in recipe.stages:
            for part in PARTS:
                args = getattr(stage, part).args
                assert repr_of(fitted_args(stage, part)) == repr_of(args)
    for recipe in list(RECIPES.values())[::20]:
        args = recipe.stages[0].model.args
        same = {f"{recipe.stages[0].name}.model.args.{k}": json.dumps(v) for k, v in args.items()}
        assert apply_overrides(recipe, same).content_hash == recipe.content_hash


@pytest.mark.parametrize("name", MODELS)
def test_annotations_read_from_source_are_those_of_the_class(name):
    hints = get_type_hints(model_class(name).__init__, include_extras=True)
    found = {key: p.annotation for key, p in parameters(model_definition(name)).items()}
    simple = {key for key in found if not key.endswith("_args")}  # those name their constructors
    assert {key: found[key] for key in simple} == {key: hints[key] for key in simple}
    assert found.keys() == hints.keys() - {"return"}


def test_objectives_read_from_source_are_those_that_train():
    read = module("dgm_bench.train.objectives")["OBJECTIVES"]
    assert {name: declared.make.__name__ for name, declared in OBJECTIVES.items()} == {
        name: call.args[0].name for name, call in read.items()
    }


def changed(cell, **fields):
    stage = cell.recipe.stages[0].model_copy(update=fields)
    return cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"stages": (stage,)})})


NO_MAF = "is not known; did you mean 'maf:MAF'?"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": DataSpec(name="powre")}, "powre: no such data set; did you mean 'power'?"),
        (
            {"data": DataSpec(name="power", args={"x": 1})},
            "data.args.x: is no option; leave it out",
        ),
        (
            {"data": DataSpec(name="mnist", args={"convention": "fjord"})},
            "data.args.convention = \"fjord\": is not known to mnist; did you mean 'ffjord'?",
        ),
        ({"model": ModelSpec(name="maf:MFA")}, f"model 'maf:MFA': {NO_MAF}"),
        ({"model": ModelSpec(name="fam:MAF")}, f"model 'fam:MAF': {NO_MAF}"),
        ({"model": ModelSpec(name="../maf:MAF")}, f"model '../maf:MAF': {NO_MAF}"),
        (
            {"model": ModelSpec(name="maf:MAF", args={"layer": 3})},
            "model.args.layer: is no argument; did you mean 'layers'?",
        ),
        (
            {"model": ModelSpec(name="maf:MAF", args={"layers": 2.0})},
            "model.args.layers = 2.0: should be a valid integer; use a whole number",
        ),
        (
            {"objective": ObjectiveSpec(name="elbo", args={"samples": "x"})},
            'objective.args.samples = "x": should be a valid integer; use a whole number',
        ),
        (
            {"optimizer": OptimizerSpec(name="adan", lr=0.1)},
            "optimizer 'adan': is not known; did you mean 'adam'?",
        ),
    ],
)
def test_what_is_not_runnable_says_why(fields, reason):
    cell = make_cell(recipe=make_recipe())
    assert runnable(cell) == (True, "")
    assert runnable(changed(cell, **fields)) == (False, reason)


def test_a_missing_argument_is_not_runnable():
    cell = changed(make_cell(recipe=make_recipe()), objective=ObjectiveSpec(name="iwae"))
    assert runnable(cell) == (False, "objective.args.samples: is missing; give samples")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"rtoll": 1e-3}, "rtoll: is no argument; did you mean 'rtol'?"),
        ({"rtol": -1e-3}, "rtol = -0.001: should be greater than 0; use a number above 0.0"),
        ({"solver": "rk45"}, "did you mean 'rk5'?"),
        ({"adjoint": 0}, "adjoint = 0: should be a valid boolean; use true or false"),
    ],
)
def test_settings_of_the_solver_that_do_not_fit_are_not_runnable(overrides, reason):
    protocol = EvaluationSpec(model_overrides=overrides)
    recipe = make_recipe().model_copy(update={"evaluation": protocol})
    able, why = runnable(make_cell(recipe=recipe))
    assert not able
    assert why.startswith("evaluation.model_overrides.")
    assert why.endswith(reason)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {1j}, object()])
def test_arguments_that_no_record_can_hold_are_none(value):
    for kind in (ModelSpec, DataSpec, ObjectiveSpec):
        with pytest.raises(ValidationError, match="no finite values of JSON"):
            kind(name="x", args={"a": value})
