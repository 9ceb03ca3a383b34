"""What every model owes: one contract, run over all of them in small configurations."""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch
from torch import nn

import dgm_bench.models
from dgm_bench.models.batchnorm import FlowBatchNorm
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasInverse, HasLogProb, HasSample
from dgm_bench.spec import ModelSpec

ODE = {"rtol": 1e-10, "atol": 1e-10, "flows": 2}
CASES = {
    "gaussian": ("gaussian:Gaussian", {}),
    "made": ("made:MADE", {"hidden": [24, 24]}),
    "made-random": ("made:MADE", {"hidden": [24], "degrees": "random", "activation": "tanh"}),
    "made-mog": ("made:MADE", {"hidden": [24], "components": 3}),
    "maf": ("maf:MAF", {"layers": 3, "hidden": [24, 24]}),
    "maf-plain": ("maf:MAF", {"layers": 2, "hidden": [24], "batch_norm": False}),
    "maf-mog": ("maf:MAF", {"layers": 2, "hidden": [24], "components": 3}),
    "realnvp": ("realnvp:RealNVP", {"layers": 3, "hidden": [24, 24]}),
    "ffjord-1": ("ffjord:FFJORD", {"hidden": [12], "layer": "concat", **ODE}),
    "ffjord-2": ("ffjord:FFJORD", {"hidden": [12, 10], "activation": "softplus", **ODE}),
    "ffjord-3": ("ffjord:FFJORD", {"hidden": [12, 10, 8], **ODE}),
    "ffjord-rk4": (
        "ffjord:FFJORD",
        {"hidden": [12], "solver": "rk4", "step_size": 0.02, "adjoint": False},
    ),
}
SHAPES = [(2,), (3,), (6,), (1, 4, 4)]


def new(case, shape):
    name, args = CASES[case]
    return build(ModelSpec(name=name, args=args), shape)


def ready(case, shape):
    """A model as training leaves it: statistics set, batch norms away from the identity."""
    model = new(case, shape)
    for module in model.modules():
        if isinstance(module, FlowBatchNorm):
            nn.init.normal_(module.log_gamma, std=0.3)
            nn.init.normal_(module.beta, std=0.3)
    if hasattr(model, "calibrate"):
        model.calibrate(torch.randn(200, *shape) * 1.5 + 0.3, batch_size=64)
    return model.eval()


def is_ode(case):
    return case.startswith("ffjord")


def combinations(cases, odes=((2,), (1, 4, 4))):
    """Every case with every shape, but the slower continuous flows with those of ``odes``."""
    pairs = [(case, shape) for case in cases for shape in (odes if is_ode(case) else SHAPES)]
    return pytest.mark.parametrize(("case", "shape"), pairs, ids=lambda p: str(p).replace(" ", ""))


every_model = pytest.mark.parametrize("case", CASES)
FLOWS = [case for case in CASES if case not in ("gaussian", "made-mog")]


def test_every_model_is_under_contract():
    found = set()
    for module in pkgutil.iter_modules(dgm_bench.models.__path__):
        members = vars(importlib.import_module(f"dgm_bench.models.{module.name}"))
        for name, cls in members.items():
            if inspect.isclass(cls) and cls.__module__.endswith(f".{module.name}"):
                first = [*inspect.signature(cls).parameters, None][0]
                if issubclass(cls, nn.Module) and first == "event_shape" and name != "Flow":
                    found.add(f"{module.name}:{name}")
    assert found == {name for name, _ in CASES.values()}


@combinations(CASES)
def test_shapes_and_capabilities(case, shape, generator):
    model = ready(case, shape)
    assert isinstance(model, HasLogProb)
    assert isinstance(model, HasSample)
    x = model.sample(5, generator)
    assert x.shape == (5, *shape)
    assert model.log_prob(x).shape == (5,)
    assert torch.isfinite(model.log_prob(x)).all()


@every_model
@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)], ids=str)
def test_gradients_reach_every_parameter(case, shape):
    model = new(case, shape)
    if case != "gaussian":
        model.log_prob(torch.randn(40, *shape)).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@combinations(FLOWS)
def test_inverse_undoes_forward(case, shape):
    model, x = ready(case, shape), torch.randn(7, *shape)
    assert isinstance(model, HasInverse)
    u, log_det = model.forward_and_log_det(x)
    assert u.shape == x.shape
    assert log_det.shape == (7,)
    tolerance = 1e-7 if is_ode(case) else 1e-9
    torch.testing.assert_close(model.inverse(u), x, rtol=0, atol=tolerance)


@combinations(FLOWS, odes=[(2,), (3,)])
def test_log_det_is_that_of_the_jacobian(case, shape):
    model, x = ready(case, shape), torch.randn(2, *shape)
    if is_ode(case):
        model.solve_with(adjoint=False)
    jacobian = torch.autograd.functional.jacobian(lambda z: model.forward_and_log_det(z)[0], x)
    square = jacobian.reshape(2, math.prod(shape), 2, math.prod(shape))
    expected = torch.stack([torch.linalg.slogdet(square[i, :, i]).logabsdet for i in range(2)])
    tolerance = 1e-7 if is_ode(case) else 1e-9
    _, log_det = model.forward_and_log_det(x)
    torch.testing.assert_close(log_det, expected, rtol=tolerance, atol=tolerance)


@every_model
def test_two_dimensional_density_integrates_to_one(case):
    model = ready(case, (2,))
    if is_ode(case):
        model.solve_with(rtol=1e-3, atol=1e-3, step_size=0.1)
    x = model.sample(2000, torch.Generator().manual_seed(0))
    low, high = x.amin(0) - 3, x.amax(0) + 3
    n = 150
    axes = [low[d] + (high[d] - low[d]) * (torch.arange(n) + 0.5) / n for d in range(2)]
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(*axes)).exp()
    mass = density.sum() * (high - low).prod() / n**2
    assert abs(mass.item() - 1) < 0.01


@every_model
@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)], ids=str)
def test_state_dict_holds_everything(case, shape):
    model, x = ready(case, shape), torch.randn(5, *shape)
    fresh = new(case, shape).eval()
    assert not torch.allclose(fresh.log_prob(x), model.log_prob(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


@every_model
def test_sample_repeats_with_its_generator(case):
    model = ready(case, (3,))
    first, again, other = (model.sample(4, torch.Generator().manual_seed(s)) for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_model
def test_examples_do_not_touch_each_other_in_evaluation(case):
    model, x = ready(case, (3,)), torch.randn(6, 3)
    alone = torch.cat([model.log_prob(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(model.log_prob(x), alone, rtol=0, atol=1e-7)


@every_model
def test_repr_names_the_class(case):
    assert type(new(case, (3,))).__name__ in repr(new(case, (3,)))


@every_model
def test_single_precision_agrees_with_double(case, generator):
    model = ready(case, (3,))
    if is_ode(case):
        model.solve_with(rtol=1e-5, atol=1e-5)
    x = model.sample(10, generator)
    expected = model.log_prob(x)
    torch.testing.assert_close(
        model.float().log_prob(x.float()).double(), expected, rtol=1e-3, atol=1e-3
    )
    assert model.sample(2, generator).dtype == torch.float32


@pytest.mark.parametrize("case", ["gaussian", "made-mog", "maf-mog"])
def test_samples_follow_the_density(case):
    """The mean of ``q / p`` over draws from ``p`` is one, for a narrower density ``q``."""
    model = ready(case, (2,))
    x = model.sample(20_000, torch.Generator().manual_seed(3))
    centre, spread = x.mean(0), 0.4 * x.std(0)
    square = ((x - centre) / spread).square().sum(1)
    log_q = -0.5 * square - math.log(2 * math.pi) - spread.log().sum()
    ratio = (log_q - model.log_prob(x)).detach().exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(x))
