"""Stacks of maps: after a few of them every output depends on every input.

One map alone leaves dimensions out, by order or by halves. A stack in which maps do not take turns
is still a valid flow, with the right density: it is only a poorer one, which nothing else shows.
"""

import math

import pytest
import torch
from torch import nn

from dgm_bench.models.build import build
from dgm_bench.models.flows.layers.linear import FullLinear, LULinear, Permutation
from dgm_bench.models.flows.tan import LinearMap
from dgm_bench.models.latent.priors import build_prior
from dgm_bench.spec import ModelSpec

WIDE = {"hidden": [32]}
SPLINES = {"hidden": 16, "blocks": 1, "bins": 4}
#: As few maps as reach everything: two of ordered maps, three of halves.
FLOWS = {
    "maf": ("maf:MAF", {"layers": 2, **WIDE, "activation": "tanh"}),
    "maf-ddsf": ("naf:MAFDDSF", {"layers": 2, **WIDE, "sigmoid_dim": 4}),
    "tan": ("tan:TAN", {"groups": 3, "units": 12, "components": 2}),
    "nsf-autoregressive": ("nsf:NSFAutoregressive", {"layers": 2, **SPLINES}),
    "nsf-coupling": ("nsf:NSFCoupling", {"layers": 3, **SPLINES}),
    "realnvp": ("realnvp:RealNVP", {"layers": 3, **WIDE}),
    "nice": ("nice:NICE", {"layers": 3, **WIDE}),
    "glow": ("glow:TabularGlow", {"layers": 3, **WIDE}),
}
IMAGE_FLOWS = {
    "glow": ("glow_images:Glow", {"levels": 1, "depth": 3, "width": 8}),
    "realnvp": ("realnvp_images:MultiScaleRealNVP", {"features": 6, "blocks": 1, "alpha": None}),
}
#: Linear maps that start as the identity: left there, they do not hide what couples dimensions.
IDENTITIES = (FullLinear, LULinear, LinearMap)


def away_from_the_start(model):
    """Move all parameters but those of the identities."""
    kept = {id(p) for m in model.modules() if isinstance(m, IDENTITIES) for p in m.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def dependence(model, shape):
    """Which outputs (rows) depend on which inputs (columns) at one of a few points."""
    dim = math.prod(shape)

    def flat(x):
        return model.forward_and_log_det(x.view(1, *shape))[0].flatten()

    jacobians = [torch.autograd.functional.jacobian(flat, 0.5 * torch.randn(dim)) for _ in range(3)]
    return torch.stack(jacobians).abs().amax(0) > 0


def new(cases, case, shape):
    name, args = cases[case]
    return away_from_the_start(build(ModelSpec(name=name, args=args), shape))


@pytest.mark.parametrize("case", [case for case in FLOWS if not case.startswith("nsf")])
def test_every_output_depends_on_every_input(case):
    assert dependence(new(FLOWS, case, (5,)), (5,)).all()


@pytest.mark.parametrize("name", ["maf", "real-nvp"])
def test_so_it_is_for_flows_as_priors(name):
    args = {"layers": 2 if name == "maf" else 3, "hidden": [32]}
    prior = away_from_the_start(build_prior(name, 5, args))
    assert dependence(prior, (5,)).all()


@pytest.mark.parametrize(
    ("case", "order"),
    [("nsf-coupling", [0, 1, 2, 3, 4]), ("nsf-autoregressive", [4, 3, 2, 1, 0])],
)
def test_so_it_is_for_splines_between_known_permutations(case, order):
    """Couplings take turns by themselves; autoregressive maps by what comes before each."""
    model = new(FLOWS, case, (5,))
    for layer in model.layers:
        if isinstance(layer, Permutation):
            layer.order.copy_(torch.tensor(order))
    assert dependence(model, (5,)).all()


def test_permutations_are_drawn():
    first, second = (Permutation(40).order for _ in range(2))
    assert sorted(first.tolist()) == list(range(40))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("case", IMAGE_FLOWS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 8)])
def test_every_pixel_counts_everywhere(case, shape):
    model = new(IMAGE_FLOWS, case, shape)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data += 0.3 * torch.randn_like(module.weight)
    assert dependence(model, shape).all()
