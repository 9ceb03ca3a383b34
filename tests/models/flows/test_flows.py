"""What is particular to masks, batch normalisation, couplings, the Gaussian and ``build``."""

import math

import pytest
import torch

from dgm_bench.errors import DataError, DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.flows.gaussian import Gaussian
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.layers.masked import MaskedLinear, hidden_degrees, input_degrees
from dgm_bench.models.flows.made import MADE, GaussianMADE, MixtureMADE
from dgm_bench.models.flows.maf import MAF
from dgm_bench.models.flows.realnvp import RealNVP
from dgm_bench.spec import ModelSpec


def jacobian(function, dim):
    return torch.autograd.functional.jacobian(lambda x: function(x[None])[0], torch.randn(dim))


@pytest.mark.parametrize("degrees", ["sequential", "random"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_made_is_autoregressive_and_uses_all_that_it_may(degrees, reverse, dim):
    made = GaussianMADE(dim, [64, 64], "tanh", degrees, reverse)
    for part in (0, 1):
        j = jacobian(lambda x, part=part: made.network(x).chunk(2, dim=1)[part], dim)
        j = j.flip(0, 1) if reverse else j
        assert (j.triu() == 0).all()
        assert (j[torch.ones(dim, dim).tril(-1) > 0] != 0).all()


def test_mixture_conditionals_are_autoregressive():
    made = MixtureMADE(4, [40], components=3, activation="tanh")
    for kind in range(3):
        for component in range(3):
            j = jacobian(lambda x, k=kind, c=component: made.conditionals(x)[k, :, c], 4)
            assert (j.triu() == 0).all()
            assert (j[torch.ones(4, 4).tril(-1) > 0] != 0).all()


def test_state_dict_cannot_break_the_masks():
    made = GaussianMADE(4, [16, 16])
    made.load_state_dict({k: torch.ones_like(v) if "weight" in k else v
                          for k, v in made.state_dict().items()})  # fmt: skip
    for linear in (m for m in made.modules() if isinstance(m, MaskedLinear)):
        assert (linear.weight == 1).all()
    assert (jacobian(lambda x: made.forward_and_log_det(x)[0], 4).triu(1) == 0).all()


def test_masked_weights_get_no_gradient():
    linear = MaskedLinear(torch.tensor([[True, False], [True, True]]))
    linear(torch.randn(3, 2)).sum().backward()
    assert linear.weight.grad[0, 1] == 0
    assert (linear.weight.grad[linear.mask > 0] != 0).all()


def test_sequential_degrees_are_those_of_the_released_code():
    assert input_degrees(4, reverse=True).tolist() == [4, 3, 2, 1]
    assert hidden_degrees(input_degrees(4), 7, 4, "sequential").tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert hidden_degrees(input_degrees(1), 3, 1, "sequential").tolist() == [0, 0, 0]


def test_random_degrees_stay_above_the_layer_below():
    drawn = hidden_degrees(torch.tensor([3, 4]), 1000, 6, "random")
    assert drawn.unique().tolist() == [3, 4, 5]


def test_initial_weights_follow_the_released_code():
    linear = MaskedLinear(torch.ones(400, 99, dtype=torch.bool))
    assert linear.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert (linear.bias == 0).all()
    assert MixtureMADE(8, [9], components=10).network.last.bias.std() > 0.8


def test_maf_reverses_the_order_from_layer_to_layer_and_in_its_base():
    maf = MAF((3,), layers=3, hidden=[8], components=2)
    orders = [layer.order.tolist() for layer in maf.layers if isinstance(layer, GaussianMADE)]
    assert orders == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert maf.base.order.tolist() == [2, 1, 0]
    assert isinstance(maf.layers[-1], FlowBatchNorm)


def test_realnvp_first_keeps_odd_dimensions_then_even_ones():
    model = RealNVP((5,), layers=2, hidden=[8], batch_norm=False)
    x = torch.randn(3, 5)
    first, _ = model.layers[0].forward_and_log_det(x)
    second, _ = model.layers[1].forward_and_log_det(x)
    assert torch.equal(first[:, 1::2], x[:, 1::2])
    assert (first[:, 0::2] != x[:, 0::2]).all()
    assert torch.equal(second[:, 0::2], x[:, 0::2])
    assert (second[:, 1::2] != x[:, 1::2]).all()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_coupling_formula_with_masks_written_out(dim):
    coupling = RealNVP((dim,), layers=1, hidden=[8], batch_norm=False).layers[0]
    x, mask = torch.randn(4, dim), torch.arange(dim) % 2
    s, t = torch.zeros_like(x), torch.zeros_like(x)
    s[:, 0::2], t[:, 0::2] = coupling.log_scale(x[:, 1::2]), coupling.shift(x[:, 1::2])
    expected = mask * x + (1 - mask) * torch.exp(-s) * (x - t)
    u, log_det = coupling.forward_and_log_det(x)
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(log_det, -s.sum(1))


def test_batch_norm_normalises_the_minibatch_in_training():
    norm, x = FlowBatchNorm(3), torch.randn(500, 3) * 4 + 1
    u, log_det = norm.forward_and_log_det(x)
    torch.testing.assert_close(u.mean(0), torch.zeros(3), atol=1e-12, rtol=0)
    torch.testing.assert_close(u.var(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    expected = -0.5 * (x.var(0, correction=0) + 1e-5).log().sum()
    torch.testing.assert_close(log_det, expected.expand(500))


def test_batch_norm_gradient_flows_through_the_statistics():
    norm, x = FlowBatchNorm(2), torch.randn(6, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sum(norm.forward_and_log_det(z)[1]), x)
    assert torch.autograd.gradcheck(lambda z: norm.forward_and_log_det(z)[0], x)


def test_batch_norm_calibrates_single_precision_data_in_double():
    x = (torch.randn(10_000, 2) * 1e-2 + 1000).float()
    norm = FlowBatchNorm(2).double()
    norm.calibrate(x, batch_size=999)
    torch.testing.assert_close(norm.mean, x.double().mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(norm.variance, x.double().var(0, correction=0), rtol=1e-10, atol=0)


@pytest.mark.parametrize("cls", [MAF, RealNVP])
def test_calibration_in_chunks_equals_one_whole_batch(cls):
    model, x = cls((4,), layers=3, hidden=[16]), torch.randn(300, 4) * 2 + 1
    before = x.clone()
    expected = model.log_prob(x)
    model.calibrate(x, batch_size=77)
    assert model.training
    assert torch.equal(x, before)
    torch.testing.assert_close(model.eval().log_prob(x), expected, rtol=1e-9, atol=1e-9)


def test_calibration_of_layers_without_statistics_changes_nothing():
    model, x = MADE((3,), hidden=[8]), torch.randn(9, 3)
    expected = model.log_prob(x)
    model.calibrate(x)
    assert torch.equal(model.log_prob(x), expected)


def test_gaussian_fit_is_maximum_likelihood():
    x = torch.randn(5000, 4) @ torch.randn(4, 4) + torch.arange(4.0)
    model = Gaussian((4,))
    model.calibrate(x, batch_size=777)
    covariance = torch.cov(x.T, correction=0)
    # At the maximum the mean log-likelihood is minus the entropy of the fit.
    entropy = 0.5 * (4 * (1 + math.log(2 * math.pi)) + torch.logdet(covariance))
    torch.testing.assert_close(model.log_prob(x).mean(), -entropy, rtol=1e-10, atol=0)
    peer = torch.distributions.MultivariateNormal(x.mean(0), covariance)
    torch.testing.assert_close(model.log_prob(x), peer.log_prob(x), rtol=1e-9, atol=1e-9)


def test_gaussian_names_a_constant_dimension():
    x = torch.randn(50, 3)
    x[:, 1] = 2.0
    with pytest.raises(DataError, match="dimension 1: makes the covariance of 50"):
        Gaussian((3,)).calibrate(x)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(name="maff:MAF"), "did you mean 'maf:MAF'"),
        (ModelSpec(name="maf:Maf"), "did you mean 'maf:MAF'"),
        (ModelSpec(name="maf:GaussianMADE"), "'maf:GaussianMADE': is not known"),
        (ModelSpec(name="os:system"), "use .*made:MADE"),
        (ModelSpec(name="maf:MAF", args={"layer": 3}), "did you mean 'layers'"),
        (ModelSpec(name="maf:MAF", args={"event_shape": (3,)}), "event_shape: is no argument"),
        (ModelSpec(name="planar:PlanarFlow", args={"layers": None}), "a valid integer"),
        (ModelSpec(name="ffjord:Flow"), "is not known"),
        (ModelSpec(name="planar:PlanarFlow", args={"layers": 0}), "use a number above 0"),
        (ModelSpec(name="made:MADE", args={"activation": "swish"}), "swish"),
        (ModelSpec(name="made:MADE", args={"degrees": "sorted"}), "sorted"),
        (ModelSpec(name="ffjord:FFJORD", args={"layer": "concatt"}), "concatt"),
        (ModelSpec(name="ffjord:FFJORD", args={"activation": "relu"}), "relu"),
        (ModelSpec(name="ffjord:FFJORD", args={"noise": "uniform"}), "uniform"),
    ],
)
def test_build_says_what_is_wrong(spec, message):
    with pytest.raises(DeclarationError, match=message):
        build(spec, (3,))


def test_build_passes_arguments_on():
    model = build(ModelSpec(name="maf:MAF", args={"layers": 2, "hidden": [7]}), (1, 2, 2))
    assert len([m for m in model.layers if isinstance(m, GaussianMADE)]) == 2
    assert model.event_shape == (1, 2, 2)
