"""Cheaper training of continuous flows: RNODE's penalties, and flow matching."""

import math

import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.continuous.ffjord_images import EncoderDecoderFFJORD, MultiScaleFFJORD
from dgm_bench.models.continuous.flow import ContinuousFlow
from dgm_bench.models.flows.maf import MAF
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.objectives import build_objective, require_fit


def small(**changes):
    args = {"flows": 1, "hidden": [6, 5], "solver": "rk4", "step_size": 0.01, "adjoint": False}
    return FFJORD((3,), **(args | changes))


def test_penalties_are_the_integrals_along_the_solution(generator):
    model, x = small(), torch.randn(4, 3)
    state = generator.get_state()
    _, found = model.regularised_log_prob_estimate(x, generator)
    generator.set_state(state)
    e = torch.empty_like(x).normal_(generator=generator)
    network, steps = model.flows[0].network, 400
    kinetic, jacobian, z = torch.zeros(4), torch.zeros(4), x
    with torch.no_grad():
        for k in range(steps):  # the midpoint rule, by Jacobians from autograd
            t = torch.tensor((k + 0.5) / steps)
            middle = z + network(torch.tensor(k / steps), z) / (2 * steps)
            f = network(t, middle)
            j = torch.func.vmap(torch.func.jacrev(lambda y, t=t: network(t, y[None])[0]))(middle)
            kinetic += 0.5 * f.square().mean(1) / steps
            jacobian += torch.einsum("bij,bj->bi", j, e).square().mean(1) / steps
            z = z + f / steps
    torch.testing.assert_close(found["kinetic"], kinetic, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["jacobian"], jacobian, rtol=1e-4, atol=1e-6)


def test_the_norm_of_a_tangent_estimates_the_frobenius_norm(generator):
    network, t, z = small().flows[0].network, torch.tensor(0.4), torch.randn(1, 3)
    many = z.expand(20_000, 3)
    norms = (
        network.linearise(t, many)
        .jvp(torch.empty_like(many).normal_(generator=generator))
        .square()
        .sum(1)
    )
    j = torch.autograd.functional.jacobian(lambda y: network(t, y[None])[0], z[0])
    error = (norms.mean() - j.square().sum()).abs()
    assert error < 4 * norms.std() / 20_000**0.5


MODELS = {
    "fixed steps": lambda: small(flows=2),
    "adaptive": lambda: FFJORD((3,), flows=2, hidden=[6], rtol=1e-3, atol=1e-3),
    "multi-scale": lambda: MultiScaleFFJORD((1, 8, 8), filters=[3]),
    "single": lambda: EncoderDecoderFFJORD((1, 8, 8), filters=[3, 4]),
}


@pytest.mark.parametrize("name", MODELS)
def test_penalties_leave_the_estimate_and_the_steps_as_they_are(name):
    model = MODELS[name]()
    for parameter in model.parameters():
        parameter.data *= 1.5
    x = torch.rand(4, *model.event_shape) * 0.9 + 0.05
    plain = model.log_prob_estimate(x, torch.Generator().manual_seed(2))
    evaluations, model.function_evaluations = model.function_evaluations, 0
    estimate, penalties = model.regularised_log_prob_estimate(x, torch.Generator().manual_seed(2))
    assert model.function_evaluations == evaluations
    torch.testing.assert_close(estimate, plain, rtol=1e-10, atol=1e-10)
    assert set(penalties) == {"kinetic", "jacobian"}
    assert all((value > 0).all() for value in penalties.values())
    assert model.solver.estimate is None


def test_flows_on_few_dimensions_weigh_as_much_as_those_on_many(generator):
    model = MultiScaleFFJORD((1, 8, 8), flows=1, filters=[3])
    for flow in [module for module in model.modules() if isinstance(module, ContinuousFlow)]:
        torch.nn.init.zeros_(flow.network.layers[-1].conv.weight)
        torch.nn.init.ones_(flow.network.layers[-1].conv.bias)
    x = torch.rand(2, 1, 8, 8) * 0.9 + 0.05
    _, penalties = model.regularised_log_prob_estimate(x, generator)
    # dz/dt = 1 in three flows, on 64, 64 and 32 dimensions.
    torch.testing.assert_close(penalties["kinetic"], torch.full((2,), 3 * 0.5))
    torch.testing.assert_close(penalties["jacobian"], torch.zeros(2))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_gradients_of_the_penalties_are_the_same_by_the_adjoint(adjoint):
    model = FFJORD((3,), flows=2, hidden=[6, 5], rtol=1e-9, atol=1e-9, adjoint=adjoint)
    torch.manual_seed(4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    objective = build_objective(ObjectiveSpec(name="rnode", args={"kinetic": 3, "jacobian": 2}))
    loss = objective(model, x, 0, torch.Generator().manual_seed(3)).total
    found = torch.autograd.grad(loss, list(model.parameters()))
    model.solve_with(solver="rk4", step_size=0.005, adjoint=False)
    loss = objective(model, x, 0, torch.Generator().manual_seed(3)).total
    for one, other in zip(found, torch.autograd.grad(loss, model.parameters()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "model"),
    [
        ("rnode", lambda: MAF((3,))),
        ("flow-matching", lambda: MAF((3,))),
        ("flow-matching", lambda: MultiScaleFFJORD((1, 4, 4), filters=[3])),
    ],
)
def test_models_without_the_dynamics_that_are_needed_are_refused(objective, model):
    with pytest.raises(DeclarationError, match=f"objective '{objective}': needs"):
        require_fit(ObjectiveSpec(name=objective), model())


def test_rnodes_loss_is_that_of_the_released_code_in_nats():
    model, x = small(), torch.randn(8, 3)
    loss = build_objective(ObjectiveSpec(name="rnode", args={"kinetic": 0.1, "jacobian": 0.2}))(
        model, x, 0, torch.Generator().manual_seed(3)
    )
    log_prob, found = model.regularised_log_prob_estimate(x, torch.Generator().manual_seed(3))
    penalty = 0.1 * found["kinetic"].mean() + 0.2 * found["jacobian"].mean()
    bits = -log_prob.mean() / (3 * math.log(2)) + penalty
    torch.testing.assert_close(loss.total, bits * 3 * math.log(2))
    loss.total.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.usefixtures("unchecked")
def test_strong_penalties_make_slow_dynamics(generator):
    x = torch.randn(256, 3) * torch.tensor([2.0, 1.0, 0.3]) + 1
    energies = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = small(step_size=0.25)
        objective = build_objective(
            ObjectiveSpec(name="rnode", args={"kinetic": weight, "jacobian": weight})
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(150):
            loss = objective(model, x, step, generator)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
        energies.append(loss.terms["kinetic"].item())
    assert energies[1] < 0.8 * energies[0]


@pytest.mark.parametrize("layer", ["concatsquash", "concat"])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_velocity_at_one_time_is_the_right_hand_side(layer, activation):
    model, z = small(layer=layer, activation=activation), torch.randn(5, 3)
    network = model.flows[0].network
    times = torch.rand(5)
    found = model.velocity(times, z)
    for i in range(5):
        torch.testing.assert_close(found[i : i + 1], network(times[i], z[i : i + 1]))


def test_a_stack_of_flows_has_no_one_velocity():
    with pytest.raises(DeclarationError, match="use flows=1"):
        small(flows=2).velocity(torch.rand(2), torch.randn(2, 3))


class Still(torch.nn.Module):
    """Dynamics without a velocity that note where they were asked."""

    def velocity(self, t, z):
        self.seen = t, z
        return torch.zeros_like(z)


def test_flow_matching_runs_on_straight_lines_from_data_at_time_zero(generator):
    """Lipman et al. 2023, equations 22 and 23, with time the other way round."""
    model, x, sigma = Still(), torch.randn(4000, 2, generator=generator) + 5, 0.1
    objective = build_objective(ObjectiveSpec(name="flow-matching", args={"sigma": sigma}))
    loss = objective(model, x, 0, generator).total
    t, z = model.seen
    noise = (z - (1 - t[:, None]) * x) / (sigma + (1 - sigma) * t[:, None])
    assert noise.mean(0).abs().max() < 0.06
    assert (noise.std(0) - 1).abs().max() < 0.05
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(loss, ((1 - sigma) * noise - x).square().sum(1).mean())


@pytest.mark.usefixtures("unchecked")
def test_flow_matching_finds_a_gaussian(generator):
    """The exact likelihood of the learned flow comes near the entropy."""
    mix = torch.tensor([[1.5, 0.0], [0.8, 0.5]])
    torch.manual_seed(0)
    model = FFJORD((2,), hidden=[32, 32], rtol=1e-5, atol=1e-5)
    objective = build_objective(ObjectiveSpec(name="flow-matching", args={"sigma": 0.0}))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for step in range(1500):
        x = torch.randn(512, 2, generator=generator) @ mix.T
        optimizer.zero_grad()
        objective(model, x, step, generator).total.backward()
        optimizer.step()
        schedule.step()
    x = torch.randn(2000, 2, generator=generator) @ mix.T
    truth = torch.distributions.MultivariateNormal(torch.zeros(2), mix @ mix.T).log_prob(x)
    with torch.no_grad():
        gap = (truth - model.log_prob(x)).mean()
    assert -0.01 < gap < 0.05
