"""Filling in one dimension at a time against the slow way: the whole network for each."""

import pytest
import torch

from dgm_bench.models.flows.layers import masked
from dgm_bench.models.flows.layers.masked import (
    MaskedLayer,
    MaskedLinear,
    MaskedNetwork,
    input_degrees,
    made_masks,
)
from dgm_bench.models.flows.layers.ordered_inverse import invert_in_order
from dgm_bench.models.flows.made import GaussianMADE, MixtureMADE


def slowly(network, n, value):
    """As many passes as dimensions."""
    x = torch.zeros(n, len(network.order))
    for d in network.order.argsort().tolist():
        outputs = network(x).view(n, -1, len(network.order))
        x[:, d] = value(d, outputs[:, :, d].T)
    return x


def shaken(network):
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def agree(network, outputs, n=9):
    noise = torch.randn(n, len(network.order))
    weights = torch.randn(outputs, 1)

    def value(d, parameters):
        assert parameters.shape == (outputs, n)
        return noise[:, d] + (weights * parameters).sum(0).tanh()

    with torch.no_grad():
        expected = slowly(network, n, value)
    found = invert_in_order(network, n, value)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.is_contiguous()


orders = pytest.mark.parametrize("order", ["natural", "reversed", "shuffled"])


def order_of(kind, dim):
    return (
        torch.randperm(dim) + 1
        if kind == "shuffled"
        else input_degrees(dim, reverse=kind == "reversed")
    )


@orders
@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("hidden", [[16], [16, 3], [5, 16, 9], []], ids=str)
@pytest.mark.parametrize("degrees", ["sequential", "random"])
def test_equals_whole_passes(order, dim, hidden, degrees):
    order = order_of(order, dim)
    agree(shaken(MaskedNetwork(order, hidden, 3, "tanh", degrees)), 3)


@pytest.mark.parametrize("order", ["natural", "reversed"])
@pytest.mark.parametrize(("dim", "hidden"), [(1, [6]), (7, [16, 3]), (7, [5, 16, 9])], ids=str)
@pytest.mark.parametrize("degrees", ["sequential", "random"])
def test_networks_of_sorted_units(order, dim, hidden, degrees, monkeypatch):
    monkeypatch.setattr(masked, "FEWEST_UNITS", 1)
    network = MaskedNetwork(order_of(order, dim), hidden, 3, "tanh", degrees)
    assert network.last.blocks
    agree(shaken(network), 3)


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus", "elu"])
def test_every_activation(activation):
    agree(shaken(MaskedNetwork(input_degrees(6), [20, 20], 2, activation)), 2)


def test_masks_of_a_state_dict_count():
    kept, loaded = (MaskedNetwork(input_degrees(6), [20, 20], 2, "relu", "random") for _ in "ab")
    assert not torch.equal(kept[0].mask, loaded[0].mask)
    loaded.load_state_dict(shaken(kept).state_dict())
    agree(loaded, 2)


class Residual(torch.nn.Module):
    """One residual block between two masked layers, all hidden layers of the same degrees."""

    def __init__(self, order, width, outputs):
        super().__init__()
        first, last = made_masks(order, [width], outputs, "sequential")
        _, square, _ = made_masks(order, [width, width], outputs, "sequential")
        self.order, self.activation = order, torch.nn.ELU()
        self.linears = torch.nn.ModuleList(map(MaskedLinear, [first, square, square, last]))

    def forward(self, x):
        first, inner, outer, last = self.linears
        h = first(x)
        return last(h + outer(self.activation(inner(self.activation(h)))))

    def masked_layers(self):
        first, inner, outer, last = self.linears
        return [
            MaskedLayer(first),
            MaskedLayer(inner, self.activation),
            MaskedLayer(outer, self.activation, skip_from=0),
            MaskedLayer(last),
        ]


@orders
@pytest.mark.parametrize("dim", [2, 7])
def test_residual_networks(order, dim):
    agree(shaken(Residual(order_of(order, dim), 16, 2)), 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 7])
def test_gaussian_made_inverts_as_by_whole_passes(dim, reverse):
    made = shaken(GaussianMADE(dim, [12, 12], reverse=reverse))
    u = torch.randn(8, dim)

    def value(d, parameters):
        return parameters[0] + (-0.5 * parameters[1]).exp() * u[:, d]

    with torch.no_grad():
        expected = slowly(made.network, len(u), value)
    torch.testing.assert_close(made.inverse(u), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_mixture_made_draws_what_whole_passes_draw(dim):
    made, n = MixtureMADE(dim, [12, 12], components=4, reverse=True), 50
    shaken(made)
    generator = torch.Generator().manual_seed(5)
    noise = torch.empty(n, dim).normal_(generator=generator)
    gumbel = -torch.empty(n, 4, dim).uniform_(generator=generator).log().neg().log()
    x = torch.zeros(n, dim)
    with torch.no_grad():
        for d in made.order.tolist():
            mean, log_precision, log_weight = made.conditionals(x)[..., d]
            chosen = (log_weight + gumbel[..., d]).argmax(1, keepdim=True)
            scale = (-0.5 * log_precision.gather(1, chosen)).exp()
            x[:, d] = (mean.gather(1, chosen) + scale * noise[:, d, None])[:, 0]
    found = made.sample(n, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


def test_no_gradient_and_no_examples():
    made = GaussianMADE(4, [12])
    assert not made.inverse(torch.randn(3, 4, requires_grad=True)).requires_grad
    assert made.inverse(torch.randn(0, 4)).shape == (0, 4)
