"""A run that is stopped anywhere, again and again, ends as one that nobody stopped."""

import math
import os
import random

import pytest
from factories import make_context
from stand_ins import few_examples, hasty, one_step

from dgm_bench.catalog import load_catalog
from dgm_bench.control import Control, Interrupted
from dgm_bench.execution import Execution
from dgm_bench.kept import Journal, ask_in_modules
from dgm_bench.metrics.bounds import avb
from dgm_bench.pictures import pictures
from dgm_bench.planner import PlannedRun
from dgm_bench.spec import StoppingSpec
from dgm_bench.workdir import WorkFolder

#: What covers the phases: a solver; importance sampling; quadrature; draws of a gradient; and two
#: stages with codes, a classifier, samples, their features and neighbours, and pictures.
CELLS = (
    "ffjord/density/ffjord/8gaussians",
    "iwae/likelihood/iwae-2-50/digits-binary-nll",
    "priors/elbo-surgery/aggregated/digits-binary-negative-elbo",
    "avb/elbo/avb/pinwheel-negative-elbo",
    "discrete/relaxation/gumbel/squared-bias-0.1",
    "vqvae2/diversity/vqvae-2/digits-precision",
)
#: About how often a run is stopped; more on request.
STOPS = int(os.environ.get("DGM_BENCH_STOPS", "4"))
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


class StopsAt(Control):
    """Wants to stop from the time on that it is asked so many times, within work or between."""

    def __init__(self, times=math.inf):
        super().__init__()
        self.left, self.asked = times, 0

    def _request(self):
        self.asked += 1
        return ("test", -math.inf) if self.asked > self.left else None


@pytest.fixture
def parts(monkeypatch):
    """Counts the parts that are worked through to the end."""
    done, noted = [], Journal._noted

    def counted(self, name, *rest):
        result = noted(self, name, *rest)
        done.append(name)
        return result

    monkeypatch.setattr(Journal, "_noted", counted)
    return done


@pytest.fixture
def small(monkeypatch):
    """Makes what does not depend on the recipe small too."""
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("dgm_bench.metrics.images.classifier.settings_for", hasty)
    monkeypatch.setattr("dgm_bench.metrics.images.accuracy_score.settings_for", hasty)
    for name, value in {"EXAMPLES": 4, "DRAWS": 50, "AT_ONCE": 2, "NODES": 20}.items():
        monkeypatch.setattr(avb, name, value)
    monkeypatch.setattr(pictures, "GRID", 8)
    monkeypatch.setattr(pictures, "POINTS", 20)
    monkeypatch.setattr(pictures, "_save", lambda figure, path: path.touch())


def in_steps(recipe, steps=3):
    """The recipe made small, with some steps and a validation before the last."""
    small = one_step(recipe)
    rule = {"every": 2, "unit": "steps", "batch_size": 3}
    stages = tuple(
        stage.model_copy(
            update={
                "stopping": StoppingSpec(max_steps=steps),
                "validation": stage.validation.model_copy(update=rule),
            }
        )
        for stage in small.stages
    )
    evaluation = small.evaluation.model_copy(update={"batch_size": 3})
    return small.model_copy(update={"stages": stages, "evaluation": evaluation})


def run(cell, folder, control):
    recipe = in_steps(cell.recipe)
    work = WorkFolder(folder, recipe.content_hash, 0)
    data = few_examples(recipe.stages[0].data, fit=False)
    context = make_context(folder, control=control)
    with work.locked(), control.active():
        if isinstance(control, StopsAt):
            control._on_request = ask_in_modules
            control._listen()
        return Execution(PlannedRun(cell, (cell.id,), 0, recipe), data, work, context).run()


def comparable(record):
    """All of a record that time, name and place of a run do not decide."""
    spent = record.budget.model_dump()
    kept = ("steps", "epochs", "examples", "function_evaluations", "best_step")
    weights = record.artifacts["weights.safetensors"]
    pictures = sorted(record.artifacts)
    return record.metrics, record.data, {name: spent[name] for name in kept}, weights, pictures


@pytest.mark.parametrize("cell_id", CELLS)
def test_it_ends_with_the_same_record_and_does_nothing_twice(cell_id, tmp_path, parts, small):
    cell = next(cell for cell in load_catalog().cells if cell.id == cell_id)
    control = StopsAt()
    whole, once = run(cell, tmp_path / "whole", control), list(parts)
    parts.clear()
    draw, stops, record = random.Random(cell_id), 0, None
    while record is None:
        try:
            times = draw.randrange(2 * control.asked // STOPS + 2)
            record = run(cell, tmp_path / "stopped", StopsAt(times))
        except Interrupted:
            stops += 1
    assert stops > STOPS // 4
    assert comparable(record) == comparable(whole)
    assert sorted(parts) == sorted(once)
