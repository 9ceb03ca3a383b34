"""Every recipe that a cell declares: it builds, takes a step, is evaluated, and gives a record."""

import inspect
import math
from importlib import import_module

import pytest
import torch

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.data import card
from dgm_bench.data.dataset import Dataset
from dgm_bench.execution import Execution
from dgm_bench.planner import PlannedRun
from dgm_bench.records import read_record
from dgm_bench.spec import StoppingSpec
from dgm_bench.train.control import Control
from dgm_bench.train.events import SilentReporter
from dgm_bench.workdir import WorkFolder

CATALOG = load_catalog()


#: Deep models on CIFAR-10 take minutes a step; MADE runs the same code at that size.
SLOW = ("made-mog/cifar10", "maf-5/cifar10", "maf-10/cifar10", "maf-mog-5/cifar10")
SLOW += ("real-nvp-5/cifar10", "real-nvp-10/cifar10", "maf-mog-5/mnist", "gaussian/cifar10")


def recipes():
    """One cell for each recipe; recipes that differ only in the data's name are one."""
    cells = {}
    for cell in CATALOG.cells:
        if cell.recipe is not None and cell.same_as is None:
            stage = cell.recipe.stages[0]
            rest = stage.model_dump_json(exclude={"data"})
            cells.setdefault((card(stage.data.name).dim, rest), cell)
    return list(cells.values())


def quick_recipes():
    return [cell for cell in recipes() if not cell.id.endswith(SLOW)]


def fake_data(name):
    """Random examples of the data set's shape: 60 more than dimensions, so that a fit exists."""
    event_shape, dim = (card(name).dim,), card(name).dim
    generator = torch.Generator().manual_seed(0)
    n = {"train": dim + 60, "val": 20, "test": 20}
    splits = {key: torch.randn(size, *event_shape, generator=generator) for key, size in n.items()}
    return Dataset(name, "fake", splits, verified=False)


def one_step(recipe):
    """The recipe with one step of a small batch and, for an ODE, tolerances that cost little."""
    stages = tuple(shortened(stage) for stage in recipe.stages)
    evaluation = recipe.evaluation.model_copy(update={"model_overrides": {}})
    return recipe.model_copy(update={"stages": stages, "evaluation": evaluation})


def shortened(stage):
    loose = {key: 1e-2 for key in ("rtol", "atol") if key in stage.model.args}
    steps = 0 if stage.stopping.max_steps == 0 else 1
    update = {
        "model": stage.model.model_copy(update={"args": {**stage.model.args, **loose}}),
        "batch_size": min(stage.batch_size, 16),
        "stopping": StoppingSpec(max_steps=steps),
    }
    return stage.model_copy(update=update)


@pytest.mark.parametrize("cell", quick_recipes(), ids=lambda cell: cell.id)
def test_every_recipe_takes_a_step_and_leaves_a_record(cell, tmp_path, monkeypatch):
    monkeypatch.setattr("dgm_bench.execution.make_pictures", lambda *args: {})
    recipe = one_step(cell.recipe)
    folder = WorkFolder(tmp_path, recipe.content_hash, 0)
    with folder.locked():
        record = Execution(
            PlannedRun(cell, (cell.id,), 0, recipe),
            recipe,
            fake_data(recipe.stages[0].data.name),
            folder,
            device=torch.device("cpu"),
            control=Control(),
            reporter=SilentReporter(),
        ).run()
    assert record.outcome.status == "complete", record.outcome
    assert math.isfinite(record.metric("nll").value)
    assert read_record(record.path(tmp_path)) == record


@pytest.mark.parametrize("cell", recipes(), ids=lambda cell: cell.id)
def test_a_recipe_writes_out_every_argument_of_its_model(cell):
    """A record then says all there is to say, whatever defaults become later."""
    for stage in cell.recipe.stages:
        module, name = stage.model.name.split(":")
        model = getattr(import_module(f"dgm_bench.models.{module}"), name)
        known = set(inspect.signature(model).parameters) - {"event_shape"}
        assert set(stage.model.args) == known


def test_what_is_called_runnable_builds():
    declared = {cell.id for cell in CATALOG.cells if cell.recipe is not None}
    assert {cell.id for cell in CATALOG.cells if runnable(cell)[0]} == declared
