"""``--set`` with any value: it is refused in one line, or what the recipe has."""

import json
import os
from typing import get_args, get_type_hints

from beartype.door import is_bearable
from hypothesis import given, settings
from hypothesis import strategies as st

from dgm_bench.catalog import load_catalog
from dgm_bench.errors import DgmBenchError
from dgm_bench.models.build import model_class
from dgm_bench.models.continuous.solver import Overrides
from dgm_bench.overrides import apply_overrides
from dgm_bench.recipe_checks import known_args
from dgm_bench.spec import Stage
from dgm_bench.train.objectives import OBJECTIVES

CATALOGUE = [cell.recipe for cell in load_catalog().cells if cell.recipe]
#: One recipe of each model.
RECIPES = list({recipe.stages[-1].model.name: recipe for recipe in CATALOGUE}.values())
#: In a long trial, what takes about the seconds of one of its targets.
TRIALS = int(100 * float(os.environ.get("DGM_BENCH_FUZZ", "0"))) or 250

CONSTANTS = {"True": True, "False": False, "None": None}
NUMBERS = st.sampled_from([0, 1, 2, 3, 8, -1, 0.5, 1.0, 64.5, 1e-6, 10**6 + 1, 10**30, 10**400])
WORDS = st.sampled_from(
    [*CONSTANTS, "x", "1", "no", "nan", "inf", "relu", "exact", "drop", "rk4", "\udcff"]
)
VALUES = st.recursive(
    NUMBERS | st.none() | st.booleans() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
ODD = st.sampled_from(["", "[NaN]", "-Infinity", "1e999", "[" * 9999, '{"a":' * 9999, "9" * 5000])
TEXTS = VALUES.map(json.dumps) | WORDS | ODD


@st.composite
def places(draw):
    """A recipe, a part of it, and a key that is there or nearly."""
    recipe = draw(st.sampled_from(RECIPES))
    part = draw(st.sampled_from(["model", "model", "objective", "evaluation", "stage"]))
    if part == "stage":
        return recipe, part, draw(st.sampled_from(["batch_size", "clip_norm", "last_batch"]))
    name = "" if part == "evaluation" else getattr(recipe.stages[-1], part).name
    return recipe, part, draw(st.sampled_from([*known_args(part, name), "layer"]))


def found(recipe, part, key):
    """The path of a key, what the recipe has beside it, and the key's type as Python has it."""
    stage = recipe.stages[-1]
    if part == "evaluation":
        path, values, hints = "evaluation.model_overrides", recipe.evaluation.model_overrides, None
        hints = get_type_hints(Overrides)
    elif part == "stage":
        path, values, hints = stage.name, dict(stage), get_type_hints(Stage)
    else:
        spec = getattr(stage, part)
        make = model_class(spec.name).__init__ if part == "model" else OBJECTIVES[spec.name].make
        path, values, hints = f"{stage.name}.{part}.args", spec.args, get_type_hints(make)
    return f"{path}.{key}", values, hints.get(key)


def as_written(text):
    """What a value says: a constant of Python's, JSON, or else text."""
    try:
        return CONSTANTS[text] if text in CONSTANTS else json.loads(text)
    except ValueError:
        return text


def shown(value, hint):
    """A value as JSON, once a whole number is the float that is wanted."""
    wants_float = float in (hint, *get_args(hint)) and type(value) is int
    return json.dumps(float(value) if wants_float else value)


def require_one_line(refusal):
    assert refusal.remedy
    assert len(str(refusal).splitlines()) == 1
    assert len(str(refusal)) < 1000


@settings(max_examples=TRIALS, deadline=None, database=None)
@given(places(), TEXTS)
def test_a_setting_is_refused_in_one_line_or_is_what_the_recipe_has(place, text):
    recipe, part, key = place
    path, before, hint = found(recipe, part, key)
    try:
        changed = apply_overrides(recipe, {path: text})
    except DgmBenchError as refusal:
        require_one_line(refusal)
        return
    _, after, _ = found(changed, part, key)
    assert is_bearable(after[key], hint)
    assert shown(after[key], hint) == shown(as_written(text), hint)
    rest = {name for name in {*before, *after} if name != key}
    assert {name: after[name] for name in rest} == {name: before[name] for name in rest}
    assert type(changed).model_validate_json(changed.model_dump_json()) == changed
