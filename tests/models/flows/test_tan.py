"""TAN and NICE: their parts against their formulas, and what data does to their start."""

import math

import pytest
import torch
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import InitialisesOnData
from dgm_bench.models.flows.layers.recurrent import Recurrence
from dgm_bench.models.flows.nice import NICE, Scaling
from dgm_bench.models.flows.tan import TAN, LeakyReLU, LinearMap, RecurrentMixture, RecurrentShift

CELLS = ["reset-before", "reset-after"]


def shaken(module, std=0.4):
    """Away from the initial values, which make some parts the identity."""
    for parameter in module.parameters():
        parameter.data += std * torch.randn_like(parameter)
    return module


def state_by_formula(recurrence, previous, h):
    """One step of the cell for one example, number by number."""
    cell, n = recurrence.cell, recurrence.units
    if hasattr(cell, "gru"):
        w_x, w_h, b_x, b_h = cell.gru.all_weights[0]
        x = [w_x[i, 0] * previous + b_x[i] for i in range(3 * n)]
        u = [w_h[i] @ h + b_h[i] for i in range(3 * n)]
    else:
        weight = torch.cat([cell.gates.weight, cell.proposal.weight])
        bias = torch.cat([cell.gates.bias, cell.proposal.bias])
        x = [weight[i, 0] * previous + bias[i] for i in range(3 * n)]
        u = [weight[i, 1:] @ h for i in range(2 * n)]
    reset = torch.stack([torch.sigmoid(x[i] + u[i]) for i in range(n)])
    keep = torch.stack([torch.sigmoid(x[i] + u[i]) for i in range(n, 2 * n)])
    if hasattr(cell, "gru"):
        inner = [reset[i] * u[2 * n + i] for i in range(n)]
    else:
        inner = [weight[2 * n + i, 1:] @ (reset * h) for i in range(n)]
    proposed = torch.stack([torch.tanh(x[2 * n + i] + inner[i]) for i in range(n)])
    return keep * h + (1 - keep) * proposed


@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_is_the_formula_of_its_cell(cell):
    recurrence, x = shaken(Recurrence(4, cell)), torch.randn(3, 5)
    states = recurrence(x)
    previous, state = recurrence.start(x)
    for d in range(5):
        expected = [
            state_by_formula(recurrence, p, s) for p, s in zip(previous, state, strict=True)
        ]
        state = recurrence.step(previous, state)
        torch.testing.assert_close(states[d], torch.stack(expected))
        torch.testing.assert_close(state, torch.stack(expected))
        previous = x[:, d]


@pytest.mark.parametrize("cell", CELLS)
def test_initial_values_are_those_of_the_released_code(cell):
    recurrence = Recurrence(50, cell).cell
    if cell == "reset-before":
        gates, proposal = recurrence.gates.weight, recurrence.proposal.weight
        bias = torch.cat([recurrence.gates.bias, recurrence.proposal.bias])
    else:
        weight_x, weight_h, bias, _ = recurrence.gru.all_weights[0]
        gates, proposal = torch.cat([weight_x, weight_h], dim=1).split([100, 50])
    for block, rows in ((gates, 100), (proposal, 50)):
        bound = math.sqrt(6 / (51 + rows))
        assert 0.95 * bound < block.abs().max() <= bound
    assert (bias[:100] == 1).all()
    assert (bias[100:] == 0).all()


def log_density_by_formula(base, u):
    """The mixture density of one example, dimension by dimension and component by component."""
    previous, state = torch.tensor(-1.0), torch.zeros(base.recurrence.units)
    total = 0.0
    for value in u:
        state = state_by_formula(base.recurrence, previous, state)
        logits, mean, log_scale = base.network(state).view(3, -1)
        weights = logits.softmax(0)
        parts = [
            w * torch.distributions.Normal(m, s.exp()).log_prob(value).exp()
            for w, m, s in zip(weights, mean, log_scale, strict=True)
        ]
        total = total + sum(parts).log()
        previous = value
    return total


@pytest.mark.parametrize("cell", CELLS)
def test_mixture_density_is_its_formula(cell):
    base, u = shaken(RecurrentMixture(4, 5, 3, 2, cell)), torch.randn(6, 4)
    expected = torch.stack([log_density_by_formula(base, example) for example in u])
    torch.testing.assert_close(base.log_prob(u), expected)


def test_recurrent_shift_is_its_formula():
    layer, x = shaken(RecurrentShift(5, "reset-before")), torch.randn(2, 4)
    u, log_det = layer.forward_and_log_det(x)
    for i in range(2):
        previous, state = torch.tensor(-1.0), torch.zeros(5)
        for d in range(4):
            state = state_by_formula(layer.recurrence, previous, state)
            torch.testing.assert_close(u[i, d], x[i, d] + layer.shift(state)[0])
            previous = x[i, d]
    assert (log_det == 0).all()


def test_linear_map_is_the_product_of_its_factors():
    layer, x = shaken(LinearMap(4)), torch.randn(3, 4)
    lower = layer.factors.tril(-1) + torch.eye(4)
    u, _ = layer.forward_and_log_det(x)
    torch.testing.assert_close(u, x @ lower @ layer.factors.triu() + layer.bias)


def test_leaky_map_has_one_slope_for_negative_numbers():
    u, log_det = LeakyReLU().forward_and_log_det(torch.tensor([[-2.0, 3.0], [-1.0, -1.0]]))
    slope = 1 / (1 + math.exp(-5))
    torch.testing.assert_close(u, torch.tensor([[-2 * slope, 3.0], [-slope, -slope]]))
    torch.testing.assert_close(log_det, torch.tensor([1.0, 2.0]) * math.log(slope))


def test_layers_come_in_the_order_of_the_released_demo():
    names = [type(layer).__name__ for layer in TAN((3,), units=4, components=2).layers]
    group = ["LeakyReLU", "Scaling", "RecurrentShift", "Reverse", "LinearMap"]
    assert names == ["LinearMap", *group * 4, "LeakyReLU", "Scaling"]


@pytest.mark.parametrize(("dim", "expected"), [(6, 1_066_387), (63, 1_086_565)])
def test_parameter_count_of_the_released_demo(dim, expected):
    with torch.device("meta"):
        model = TAN((dim,))
    gru = (1 + 256 + 1) * 3 * 256
    shift, linear, leaky = 257, dim**2, 1
    mixture = gru + 257 * 120 + 3 * 121 * 120
    group = leaky + dim + gru + shift + linear + dim
    assert expected == linear + 4 * group + leaky + dim + mixture
    assert sum(p.numel() for p in model.parameters()) == expected


def test_first_map_starts_by_scaling_the_data_into_one():
    model, x = TAN((3,), groups=2, units=4, components=2), torch.randn(500, 3) * 3 + 2
    x[:, 2] = torch.rand(500) * 0.1
    assert isinstance(model, InitialisesOnData)
    before = model.log_prob(x)
    model.initialise(x)
    u, log_det = model.layers[0].forward_and_log_det(x)
    torch.testing.assert_close(u.mean(0), torch.zeros(3), rtol=0, atol=1e-12)
    torch.testing.assert_close(u[:, :2].abs().amax(0), torch.ones(2))
    torch.testing.assert_close(u[:, 2], x[:, 2] - x[:, 2].mean())
    assert (log_det < 0).all()
    assert not torch.allclose(model.log_prob(x), before)
    assert "layers.0.bias" not in dict(model.named_parameters())


def test_training_lowers_the_loss():
    model, x = TAN((2,), groups=3, units=16, components=5), torch.randn(512, 2)
    x[:, 1] = x[:, 0].square() + 0.1 * x[:, 1]
    model.initialise(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    losses = []
    for _ in range(150):
        loss = -model.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    # The entropy of this density is log(2 pi e 0.1) = 0.53 nats.
    assert losses[0] > 3
    assert losses[-1] < 1.5


@pytest.mark.usefixtures("unchecked")
def test_nonsense_is_refused():
    with pytest.raises(DeclarationError, match="cell 'lstm': is not known"):
        TAN((2,), cell="lstm")
    with pytest.raises(DeclarationError, match="groups"):
        TAN((2,), groups=0)
    with pytest.raises(DeclarationError, match="base 'cauchy': is not known"):
        NICE((2,), base="cauchy")


# --------------------------------------------------------------------------------- NICE


def test_nice_changes_volume_by_its_scaling_alone():
    model, x = shaken(NICE((5,), layers=3, hidden=[8])), torch.randn(4, 5)
    u, log_det = model.forward_and_log_det(x)
    torch.testing.assert_close(log_det, model.layers[-1].log_scale.sum().expand(4))
    for layer in model.layers:
        x, change = layer.forward_and_log_det(x)
        assert isinstance(layer, Scaling) or (change == 0).all()
    torch.testing.assert_close(x, u)


def test_nice_couplings_take_turns():
    model, x = NICE((5,), layers=4, hidden=[8]), torch.randn(4, 5)
    for i, layer in enumerate(list(model.layers)[:-1]):
        u, _ = layer.forward_and_log_det(x)
        assert torch.equal(u[:, i % 2 :: 2], x[:, i % 2 :: 2])
        assert (u[:, 1 - i % 2 :: 2] != x[:, 1 - i % 2 :: 2]).all()


def test_parameter_count_of_the_nice_paper_for_mnist():
    with torch.device("meta"):
        model = NICE((1, 28, 28), base="logistic")
    network = (392 + 1) * 1000 + 4 * 1001 * 1000 + 1001 * 392
    assert sum(p.numel() for p in model.parameters()) == 4 * network + 784


def test_logistic_base_is_that_of_torch(generator):
    base, u = NICE((3,), hidden=[4], base="logistic").base, torch.randn(5, 3) * 5
    uniform = torch.distributions.Uniform(torch.zeros(3), torch.ones(3))
    inverse = torch.distributions.SigmoidTransform().inv
    logistic = torch.distributions.TransformedDistribution(uniform, [inverse])
    torch.testing.assert_close(base.log_prob(u), logistic.log_prob(u).sum(1))
    draws = base.sample(20_000, generator)
    torch.testing.assert_close(draws.var(0), torch.full((3,), math.pi**2 / 3), rtol=0.05, atol=0)
