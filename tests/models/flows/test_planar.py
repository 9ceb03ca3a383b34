"""Planar flows: the constraint, the root, its gradients, and the trace of the continuous one."""

import math

import pytest
import torch

from dgm_bench.models.capabilities import HasSampleWithLogProb, SolvesODE
from dgm_bench.models.continuous.dynamics import Linearised
from dgm_bench.models.continuous.planar_cnf import PlanarCNF, PlanarDynamics
from dgm_bench.models.flows.planar import Planar, PlanarFlow

SCALES = [0.01, 1.0, 10.0, 1000.0]


def drawn(dim, scale):
    layer = Planar(dim)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("scale", SCALES)
def test_constraint_holds_for_any_weights(scale):
    for _ in range(200):
        layer = drawn(3, scale)
        push, along, margin = layer.constrained()
        product = layer.push @ layer.direction
        assert margin >= 0
        torch.testing.assert_close(push @ layer.direction, along, rtol=1e-9, atol=1e-9 * scale**2)
        # Appendix A.1: the component along w becomes m(w.u) = -1 + log(1 + exp(w.u)).
        torch.testing.assert_close(along, -1 + torch.logaddexp(product, torch.zeros(())))
        # What is orthogonal to w stays.
        across = push - layer.push
        torch.testing.assert_close(across @ across * (layer.direction @ layer.direction),
                                   (across @ layer.direction) ** 2)  # fmt: skip


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_inverses_and_jacobians(scale):
    for _ in range(20):
        layer, z = drawn(4, scale), torch.randn(5, 4) * 2
        x, log_det = layer.generate(z)
        again, back = layer.forward_and_log_det(x)
        jacobian = torch.autograd.functional.jacobian(lambda v, f=layer: f.inverse(v).sum(0), z)
        expected = torch.linalg.slogdet(jacobian.transpose(0, 1))
        assert (expected.sign > 0).all()
        torch.testing.assert_close(log_det, expected.logabsdet, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(layer.inverse(again), x, rtol=0, atol=1e-9)
        # Where the map is flat, its inverse is steep, and rounding shows.
        steep = (-log_det).exp() < 1e4
        torch.testing.assert_close(again[steep], z[steep], rtol=0, atol=1e-8)
        torch.testing.assert_close(back[steep], -log_det[steep], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_root_is_found_for_large_weights(scale):
    for _ in range(20):
        layer, x = drawn(3, scale), torch.randn(50, 3)
        z, log_det = layer.forward_and_log_det(x)
        size = layer.constrained()[0].norm().item()
        assert torch.isfinite(z).all()
        assert not torch.isnan(log_det).any()
        torch.testing.assert_close(layer.inverse(z), x, rtol=0, atol=1e-10 * scale * (1 + size))


def test_plain_formula_in_the_direction_of_the_paper():
    layer, z = drawn(3, 1.0), torch.randn(6, 3)
    push, _, _ = layer.constrained()
    expected = [v + push * torch.tanh(layer.direction @ v + layer.offset) for v in z]
    torch.testing.assert_close(layer.inverse(z), torch.stack(expected))


def test_samples_come_with_their_density(generator):
    model = PlanarFlow((4,), layers=6)
    assert isinstance(model, HasSampleWithLogProb)
    x, log_prob = model.sample_with_log_prob(50, generator)
    torch.testing.assert_close(model.log_prob(x), log_prob, rtol=1e-8, atol=1e-8)
    again = model.sample(50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(again, x)


def test_gradients_of_the_density_are_finite_differences():
    model, x = PlanarFlow((3,), layers=3), torch.randn(4, 3)
    names, values = zip(*model.named_parameters(), strict=True)

    def log_prob(x, *parameters):
        return torch.func.functional_call(Called(model), rename(names, parameters), x)

    assert torch.autograd.gradcheck(log_prob, (x.requires_grad_(), *values), atol=1e-6)


class Called(torch.nn.Module):
    """Its call is ``log_prob``."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.log_prob(x)


def rename(names, values):
    return dict(zip([f"model.{name}" for name in names], values, strict=True))


def test_density_can_be_fitted_by_its_own_samples(generator):
    """The reverse Kullback-Leibler divergence, for which planar flows were made."""
    model = PlanarFlow((2,), layers=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    divergences = []
    for _ in range(200):
        x, log_prob = model.sample_with_log_prob(200, generator)
        target = -0.5 * (((x[:, 0] - 1) / 0.5) ** 2 + x[:, 1] ** 2) - math.log(math.pi)
        loss = (log_prob - target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        divergences.append(loss.item())
    assert divergences[0] > 0.5
    assert -0.05 < sum(divergences[-20:]) / 20 < 0.2


# ------------------------------------------------------------------------ continuous flow


def test_continuous_dynamics_are_the_papers_formula():
    network, t, z = PlanarDynamics(3, 5, 4), torch.tensor(0.3), torch.randn(6, 3)
    first, last = network.gate[0], network.gate[2]
    gates = torch.sigmoid(last(torch.tanh(first.weight[:, 0] * t + first.bias)))
    w, b, u = network.inward.weight, network.inward.bias, network.outward.weight
    expected = sum(
        gates[m] * u[:, m] * torch.tanh(z @ w[m] + b[m])[:, None] for m in range(5)
    )  # fmt: skip
    torch.testing.assert_close(network(t, z), expected)
    torch.testing.assert_close(network.linearise(t, z).value, expected)


def test_closed_trace_is_that_of_the_jacobian():
    network, t, z = PlanarDynamics(3, 5, 4), torch.tensor(0.3), torch.randn(6, 3)
    trace = network.linearise(t, z).exact_trace()
    for i in range(6):
        j = torch.autograd.functional.jacobian(lambda x: network(t, x[None])[0], z[i])
        torch.testing.assert_close(trace[i], j.trace())
    at = Linearised(*network.linearise(t, z))
    torch.testing.assert_close(trace, at.exact_trace())


def test_gates_change_with_time():
    network, z = PlanarDynamics(3, 5, 4), torch.randn(6, 3)
    assert not torch.allclose(network(torch.tensor(0.0), z), network(torch.tensor(1.0), z))
    gates = network.gate(torch.linspace(-50, 50, 20)[:, None])
    assert ((gates > 0) & (gates < 1)).all()


def test_continuous_flow_solves_an_equation_and_counts():
    model, x = PlanarCNF((2,), width=6, solver="rk4", step_size=0.25), torch.randn(5, 2)
    assert isinstance(model, SolvesODE)
    model.log_prob(x).mean().backward()
    assert model.function_evaluations == 2 * 4 * 4
    model.solve_with(solver="dopri5", rtol=1e-3, atol=1e-3)
    assert model.solver_settings == "dopri5 rtol 0.001, atol 0.001"


def test_adjoint_gradients_are_the_direct_ones():
    model, x = PlanarCNF((3,), width=6, rtol=1e-9, atol=1e-9), torch.randn(5, 3)
    gradients = []
    for adjoint in (True, False):
        model.solve_with(adjoint=adjoint)
        gradients.append(torch.autograd.grad(model.log_prob(x).mean(), list(model.parameters())))
    for by_adjoint, direct in zip(*gradients, strict=True):
        torch.testing.assert_close(by_adjoint, direct, rtol=1e-6, atol=1e-7)
