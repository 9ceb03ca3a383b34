"""FFJORD: sizes, traces, gradients, tolerances, counters and failures."""

import math

import pytest
import torch

from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.models.continuous import dynamics
from dgm_bench.models.continuous.dynamics import DynamicsNetwork, value_and_estimate
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.continuous.solver import Estimate, Solver, gradient_of

TABLE_4 = {
    "power": (6, 5, [60] * 3, 43_325, 41_465),
    "gas": (8, 5, [160] * 3, 278_565, 273_685),
    "hepmass": (21, 10, [210] * 2, 546_850, 538_030),
    "miniboone": (43, 1, [860] * 2, 820_613, 817_087),
    "bsds300": (63, 2, [1260] * 3, 6_698_666, 6_683_294),
}


@pytest.mark.parametrize("name", TABLE_4)
def test_parameter_counts_of_the_papers_architectures(name):
    dim, flows, hidden, squash, concat = TABLE_4[name]
    for layer, expected in (("concatsquash", squash), ("concat", concat)):
        with torch.device("meta"):
            model = FFJORD((dim,), flows=flows, hidden=hidden, layer=layer)
        # The released code has an end time per flow among its parameters; here it is constant.
        assert sum(p.numel() for p in model.parameters()) + flows == expected


@pytest.mark.parametrize("hidden", [[7], [7, 5], [7, 5, 6]], ids=len)
@pytest.mark.parametrize("layer", ["concatsquash", "concat"])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_traces_are_those_of_the_jacobian(hidden, layer, activation, monkeypatch):
    network = DynamicsNetwork(4, hidden, layer, activation)
    t, z, noise = torch.tensor(0.3), torch.randn(3, 4), torch.randn(3, 4)
    at = network.linearise(t, z)
    torch.testing.assert_close(at.value, network(t, z))
    for i in range(3):
        j = torch.autograd.functional.jacobian(lambda x: network(t, x[None])[0], z[i])
        torch.testing.assert_close(at.exact_trace()[i], j.trace())
        torch.testing.assert_close(
            value_and_estimate(network, t, z, noise)[1][i], noise[i] @ j @ noise[i]
        )
    whole = at.exact_trace()
    monkeypatch.setattr(dynamics, "MAX_TANGENT_ELEMENTS", 1)
    torch.testing.assert_close(at.exact_trace(), whole)


def test_layers_are_the_papers_formulas():
    t, z = torch.tensor(0.7), torch.randn(3, 4)
    squash = dynamics.ConcatSquash(4, 5)
    gate = torch.sigmoid(squash.gate.weight[:, 0] * t + squash.gate.bias)
    expected = squash.linear(z) * gate + squash.drift.weight[:, 0] * t
    weight, bias = squash.at(t)
    torch.testing.assert_close(z @ weight.T + bias, expected)
    concat = dynamics.Concat(4, 5)
    weight, bias = concat.at(t)
    expected = concat.linear(torch.cat([t.expand(3, 1), z], dim=1))
    torch.testing.assert_close(z @ weight.T + bias, expected)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_estimate_is_unbiased(noise, generator):
    model = FFJORD((3,), flows=2, hidden=[16, 16], rtol=1e-5, atol=1e-5, noise=noise)
    x = torch.randn(4, 3)
    with torch.no_grad():
        exact = model.log_prob(x)
        draws = model.log_prob_estimate(x.repeat(4000, 1), generator).view(4000, 4)
    assert (draws.std(0) > 0.01).all()
    error = (draws.mean(0) - exact).abs()
    assert (error < 4 * draws.std(0) / 4000**0.5 + 1e-5).all()


def rates(network, noise, t, z):
    """The right-hand side with ``e^T J e``, by automatic differentiation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = network(t, z)
        (product,) = torch.autograd.grad(value, z, noise)
    return value.detach(), (product * noise).sum(1)


def integral(network, noise, z, steps=20):
    """The classical Runge-Kutta method of order 4, written out."""
    h, log_det = 1 / steps, torch.zeros(len(z))
    for k in range(steps):
        k1, t1 = rates(network, noise, torch.tensor(k * h), z)
        k2, t2 = rates(network, noise, torch.tensor((k + 0.5) * h), z + h / 2 * k1)
        k3, t3 = rates(network, noise, torch.tensor((k + 0.5) * h), z + h / 2 * k2)
        k4, t4 = rates(network, noise, torch.tensor((k + 1) * h), z + h * k3)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        log_det = log_det + h / 6 * (t1 + 2 * t2 + 2 * t3 + t4)
    return z, log_det


@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_the_noise_of_an_estimate_is_held_over_a_solve():
    """One vector a flow, drawn in the order of the flows (FFJORD, section 3.1)."""
    model = FFJORD((3,), flows=2, hidden=[8], solver="rk4", step_size=0.05)
    x, drawn = torch.randn(4, 3), torch.Generator().manual_seed(7)
    found = model.log_prob_estimate(x, torch.Generator().manual_seed(7)).detach()
    z, log_det = x, torch.zeros(4)
    for flow in model.layers:
        noise = torch.empty(4, 3).normal_(generator=drawn)
        z, change = integral(flow.network, noise, z)
        log_det = log_det + change
    expected = -0.5 * z.square().sum(1) - 1.5 * math.log(2 * math.pi) + log_det
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - model.log_prob(x)).abs().min() > 1e-3  # it is an estimate


def test_rademacher_noise_is_plus_or_minus_one(generator):
    drawn = Estimate(generator, "rademacher").draw(torch.Size((500, 2)), torch.zeros(1))
    assert drawn.unique().tolist() == [-1, 1]
    assert abs(drawn.mean()) < 0.1


def test_likelihood_is_converged_at_the_published_tolerances():
    model, x = FFJORD((6,), flows=5, hidden=[60] * 3), torch.randn(50, 6)
    with torch.no_grad():
        published = model.log_prob(x)
        model.solve_with(rtol=1e-7, atol=1e-9)
        finer = model.log_prob(x)
    assert (published - finer).abs().max() < 1e-4


@pytest.mark.parametrize("trace", ["exact", "estimate"])
def test_adjoint_gradients_are_the_direct_ones(trace):
    model, x = FFJORD((3,), flows=2, hidden=[8, 8, 8], rtol=1e-9, atol=1e-9), torch.randn(5, 3)
    x.requires_grad_()
    gradients = []
    for adjoint in (True, False):
        model.solve_with(adjoint=adjoint)
        generator = torch.Generator().manual_seed(5)
        exact = trace == "exact"
        value = model.log_prob(x) if exact else model.log_prob_estimate(x, generator)
        gradients.append(torch.autograd.grad(value.mean(), [x, *model.parameters()]))
    for by_adjoint, direct in zip(*gradients, strict=True):
        torch.testing.assert_close(by_adjoint, direct, rtol=1e-6, atol=1e-7)


def test_solves_may_overlap_before_their_gradients_are_taken(generator):
    model, x = FFJORD((2,), hidden=[8], rtol=1e-8, atol=1e-8), torch.randn(5, 2)
    state = generator.get_state()
    alone = torch.autograd.grad(model.log_prob_estimate(x, generator).sum(), model.parameters())
    generator.set_state(state)
    first = model.log_prob_estimate(x, generator)
    model.log_prob_estimate(x, generator)
    again = torch.autograd.grad(first.sum(), model.parameters())
    for a, b in zip(alone, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_function_evaluations_count_forward_and_adjoint():
    model, x = FFJORD((2,), hidden=[8], solver="rk4", step_size=0.25), torch.randn(5, 2)
    loss = model.log_prob(x).mean()
    assert model.function_evaluations == 4 * 4
    loss.backward()
    assert model.function_evaluations == 2 * 4 * 4
    model.function_evaluations = 3
    model.inverse(x)
    assert model.function_evaluations == 3 + 16


def test_solver_can_be_changed_after_construction():
    model, x = FFJORD((2,), hidden=[8], flows=2), torch.randn(5, 2)
    fine = model.log_prob(x)
    model.solve_with(solver="rk4", step_size=0.5)
    coarse = model.log_prob(x)
    assert 1e-7 < (fine - coarse).abs().max() < 1e-2
    model.solve_with(solver="dopri5")
    assert torch.equal(model.log_prob(x), fine)


@pytest.mark.parametrize("adjoint", [True, False])
def test_words_of_recipes_for_gradients_are_one_choice(adjoint):
    solver = Solver()
    solver.change(adjoint=adjoint, checkpointed=True)
    assert solver.gradient == "discrete-adjoint"
    solver.change(checkpointed=False, adjoint=adjoint)
    assert solver.gradient == ("adjoint" if adjoint else "backpropagation")
    solver.change(rtol=1e-3)
    assert solver.gradient == gradient_of(adjoint)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gradient": "adjont"}, "did you mean 'adjoint'"),
        ({"rtool": 1e-3}, "did you mean 'rtol'"),
        ({"evaluations": 0}, "no setting"),
        ({"solver": "euler"}, "solver 'euler': is not known"),
        ({"solver": "rk4"}, "needs one"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_overrides_are_refused_and_change_nothing(overrides, message):
    model = FFJORD((2,), hidden=[8])
    before = dict(vars(model.solver))
    with pytest.raises(DeclarationError, match=message):
        model.solve_with(**overrides)
    assert vars(model.solver) == before


def test_a_network_without_hidden_layers_is_refused():
    with pytest.raises(DeclarationError, match="hidden"):
        FFJORD((2,), hidden=[])


def test_non_finite_dynamics_end_the_run_in_good_order():
    model = FFJORD((2,), hidden=[8])
    with torch.no_grad():
        model.layers[0].network.layers[0].linear.weight.fill_(float("nan"))
    with pytest.raises(RunFailure, match="step size underflowed") as caught:
        model.log_prob(torch.randn(3, 2))
    assert caught.value.status == "solver-failed"


def test_failure_of_the_adjoint_solve_ends_the_run_in_good_order():
    model = FFJORD((2,), hidden=[8])
    loss = model.log_prob(torch.randn(3, 2)).sum() * float("nan")
    with pytest.raises(RunFailure, match="step size underflowed"):
        loss.backward()


def test_error_control_covers_the_log_determinant():
    """With z at rest, only the integral of the trace tells the solver what steps to take."""
    model = FFJORD((2,), hidden=[8, 8])
    network = model.layers[0].network
    with torch.no_grad():
        for layer in network.layers:
            layer.linear.bias.zero_()
            layer.linear.weight.mul_(3)
            layer.drift.weight.zero_()
            layer.gate.weight.fill_(40.0)
            layer.gate.bias.fill_(-20.0)
        z, log_det = model.forward_and_log_det(torch.zeros(1, 2))
        times = torch.linspace(0, 1, 1001)
        traces = [network.linearise(t, torch.zeros(1, 2)).exact_trace() for t in times]
    assert (z == 0).all()
    assert abs(log_det) > 0.01
    torch.testing.assert_close(log_det, torch.trapezoid(torch.cat(traces), times)[None], atol=1e-6,
                               rtol=1e-6)  # fmt: skip
