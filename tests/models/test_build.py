"""Models that are looked at before they are built: what that costs, and which are too large."""

import math
import time

import pytest
import torch

from dgm_bench import data
from dgm_bench.catalog import load_catalog
from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build, sketch
from dgm_bench.models.codes.packing import packed_size
from dgm_bench.spec import ModelSpec

GIGABYTE = 10**9


def declared_models():
    """Of each model the declaration with the smallest examples, and their shape."""
    recipes = [cell.recipe for cell in load_catalog().cells if cell.recipe]
    found = {}
    for stage in (stage for recipe in recipes for stage in recipe.stages):
        grids = stage.model.args.get("grids")
        shape = (packed_size(grids),) if grids else data.card(stage.data.name).event_shape
        _, smallest = found.setdefault(stage.model.name, (stage.model, shape))
        if math.prod(shape) < math.prod(smallest):
            found[stage.model.name] = stage.model, shape
    return found


DECLARED = declared_models()


@pytest.mark.parametrize("name", DECLARED)
def test_a_sketch_is_the_model_without_values_and_without_noise(name):
    spec, shape = DECLARED[name]
    before = torch.get_rng_state()
    drawn = sketch(spec, shape, 100 * GIGABYTE)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.is_meta for weight in drawn.parameters())
    assert torch.zeros(1).device.type == "cpu"
    sizes = {key: value.shape for key, value in drawn.state_dict().items()}
    if sum(map(math.prod, sizes.values())) < 1e6:
        built = build(spec, shape).state_dict()
        assert {key: value.shape for key, value in built.items()} == sizes


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("planar:PlanarFlow", {"layers": 10**6}, "more than 10000 layers and tensors"),
        ("maf:MAF", {"hidden": [10**6, 10**6], "degrees": "random"}, "GB, and here are 1 GB"),
        ("vae:GaussianVAE", {"latent": 10**6, "hidden": [10**6]}, "GB, and here are 1 GB"),
        ("naf:MAFDDSF", {"sigmoid_dim": 10**6}, "GB, and here are 1 GB"),
    ],
)
def test_what_is_too_large_is_refused_at_once(name, args, told):
    began = time.process_time()
    with pytest.raises(DeclarationError, match=f"{told}; give it smaller arguments"):
        sketch(ModelSpec(name=name, args=args), (2,), GIGABYTE)
    assert time.process_time() - began < 20
    assert sketch(ModelSpec(name="gaussian:Gaussian"), (2,), GIGABYTE) is not None
