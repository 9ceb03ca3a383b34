"""Models with weights that nobody trained, kept as a run keeps them."""

import hashlib

import torch
from factories import make_record
from safetensors.torch import save

from dgm_bench import data as datasets
from dgm_bench.catalog import load_catalog
from dgm_bench.library.rebuilt import _untrained, dtype_of
from dgm_bench.metrics.evaluate import evaluate, prepare
from dgm_bench.records import WEIGHTS, write_record

CELLS = {cell.id: cell for cell in load_catalog().cells}


def disturbed(model, scale):
    """Change the weights that a model begins with: the identity would hide much."""
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight += scale * torch.randn(weight.shape, generator=noise, dtype=weight.dtype)


def keep(results, cell_id, *, metrics=(), seed=0, scale_of_noise=0.05, **overrides):
    """Write the record and the weights of a model of a cell, evaluated by some of its metrics."""
    cell = CELLS[cell_id]
    spec = cell.recipe.stages[0]
    data = datasets.load(spec.data.name, results, args=spec.data.args, seed=seed)
    data = data.to("cpu", dtype_of(spec))
    model = _untrained(cell.recipe, seed, data.event_shape)
    disturbed(model, scale_of_noise)
    measured = ()
    if metrics:
        asked = cell.recipe.evaluation.model_copy(update={"metrics": metrics})
        prepare(model, data, asked)
        measured = tuple(evaluate(model, data, asked, seed, results))
    weights = save({name: value.contiguous() for name, value in model.state_dict().items()})
    known = {WEIGHTS: hashlib.sha256(weights).hexdigest()}
    fields = {"metrics": measured or make_record(cell).metrics, "artifacts": known} | overrides
    record = make_record(cell, cells=(cell.id,), seed=seed, **fields)
    write_record(record, results)
    file = record.weights_file(results)
    file.parent.mkdir(parents=True)
    file.write_bytes(weights)
    return record
