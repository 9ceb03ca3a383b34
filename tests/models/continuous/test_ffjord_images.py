"""FFJORD on images: sizes, convolutions, traces without second derivatives, and the estimate."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous import conv_dynamics
from dgm_bench.models.continuous.conv_dynamics import ConcatConv, ConvDynamics
from dgm_bench.models.continuous.dynamics import value_and_estimate
from dgm_bench.models.continuous.ffjord_images import EncoderDecoderFFJORD, MultiScaleFFJORD
from dgm_bench.models.continuous.flow import ContinuousFlow

#: Convolutions of the released code's README (three hidden layers) and of the paper's text (two).
#: The released code counts one more parameter per flow, its end time, constant here.
COUNTS = [
    ((1, 28, 28), 3, 10, 800_636),
    ((3, 32, 32), 3, 14, 1_358_868),
    ((1, 28, 28), 2, 10, 425_596),
    ((3, 32, 32), 2, 14, 833_812),
]


@pytest.mark.parametrize(("shape", "hidden", "flows", "count"), COUNTS)
def test_sizes_are_those_of_the_released_code(shape, hidden, flows, count):
    with torch.device("meta"):
        model = MultiScaleFFJORD(shape, filters=hidden * [64])
    assert sum(isinstance(module, ContinuousFlow) for module in model.modules()) == flows
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("stride", [1, 2, -2])
def test_a_layer_is_the_convolution_of_time_and_input(stride):
    layer, t, x = ConcatConv(2, 3, stride), torch.tensor(0.7), torch.randn(4, 2, 6, 6)
    whole = layer.conv(torch.cat([t.expand(4, 1, 6, 6), x], dim=1))
    torch.testing.assert_close(layer(t, x), whole)
    assert whole.shape[2] == {1: 6, 2: 3, -2: 12}[stride]


NETWORKS = {
    "plain": lambda: ConvDynamics(2, [5, 4]),
    "one hidden": lambda: ConvDynamics(2, [5]),
    "encoder": lambda: ConvDynamics(2, [3, 3, 4, 3, 3], [1, 2, 1, 1, -2, 1]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_traces_are_those_of_the_jacobian(name, monkeypatch):
    network, t = NETWORKS[name](), torch.tensor(0.3)
    z = torch.randn(3, 2, 4, 4)
    at, noise = network.linearise(t, z), torch.randn_like(z)
    torch.testing.assert_close(at.value, network(t, z))
    for i in range(3):
        j = torch.autograd.functional.jacobian(lambda x: network(t, x[None])[0], z[i])
        j, e = j.reshape(32, 32), noise[i].flatten()
        torch.testing.assert_close(at.exact_trace()[i], j.trace())
        torch.testing.assert_close(at.jvp(noise)[i].flatten(), j @ e)
        torch.testing.assert_close(value_and_estimate(network, t, z, noise)[1][i], e @ j @ e)
    whole = at.exact_trace()
    monkeypatch.setattr(conv_dynamics, "MAX_TANGENT_ELEMENTS", 1)
    torch.testing.assert_close(at.exact_trace(), whole)


@pytest.mark.parametrize("kind", [MultiScaleFFJORD, EncoderDecoderFFJORD])
def test_the_estimate_is_unbiased(kind, generator):
    model = kind((1, 4, 4), filters=[6, 6], alpha=None, rtol=1e-4, atol=1e-4)
    x = torch.randn(2, 1, 4, 4)
    with torch.no_grad():
        exact = model.log_prob(x)
        many = x.repeat(1500, 1, 1, 1)
        draws = model.log_prob_estimate(many, generator).view(1500, 2)
    assert (draws.std(0) > 1e-4).all()
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / 1500**0.5 + 1e-4).all()


@pytest.mark.parametrize("kind", [MultiScaleFFJORD, EncoderDecoderFFJORD])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_adjoint_gradients_are_those_through_the_solver(kind):
    model = kind((1, 8, 8), filters=[4, 4], rtol=1e-8, atol=1e-8)
    x, gradients = torch.rand(3, 1, 8, 8) * 0.9 + 0.05, []
    for adjoint in (True, False):
        model.solve_with(adjoint=adjoint)
        estimate = model.log_prob_estimate(x, torch.Generator().manual_seed(1))
        gradients.append(torch.autograd.grad(estimate.sum(), list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [MultiScaleFFJORD, EncoderDecoderFFJORD])
def test_pixels_come_back(kind):
    model = kind((1, 8, 8), filters=[4, 4], alpha=1e-6, rtol=1e-9, atol=1e-9)
    x = torch.rand(5, 1, 8, 8) * 0.98 + 0.01
    u, _ = model.forward_and_log_det(x)
    torch.testing.assert_close(model.inverse(u), x, rtol=0, atol=1e-6)


def test_an_evaluation_of_every_flow_is_counted():
    model = MultiScaleFFJORD((1, 8, 8), filters=[4], solver="rk4", step_size=0.5, alpha=None)
    model.log_prob_estimate(torch.randn(2, 1, 8, 8), torch.Generator())
    assert model.function_evaluations == 6 * 2 * 4


@pytest.mark.parametrize("side", [5, 9, 18])
def test_sides_that_cannot_be_halved_have_fewer_scales(side):
    model = MultiScaleFFJORD((1, side, side), filters=[3], solver="rk4", step_size=0.5)
    x = torch.rand(2, 1, side, side) * 0.9 + 0.05
    assert model.log_prob_estimate(x, torch.Generator()).shape == (2,)


def test_too_small_or_uneven_images_are_refused():
    with pytest.raises(DeclarationError, match="too few"):
        MultiScaleFFJORD((1, 2, 2))
    with pytest.raises(DeclarationError, match="not divisible by 4"):
        EncoderDecoderFFJORD((1, 6, 6))


def test_softplus_has_the_slope_that_tangents_take():
    x = torch.randn(5, requires_grad=True)
    (slope,) = torch.autograd.grad(F.softplus(x).sum(), x)
    torch.testing.assert_close(slope, x.detach().sigmoid())
