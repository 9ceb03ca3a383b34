"""Splines and the flows of them; linear layers."""

import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.glow import TabularGlow
from dgm_bench.models.flows.layers.linear import FullLinear, LULinear, Permutation
from dgm_bench.models.flows.layers.masked import input_degrees
from dgm_bench.models.flows.layers.masked_residual import ResidualMaskedNetwork
from dgm_bench.models.flows.layers.spline_bins import spline_values
from dgm_bench.models.flows.layers.splines import Spline
from dgm_bench.models.flows.nsf import NSFAutoregressive, NSFCoupling, SplineMADE

BINS, TAIL = 5, 3.0


@pytest.fixture
def spline():
    return Spline(2 * torch.randn(400, 3 * BINS - 1), BINS, TAIL)


def test_a_spline_goes_through_its_knots_and_back(spline):
    for k in range(1, BINS):
        value, _ = spline.forward(spline.x[:, k])
        torch.testing.assert_close(value, spline.y[:, k])
        torch.testing.assert_close(spline.inverse(spline.y[:, k]), spline.x[:, k])


def test_a_spline_is_the_identity_outside_and_at_its_ends(spline):
    for at in (-50.0, -TAIL, TAIL, 7.0):
        x = torch.full((400,), at)
        value, log_slope = spline.forward(x)
        torch.testing.assert_close(value, x)
        torch.testing.assert_close(log_slope, torch.zeros(400), rtol=0, atol=1e-9)
        torch.testing.assert_close(spline.inverse(x), x)


def test_values_and_slopes_are_continuous_at_knots(spline):
    for k in range(BINS + 1):
        (below, one), (above, other) = (spline.forward(spline.x[:, k] + e) for e in (-1e-11, 1e-11))
        torch.testing.assert_close(below, above, rtol=0, atol=1e-5)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_the_slope_is_the_derivative_and_positive(spline):
    x = (2.2 * torch.randn(400)).requires_grad_()
    value, log_slope = spline.forward(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope)
    assert (slope > 0).all()


def test_the_inverse_is_exact(spline):
    x = 2.2 * torch.randn(400)
    value, _ = spline.forward(x)
    torch.testing.assert_close(spline.inverse(value), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1, 20, 100])
def test_the_inverse_stays_on_the_curve_in_single_precision(scale):
    """However steep and flat the curve: its own value there is what was asked for."""
    raw = scale * torch.randn(20_000, 3 * 8 - 1, dtype=torch.float32)
    exact = Spline(raw.double(), 8, TAIL)
    y = (2 * torch.randn(20_000)).float()
    x = Spline(raw, 8, TAIL).inverse(y)
    value, log_slope = exact.forward(x.double())
    # Where the curve is steep, the rounding of x shows.
    off = (value - y).abs() / (1 + log_slope.exp())
    assert off.max() < 1e-4


@pytest.mark.parametrize("shape", [(2,), (3,)])
@pytest.mark.parametrize("kind", [NSFCoupling, NSFAutoregressive])
@pytest.mark.parametrize("wrong", [{"bins": 0}, {"bins": 1000}, {"tail": 0.0}, {"tail": -3.0}])
def test_splines_that_cannot_be_are_refused(kind, shape, wrong):
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        kind(shape, layers=1, hidden=8, **wrong)


def test_one_dimension_cannot_be_coupled():
    with pytest.raises(DeclarationError, match="two dimensions"):
        NSFCoupling((1,))


def test_gradients_are_finite_far_outside():
    raw = torch.randn(4, 3 * BINS - 1, requires_grad=True)
    x = torch.tensor([-1e6, -TAIL, TAIL, 1e6], requires_grad=True)
    value, log_slope = Spline(raw, BINS, TAIL).forward(x)
    for gradient in torch.autograd.grad((value + log_slope).sum(), [raw, x]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("bins", [1, 2, BINS])
def test_splines_in_training_are_the_plain_ones(bins):
    """One look-up a point, one logarithm, and a gradient written by hand; inside and outside."""
    numbers = (2 * torch.randn(4, 3 * bins - 1, 30)).requires_grad_()
    x = (2.5 * torch.randn(4, 30)).requires_grad_()
    assert (x.abs() > TAIL).any()
    scale = torch.tensor(2 * bins * [0.7] + (bins - 1) * [1.0])

    def with_gradients(value, log_slope):
        total = (torch.linspace(-1, 2, 30) * value).sum() + log_slope.square().sum()
        return value, log_slope, *torch.autograd.grad(total, [numbers, x])

    fast = with_gradients(*spline_values(numbers, x, bins, TAIL, 0.7))
    plain = with_gradients(*Spline(numbers.mT * scale, bins, TAIL).forward(x))
    for one, other, error in zip(fast, plain, [1e-12, 1e-12, 1e-10, 1e-10], strict=True):
        torch.testing.assert_close(one, other, rtol=error, atol=error)


@pytest.mark.parametrize("bins", [1, 3])
def test_gradients_of_splines_in_training_are_difference_quotients(bins):
    numbers = torch.randn(2, 3 * bins - 1, 5, requires_grad=True)
    x = torch.tensor([[-4.0, -2.9, -0.3, 1.7, 5.0], [-1.1, 0.0, 0.4, 2.8, 3.2]]).requires_grad_()
    for k in (0, 1):  # each alone too: the other has no gradient then
        assert torch.autograd.gradcheck(
            lambda *at, k=k: spline_values(*at, bins, TAIL)[k], (numbers, x)
        )


def test_splines_in_training_at_knots_and_ends():
    """Values and their gradients are those on either side; the slope is the derivative."""
    numbers = torch.randn(50, 3 * BINS - 1, BINS + 1, requires_grad=True)
    plain = Spline(numbers[..., :1].mT.expand(-1, BINS + 1, -1), BINS, TAIL)
    x = plain.x[:, 0].detach().requires_grad_()
    value, log_slope = spline_values(numbers[..., :1].expand_as(numbers), x, BINS, TAIL)
    beside, _ = plain.forward(x.detach() * (1 - 1e-9))
    for one, other in zip((value, log_slope), plain.forward(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    of_numbers, slope = torch.autograd.grad(value.sum(), [numbers, x])
    torch.testing.assert_close(slope, log_slope.exp())
    (expected,) = torch.autograd.grad(beside.sum(), numbers)
    torch.testing.assert_close(of_numbers, expected, rtol=1e-5, atol=1e-5)


def test_splines_of_several_models_at_once():
    """As ``torch.func.vmap`` runs them."""
    numbers, x = torch.randn(2, 4, 3 * BINS - 1, 6), torch.randn(2, 4, 6)

    def loss(numbers, x):
        value, log_slope = spline_values(numbers, x, BINS, TAIL)
        return value.square().sum() + log_slope.sum()

    gradient = torch.func.grad(loss)
    batched = torch.func.vmap(gradient)(numbers, x)
    for i, one in enumerate(batched):
        torch.testing.assert_close(one, gradient(numbers[i], x[i]))


@pytest.mark.parametrize("scale", [1, 20, 100])
def test_splines_in_training_stay_finite_in_single_precision(scale):
    """A point that rounding puts outside its bin does not give a slope below zero."""
    numbers = scale * torch.randn(5_000, 3 * 8 - 1, 4, dtype=torch.float32)
    knots = Spline(numbers.mT, 8, TAIL).x[:, 0, 1:5].contiguous()
    value, log_slope = spline_values(numbers, knots, 8, TAIL)
    assert torch.isfinite(log_slope).all()
    assert value.abs().max() <= TAIL + 1e-5


@pytest.mark.parametrize("layer", [FullLinear, LULinear, Permutation])
def test_linear_layers_start_at_determinant_one_and_undo_themselves(layer):
    layer, x = layer(5), torch.randn(7, 5)
    u, log_det = layer.forward_and_log_det(x)
    assert log_det.abs().max() < 1e-9
    torch.testing.assert_close(u.sort(1).values, x.sort(1).values)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    u, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(layer.inverse(u), x)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: layer.forward_and_log_det(z[None])[0][0], x[0]
    )
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_residual_masked_network_sees_only_what_came_before(dim, reverse):
    order = input_degrees(dim, reverse=reverse)
    network = ResidualMaskedNetwork(order, 16, 2, 3)
    x = torch.randn(dim)
    jacobian = torch.autograd.functional.jacobian(lambda z: network(z[None])[0], x)
    seen = jacobian.view(3, dim, dim).abs().sum(0) > 0
    assert not (seen & (order[:, None] <= order[None, :])).any()
    if dim > 2:
        assert seen.any()


def test_inversion_unit_by_unit_is_that_of_whole_passes():
    layer = SplineMADE(6, 20, 2, BINS, TAIL, 0.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    u = torch.randn(9, 6)
    x = torch.zeros_like(u)
    for d in range(6):
        raw = layer.network(x).view(9, layer.curve_parameters, 6).transpose(1, 2)[:, d]
        x[:, d] = layer._spline(raw).inverse(u[:, d])
    torch.testing.assert_close(layer.inverse(u), x)


@pytest.mark.parametrize("kind", [NSFCoupling, NSFAutoregressive])
def test_dropout_is_off_in_evaluation(kind):
    model = kind((4,), layers=2, hidden=16, dropout=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, 4)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))
    model.eval()
    assert torch.equal(model.log_prob(x), model.log_prob(x))


def test_the_first_coupling_of_glow_keeps_the_odd_dimensions():
    coupling = TabularGlow((5,)).layers[1]
    x = torch.randn(3, 5)
    u, _ = coupling.forward_and_log_det(x)
    assert torch.equal(u[:, 1::2], x[:, 1::2])
    assert not torch.equal(u[:, ::2], x[:, ::2])
