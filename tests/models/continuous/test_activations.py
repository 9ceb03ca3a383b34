"""Derivatives written out against automatic differentiation, and values against torch's own."""

import pytest
import torch

from dgm_bench.models.continuous.activations import value_and_slope
from dgm_bench.models.continuous.dynamics import DynamicsNetwork, value_and_jvp
from dgm_bench.models.latent.posteriors.amortised_dynamics import AmortisedNetwork

PLAIN = {
    "tanh": (torch.tanh, lambda a: 1 - a.tanh().square()),
    # torch's own softplus is the identity above 20.
    "softplus": (lambda a: torch.logaddexp(a, a.new_zeros(())), torch.sigmoid),
}
activations = pytest.mark.parametrize("activation", PLAIN)


@activations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_torchs_to_a_rounding_error_of_one(activation, dtype):
    a = torch.cat([torch.linspace(-200, 200, 81), 4 * torch.randn(200)]).to(dtype)
    size, expected = a.abs().clamp(min=1), [plain(a) for plain in PLAIN[activation]]
    for found, one in zip(value_and_slope(a, activation), expected, strict=True):
        assert found.isfinite().all()
        assert ((found - one).abs() <= 3 * torch.finfo(dtype).eps * size).all()


@activations
def test_gradients_of_value_and_slope(activation):
    a = torch.cat([torch.tensor([0.0, -30.0, 30.0]), torch.randn(20)]).double().requires_grad_()
    weights = torch.randn(2, 23).double()
    found, expected = (
        torch.autograd.grad((torch.stack(pair) * weights).sum(), a)[0]
        for pair in (value_and_slope(a, activation), [f(a) for f in PLAIN[activation]])
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def check(network, z, variables):
    """Compare the shorter way to value, tangent and gradients with the plain one's."""
    t, v = torch.tensor(0.3, requires_grad=True), torch.randn_like(z).requires_grad_()
    variables = [t, v, z.requires_grad_(), *variables]
    found = value_and_jvp(network, t, z, v)
    expected = torch.func.jvp(lambda x: network(t, x), (z,), (v,))
    weights = [torch.randn_like(z) for _ in range(2)]
    gradients = [torch.autograd.grad(pair, variables, weights) for pair in (found, expected)]
    for one, two in zip([*found, *gradients[0]], [*expected, *gradients[1]], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@activations
@pytest.mark.parametrize("layer", ["concatsquash", "concat"])
@pytest.mark.parametrize("hidden", [[7], [7, 5, 6]], ids=len)
def test_a_network_with_its_tangent(activation, layer, hidden):
    network = DynamicsNetwork(4, hidden, layer, activation)
    check(network, torch.randn(3, 4), network.parameters())


@activations
@pytest.mark.parametrize("kind", ["none", "bias", "rank", "hyper", "last"])
def test_an_amortised_network_with_its_tangent(activation, kind):
    network = AmortisedNetwork(4, [7, 5], activation, kind, rank=2)
    size = network.amortised_size
    given = torch.randn(3, size, requires_grad=True) if size else None
    bound = network.condition_on(given)
    check(bound, torch.randn(3, 2, 4), [*network.parameters(), *([given] if size else [])])
