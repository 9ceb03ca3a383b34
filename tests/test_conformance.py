"""Every recipe that a cell declares: it builds, takes a step, is evaluated, and gives a record."""

import inspect
import math
import os
from functools import cache

import pytest
import torch
from stand_ins import NARROW, few_examples, hasty, narrow, one_step

from dgm_bench import provenance
from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.context import RunContext
from dgm_bench.data import card
from dgm_bench.execution import Execution, require_runnable
from dgm_bench.metrics.classification import errors
from dgm_bench.metrics.gradients import solver_gradients
from dgm_bench.models.adversarial import image_game
from dgm_bench.models.build import model_class
from dgm_bench.models.flows.layers import masked
from dgm_bench.planner import PlannedRun
from dgm_bench.records import read_record
from dgm_bench.workdir import WorkFolder

CATALOG = load_catalog()


#: Large models that take from many seconds to minutes a step; each runs on smaller columns too.
SLOW = tuple(
    f"{row}/{column}"
    for column, rows in {
        "cifar10": (
            "gaussian made-mog maf-5 maf-10 maf-mog-5 real-nvp-5 real-nvp-10 "
            "real-nvp-multiscale glow-multiscale ffjord-multiscale ffjord-two-hidden rnode "
            "pixelcnnpp pixelsnail"  # built without memory in test_pixels.py
        ),
        "mnist": "made-mog maf-10 maf-mog-5 real-nvp-10 ffjord-two-hidden ffjord-multiscale rnode",
        "bsds300": "ffjord ffjord-concat ffjord-decay rnode ffjord-dto",
        "bsds300-patches": "ffjord-concat ffjord-decay rnode ffjord-dto",
        "cifar10-precision": (
            "vqvae-2-three vqvae-2-unconditional vqvae-2-pixelcnn vqvae-2-pixelcnnpp dvae dvae-text"
        ),
        "mnist-fid": "sagan biggan biggan-deep",
        "cifar10-fid": "sagan biggan biggan-deep",
        "cifar10-inception-fid": "sagan biggan biggan-deep",
        "mnist-text-nll": "joint dense",
        "mnist-image-nll": "text-given",
        # Built without memory in test_biggan.py.
        "imagenet-128-fid": "sagan biggan biggan-deep",
        "imagenet-256-fid": "biggan biggan-deep",
        "imagenet-512-fid": "biggan biggan-deep",
        # Built without memory in reproductions/test_vqvae2.py and test_growing_games.py.
        "cas-top1": "real vqvae-2 dvae",
        "imagenet-256-text-nll": "joint",
        "ffhq-1024-fid": "real vqvae-2-reconstructions progan stylegan",
        "mnist-16-test-error": "resnet rk-net ode-net",
    }.items()
    for row in rows.split()
)


def recipes():
    """One cell for each recipe; recipes that differ only in the data's name are one."""
    cells = {}
    for cell in CATALOG.cells:
        if cell.recipe is not None and cell.same_as is None:
            stages = cell.recipe.stages
            rest = tuple(stage.model_dump_json(exclude={"data"}) for stage in stages)
            cells.setdefault((card(stages[0].data.name).dim, rest), cell)
    return list(cells.values())


def quick_recipes():
    """All but the slow ones; of autoencoders with large flows, those of one published column."""
    return [cell for cell in recipes() if not cell.id.endswith(SLOW) and not repeated(cell)]


def repeated(cell):
    """Whether another column has the same model, for images of the same size or nearly so."""
    large = cell.row.id.startswith(("iaf", "ffjord"))
    ours = cell.column.id in ("caltech", "digits-binary")
    return (cell.paper, cell.table) == ("ffjord", "vi") and large and not ours


#: A recipe of each row, which is run as wide as it is declared, with its shapes checked. The row's
#: others call the same functions: they are built as declared, but run with few and narrow layers,
#: unless all are asked for.
FIRST_OF_ROW = {(c.paper, c.table, c.row.id): c.id for c in reversed(quick_recipes())}.values()


#: Of this process, the same in each record.
code, version_of = cache(provenance.code), cache(provenance.version_of)


@pytest.fixture
def as_in_a_run(monkeypatch):
    """Weights are drawn in float32; nobody waits for the disk, git, or for timings and 1e-12."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(provenance, "code", code)
    monkeypatch.setattr(provenance, "version_of", version_of)
    monkeypatch.setattr(image_game, "STANDING_BATCHES", 1)
    monkeypatch.setattr(solver_gradients, "REPEATS", 1)
    monkeypatch.setattr(solver_gradients, "TOLERANCES", ("1e-3", "1e-5"))
    monkeypatch.setattr(solver_gradients, "REFERENCE", 1e-8)
    monkeypatch.setattr(solver_gradients, "CHECK", 1e-7)
    monkeypatch.setattr(errors, "REPEATS", 1)
    monkeypatch.setattr(errors, "TOLERANCES", ("1e-1",))


@pytest.mark.usefixtures("as_in_a_run")
@pytest.mark.parametrize("cell", quick_recipes(), ids=lambda cell: cell.id)
def test_every_recipe_takes_a_step_and_leaves_a_record(cell, tmp_path, monkeypatch, request):
    recipe = one_step(cell.recipe)
    data = few_examples(recipe.stages[0].data, fit=cell.row.id == "gaussian")
    if cell.id not in FIRST_OF_ROW and "DGM_BENCH_EVERY_RECIPE" not in os.environ:
        request.getfixturevalue("unchecked")
        require_runnable(recipe, data, tmp_path)
        recipe = narrow(recipe)
        monkeypatch.setattr(masked, "FEWEST_UNITS", max(NARROW.values()))
    monkeypatch.setattr("dgm_bench.execution.make_pictures", lambda *args: {})
    monkeypatch.setattr("dgm_bench.metrics.images.classifier.settings_for", hasty)
    monkeypatch.setattr("dgm_bench.metrics.images.accuracy_score.settings_for", hasty)
    folder = WorkFolder(tmp_path, recipe.content_hash, 0)
    with folder.locked():
        record = Execution(
            PlannedRun(cell, (cell.id,), 0, recipe),
            data,
            folder,
            RunContext(tmp_path / "data", tmp_path, device="cpu"),
        ).run()
    assert record.outcome.status == "complete", record.outcome
    metric = record.metric(cell.metric.replace("inception-v3-compat", "classifier"))
    assert math.isfinite(metric.value)
    assert metric.unit in (cell.column.unit, "nats")
    assert read_record(record.path(tmp_path)) == record


#: Arguments that a model was given after records of it were stored, and what it was before. Recipes
#: that leave it so do not write it out, or their hashes would change without their numbers.
LATER = {"dvae:DVAE": {"noise": 0.0}}


@pytest.mark.parametrize("table", CATALOG.tables, ids=lambda table: table.name)
def test_a_recipe_writes_out_every_argument_of_its_model(table):
    """A record then says all there is to say, whatever defaults become later."""
    known = cache(lambda name: set(inspect.signature(model_class(name)).parameters))
    for cell in table.cells:
        for stage in cell.recipe.stages if cell.recipe else ():
            written = {"event_shape", *stage.model.args, *LATER.get(stage.model.name, ())}
            assert written == known(stage.model.name), cell.id


@pytest.mark.parametrize("name", LATER)
def test_what_came_later_is_what_the_model_was_before(name):
    """Its default never changes, and no recipe writes that out."""
    parameters = inspect.signature(model_class(name)).parameters
    assert {key: parameters[key].default for key in LATER[name]} == LATER[name]
    stages = [s for cell in CATALOG.cells if cell.recipe for s in cell.recipe.stages]
    for stage in (stage for stage in stages if stage.model.name == name):
        assert not stage.model.args.items() & LATER[name].items()


def test_what_is_called_runnable_builds():
    declared = {cell.id for cell in CATALOG.cells if cell.recipe is not None}
    assert {cell.id for cell in CATALOG.cells if runnable(cell)[0]} == declared
