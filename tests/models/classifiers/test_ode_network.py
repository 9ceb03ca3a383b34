"""Networks of neural ODEs' Table 1: their sizes, and an equation in place of residual blocks."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
import torchdiffeq

from dgm_bench.errors import DeclarationError
from dgm_bench.models.classifiers import ode_network
from dgm_bench.models.classifiers.ode_network import BlockDynamics, ODENetwork, ResidualNetwork
from dgm_bench.models.classifiers.perceptron import Perceptron

ROWS = (28 * 28 + 1,)
SMALL = {"image_shape": [1, 12, 12], "channels": 4}
MODELS = {
    "perceptron": lambda: Perceptron((145,), [1, 12, 12], [6]),
    "residual": lambda: ResidualNetwork((145,), **SMALL, blocks=2),
    "convolution": lambda: ResidualNetwork((145,), **SMALL, blocks=1, downsampling="convolution"),
    "ode-net": lambda: slow(ODENetwork((145,), **SMALL, rtol=1e-6, atol=1e-6)),
    "rk-net": lambda: slow(ODENetwork((145,), **SMALL, rtol=1e-6, atol=1e-6, adjoint=False)),
}


def slow(network):
    """Let the state change slowly, so that few of the activations' kinks are passed."""
    with torch.no_grad():
        network.body.dynamics.norms[2].weight.fill_(0.05)
    return network


every_model = pytest.mark.parametrize("name", MODELS)


@pytest.mark.parametrize(
    ("model", "args", "count"),
    [
        # As counted in the released code: examples/odenet_mnist.py of torchdiffeq.
        (ODENetwork, {}, 232_970),
        (ODENetwork, {"downsampling": "convolution"}, 208_266),
        (ResidualNetwork, {}, 601_482),
        (ResidualNetwork, {"downsampling": "convolution"}, 576_778),
        (Perceptron, {}, 784 * 300 + 300 + 300 * 10 + 10),
    ],
)
def test_models_have_as_many_parameters_as_those_of_the_source(model, args, count):
    assert sum(p.numel() for p in model(ROWS, **args).parameters()) == count


@every_model
def test_gradients_reach_every_parameter(name, generator, monkeypatch):
    # With a group for each channel, normalisation takes away what a bias before it adds.
    monkeypatch.setattr(ode_network, "GROUPS", 2)
    model = MODELS[name]()
    if isinstance(model, ODENetwork):
        model.solve_with(rtol=1e-2, atol=1e-2)
    model.class_logits(torch.rand(3, 1, 12, 12, generator=generator)).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 1e-6, path


@every_model
def test_an_image_s_class_does_not_depend_on_the_images_beside_it(name, generator):
    model, x = MODELS[name](), torch.rand(3, 1, 12, 12, generator=generator)
    with torch.no_grad():
        alone = torch.cat([model.class_logits(one) for one in x.split(1)])
        assert torch.allclose(model.class_logits(x), alone, atol=1e-4)


@every_model
def test_saved_weights_give_equal_logits(name, generator):
    model, other = MODELS[name](), MODELS[name]()
    other.load_state_dict(model.state_dict())
    x = torch.rand(2, 1, 12, 12, generator=generator)
    assert model.class_logits(x).equal(other.class_logits(x))


def test_the_solution_is_that_of_a_public_solver(generator):
    model, h = MODELS["ode-net"](), torch.randn(2, 4, 3, 3, generator=generator)
    expected = torchdiffeq.odeint(
        model.body.dynamics, h, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6, method="dopri8"
    )[-1]
    assert torch.allclose(model.body(h), expected, atol=5e-4)


def test_both_ways_to_the_gradient_agree(generator):
    x = torch.rand(3, 1, 12, 12, generator=generator)
    adjoint, through = MODELS["ode-net"](), MODELS["rk-net"]()
    through.load_state_dict(adjoint.state_dict())
    flat = []
    for model in (adjoint, through):
        loss = model.class_logits(x).logsumexp(1).sum()
        gradient = torch.autograd.grad(loss, tuple(model.parameters()))
        flat.append(torch.cat([part.flatten() for part in gradient]))
    # Solutions pass kinks of the activations, near which the adjoint is only roughly solved.
    assert (flat[0] - flat[1]).norm() < 0.01 * flat[1].norm()


def test_the_time_is_a_channel_of_both_convolutions(generator):
    """``ODEfunc`` of odenet_mnist.py: a constant channel of the time before all others."""
    dynamics, h, t = BlockDynamics(4), torch.randn(2, 4, 3, 3, generator=generator), 0.7
    x = h
    for norm, layer in zip(dynamics.norms, (dynamics.first, dynamics.second), strict=False):
        x = torch.cat([torch.full((2, 1, 3, 3), t), F.group_norm(x, 4, norm.weight).relu()], dim=1)
        x = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
    assert torch.allclose(dynamics(torch.tensor(t), h), F.group_norm(x, 4), atol=1e-5)


def test_rows_of_other_images_are_refused():
    with pytest.raises(DeclarationError, match="are not"):
        Perceptron((144,), image_shape=[1, 12, 12])
