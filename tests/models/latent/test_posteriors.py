"""Posteriors: log-determinants, constraints, amortisation, training."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import HasPosteriorDraws, SolvesODE
from dgm_bench.models.continuous import dynamics
from dgm_bench.models.flows.planar import Planar, constrained_u
from dgm_bench.models.latent.gated_vae import (
    ContinuousConvVAE,
    ContinuousDenseVAE,
    ConvVAE,
    DenseVAE,
)
from dgm_bench.models.latent.posteriors import amortised_dynamics, build_posterior, ffjord
from dgm_bench.models.latent.posteriors.amortised_dynamics import AmortisedNetwork
from dgm_bench.models.latent.posteriors.ffjord import AmortisedFFJORD
from dgm_bench.models.latent.posteriors.sylvester import GPU_STEPS, orthonormalised

FEATURES, LATENT = 7, 4
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
SMALL = {"flows": 2, "hidden": [6, 5], "rank": 2, **TIGHT}

CASES = {
    "iaf": ("iaf", {"flows": 3, "width": 8}),
    "planar": ("planar", {"flows": 3}),
    "glow": ("glow", {"layers": 3, "hidden": [6]}),
    "orthogonal": ("sylvester-orthogonal", {"flows": 2, "vectors": 3}),
    "householder": ("sylvester-householder", {"flows": 2, "reflections": 3}),
    "triangular": ("sylvester-triangular", {"flows": 3}),
    "ffjord-rank": ("ffjord", SMALL),
    "ffjord-none": ("ffjord", {**SMALL, "kind": "none"}),
    "ffjord-bias": ("ffjord", {**SMALL, "kind": "bias", "activation": "tanh"}),
    "ffjord-hyper": ("ffjord", {**SMALL, "kind": "hyper"}),
    "ffjord-last": ("ffjord", {**SMALL, "kind": "last", "hidden": [6]}),
    "ffjord-one": ("ffjord", {**SMALL, "hidden": [6]}),
    "ffjord-three": ("ffjord", {**SMALL, "flows": 1, "hidden": [6, 5, 6]}),
}


#: Columns are orthonormal only so far (Sylvester code); all else is exact.
LOOSE = {"orthogonal": 3e-6}


def flow_of(case, scale=1.0):
    name, args = CASES[case]
    flow = build_posterior(name, FEATURES, LATENT, args).flow.eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(scale)
    return flow


def inputs(batch=3, samples=2):
    return torch.randn(batch, samples, LATENT), 0.7 * torch.randn(batch, FEATURES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_log_det_is_that_of_the_jacobian(case, generator):
    flow, (z, features) = flow_of(case), inputs()
    _, log_det = flow(z, features, generator)
    assert log_det.shape == z.shape[:2]
    assert log_det.abs().min() > 1e-4
    # As no draw influences another, the sum's derivative is the Jacobian at each.
    jacobian = torch.autograd.functional.jacobian(
        lambda v: flow(v, features, generator)[0].sum((0, 1)), z
    )
    expected = torch.linalg.slogdet(jacobian.permute(1, 2, 0, 3))
    assert (expected.sign > 0).all()
    torch.testing.assert_close(log_det, expected.logabsdet, rtol=1e-7, atol=LOOSE.get(case, 1e-7))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_examples_do_not_influence_each_other(case, generator):
    flow, (z, features) = flow_of(case), inputs()
    with torch.no_grad():
        whole = flow(z, features, generator)
        for b in range(len(z)):
            alone = flow(z[b : b + 1], features[b : b + 1], generator)
            for part, expected in zip(alone, whole, strict=True):
                torch.testing.assert_close(
                    part[0], expected[b], rtol=1e-7, atol=LOOSE.get(case, 1e-7)
                )
        other = flow(z, features.flip(0), generator)[0]
    far = (other - whole[0]).abs().amax((1, 2))
    if case in ("ffjord-none", "glow"):
        assert far.max() == 0
    else:
        assert far[0] > 1e-3
        assert far[2] > 1e-3
        assert far[1] < LOOSE.get(case, 1e-7)


@pytest.mark.parametrize("case", CASES)
def test_samples_at_once_are_samples_one_by_one(case, generator):
    flow, (z, features) = flow_of(case), inputs(samples=5)
    with torch.no_grad():
        together = flow(z, features, generator)
        single = [flow(z[:, s : s + 1], features, generator) for s in range(5)]
    for part, pieces in zip(together, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(pieces, 1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("case", ["iaf", "planar", "ffjord-rank"])
def test_posterior_takes_off_the_log_det(case):
    name, args = CASES[case]
    posterior = build_posterior(name, FEATURES, LATENT, args).eval()
    _, features = inputs()
    z, log_q = posterior(features, 2, torch.Generator().manual_seed(3))
    flow, posterior.flow = posterior.flow, None
    start, base = posterior(features, 2, torch.Generator().manual_seed(3))
    end, log_det = flow(start, features, torch.Generator())
    torch.testing.assert_close(z, end)
    torch.testing.assert_close(log_q, base - log_det)


def test_variances_stay_within_bounds():
    """As for Frey Faces in the Sylvester code (``models/VAE.py``)."""
    posterior = build_posterior("no-flow", 1, LATENT, {}, variance_bounds=(0.01, 7.0))
    nn.init.ones_(posterior.raw_variance.weight)
    nn.init.zeros_(posterior.raw_variance.bias)
    _, variance = posterior.moments(torch.tensor([[-30.0], [1.0], [30.0]]))
    expected = torch.tensor([0.01, math.log1p(math.e), 7.0])
    torch.testing.assert_close(variance, expected[:, None].expand(3, LATENT))


@pytest.mark.parametrize("training", [True, False])
def test_a_continuous_posterior_holds_its_noise_over_a_solve(training, monkeypatch, generator):
    """One vector a flow in training, and exact traces otherwise (FFJORD code, ``lib/layers``)."""
    seen, estimated = [], ffjord._estimated
    monkeypatch.setattr(
        ffjord, "_estimated", lambda *at, noise: seen.append(noise) or estimated(*at, noise)
    )
    args = {**SMALL, "solver": "rk4", "step_size": 0.25}
    flow = build_posterior("ffjord", FEATURES, LATENT, args).flow.train(training)
    flow(*inputs(), generator)
    drawn = {tuple(noise.flatten().tolist()) for noise in seen}
    assert len(drawn) == (SMALL["flows"] if training else 0)
    assert len(seen) == 2 * 4 * len(drawn)  # two steps of four evaluations


def test_planar_maps_stay_invertible():
    for _ in range(50):
        flow, (_, features) = flow_of("planar", 10.0), inputs()
        push, direction = (
            layer(features).unflatten(1, flow.shape) for layer in (flow.push, flow.direction)
        )
        moved, _, margin = constrained_u(push, direction, (push * direction).sum(-1))
        assert (margin > 0).all()
        size = moved.norm(dim=-1) * direction.norm(dim=-1)
        assert ((moved * direction).sum(-1) + 1 > -1e-12 * size).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planar_constraint_of_many_is_that_of_each(dtype):
    """One formula serves the flow of data and the amortised one, but for the order of its sums."""
    push, direction = torch.randn(2, 3, 5, 43, dtype=dtype)
    pairs = zip(push.view(-1, 43), direction.view(-1, 43), strict=True)
    product = torch.stack([u @ w for u, w in pairs])
    many = [part.flatten(0, 1) for part in constrained_u(push, direction, product.view(3, 5))]
    one = Planar(43).to(dtype)
    for row in range(15):
        one.push.data, one.direction.data = push.view(-1, 43)[row], direction.view(-1, 43)[row]
        for each, found in zip(one.constrained(), many, strict=True):
            digits = 1e3 * torch.finfo(dtype).eps
            torch.testing.assert_close(each, found[row], rtol=digits, atol=digits)


@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (32, 32), (64, 8)])
def test_the_steps_of_a_gpu_make_ill_conditioned_columns_orthonormal(rows, columns, monkeypatch):
    """Singular values from 1 to a thousandth; the steps are taken without asking when to end."""
    monkeypatch.setattr("dgm_bench.models.latent.posteriors.sylvester.MAX_STEPS", GPU_STEPS)
    monkeypatch.setattr("dgm_bench.models.latent.posteriors.sylvester.TOLERANCE", 0.0)
    left = torch.linalg.qr(torch.randn(3, 2, rows, columns)).Q
    right = torch.linalg.qr(torch.randn(3, 2, columns, columns)).Q
    raw = left * torch.logspace(0, -3, columns) @ right.mT
    assert (torch.linalg.cond(raw) > 999).all()
    q = orthonormalised(raw)
    missing = torch.eye(columns) - q.mT @ q
    assert missing.square().sum((-2, -1)).sqrt().max() <= 1e-6
    torch.testing.assert_close(q, left @ right.mT, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", ["orthogonal", "householder", "triangular"])
def test_sylvester_maps_stay_invertible(case, generator):
    for _ in range(10):
        flow, (z, features) = flow_of(case, 10.0), inputs(2, 1)
        r1, r2, slopes = flow.triangular_factors(features)
        diagonal = {"dim1": -2, "dim2": -1}
        torch.testing.assert_close(r1.diagonal(**diagonal) * r2.diagonal(**diagonal), slopes)
        assert (slopes > -1).all()
        assert not r1.tril(-1).any()
        assert not r2.tril(-1).any()
        basis = flow.orthonormal(features)
        if case == "orthogonal":
            gram = basis.mT @ basis
            torch.testing.assert_close(gram, torch.eye(3).expand_as(gram), rtol=0, atol=1e-5)
        elif case == "householder":
            torch.testing.assert_close(basis.norm(dim=-2), torch.ones(2, 2, 3))
        for b in range(2):

            def moved(v, f=features[b : b + 1], flow=flow):
                return flow(v.view(1, 1, -1), f, generator)[0].view(-1)

            jacobian = torch.autograd.functional.jacobian(moved, z[b, 0])
            assert torch.linalg.det(jacobian) > 0


# ------------------------------------------------------------------------------- FFJORD


@pytest.mark.parametrize(
    ("hidden", "rank", "numbers"),
    [([1024] * 2, 64, 272_448), ([512] * 2, 20, 44_608), ([2048], 20, 86_592)],
)
def test_amortised_numbers_are_those_of_the_released_code(hidden, rank, numbers):
    with torch.device("meta"):
        network = AmortisedNetwork(64, hidden, "softplus", "rank", rank)
    assert network.amortised_size == numbers


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("none", 0), ("bias", 15), ("hyper", 5 * 6 + 6 + 7 * 5 + 5 + 6 * 4 + 4), ("last", 28)],
)
def test_amortised_numbers_of_the_variants(kind, numbers):
    assert AmortisedNetwork(4, [6, 5], "softplus", kind, 1).amortised_size == numbers


def test_amortised_dynamics_are_the_papers_formula():
    network, (z, _) = AmortisedNetwork(LATENT, [6], "softplus", "rank", 2), inputs()
    own, t = torch.randn(3, network.amortised_size), torch.tensor(0.3)
    value = network.condition_on(own)(t, z)
    for b in range(3):
        v1, u1, b1, v2, u2, b2 = own[b].split([LATENT * 2, 12, 6, 12, 2 * LATENT, LATENT])
        h = z[b]
        for layer, v, u, bias in zip(network.layers, (v1, v2), (u1, u2), (b1, b2), strict=True):
            if layer is network.layers[1]:
                h = torch.nn.functional.softplus(h)
            timed = torch.cat([t.expand(2, 1), h], 1)
            low = torch.einsum("ri,oi->ro", h, u.view(2, -1).T @ v.view(-1, 2).T)
            h = layer.shared.linear(timed) + low + bias
        torch.testing.assert_close(value[b], h)


@pytest.mark.parametrize("kind", ["none", "bias", "rank", "hyper", "last"])
@pytest.mark.parametrize("hidden", [[6], [6, 5], [6, 5, 7]])
def test_traces_and_tangents(kind, hidden, monkeypatch):
    network, (z, _) = AmortisedNetwork(LATENT, hidden, "tanh", kind, 2), inputs()
    own = torch.randn(3, network.amortised_size) if network.amortised_size else None
    bound, t = network.condition_on(own), torch.tensor(0.2)
    at = bound.linearise(t, z)
    torch.testing.assert_close(at.value, bound(t, z))
    _, tangent = torch.func.jvp(lambda v: bound(t, v), (z,), (torch.ones_like(z),))
    torch.testing.assert_close(at.jvp(torch.ones_like(z)), tangent)
    jacobian = torch.autograd.functional.jacobian(lambda v: bound(t, v).sum((0, 1)), z)
    trace = torch.einsum("ibsi->bs", jacobian)
    torch.testing.assert_close(at.exact_trace(), trace)
    monkeypatch.setattr(amortised_dynamics, "MAX_TRACE_WEIGHTS", 0)
    torch.testing.assert_close(at.exact_trace(), trace)
    monkeypatch.setattr(dynamics, "MAX_TANGENT_ELEMENTS", 1)
    torch.testing.assert_close(at.exact_trace(), trace)


@pytest.mark.parametrize("hidden", [[6], [6, 5]])
def test_a_solve_keeps_the_weights_of_its_traces_but_no_gradient(hidden):
    network, (z, _) = AmortisedNetwork(LATENT, hidden, "tanh", "rank", 2), inputs()
    own = torch.randn(3, network.amortised_size, requires_grad=True)
    bound = network.condition_on(own)
    with torch.no_grad():
        kept = bound.linearise(torch.tensor(0.1), z).exact_trace()
        later = bound.linearise(torch.tensor(0.7), z).exact_trace()
    torch.testing.assert_close(bound.linearise(torch.tensor(0.1), z).exact_trace(), kept)
    fresh = network.condition_on(own).linearise(torch.tensor(0.7), z).exact_trace()
    torch.testing.assert_close(fresh, later)
    (slope,) = torch.autograd.grad(fresh.sum(), own)
    (again,) = torch.autograd.grad(bound.linearise(torch.tensor(0.7), z).exact_trace().sum(), own)
    torch.testing.assert_close(again, slope)
    assert slope.abs().max() > 0


def test_hutchinsons_estimate_is_unbiased(generator):
    flow, (z, features) = flow_of("ffjord-rank"), inputs(2, 1)
    flow.solver.change(rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        end, exact = flow(z, features, generator)
        flow.train()
        same, draws = flow(z.expand(-1, 4000, -1), features, generator)
    torch.testing.assert_close(same, end.expand_as(same), rtol=1e-4, atol=1e-4)
    error = draws.std(1) / 4000**0.5
    assert (error > 1e-4).all()
    assert ((draws.mean(1) - exact[:, 0]).abs() < 4 * error).all()


def gradients_of(flow, z, features, **settings):
    flow.solver.change(**settings)
    variables = [*flow.parameters(), z.requires_grad_(), features.requires_grad_()]
    end, log_det = flow(z, features, torch.Generator().manual_seed(5))
    loss = end.square().sum() + log_det.sum() * 3
    return torch.autograd.grad(loss, variables, allow_unused=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["none", "bias", "rank", "hyper", "last"])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_gradients_of_fixed_steps_are_those_through_the_solver(kind, training):
    name, args = CASES["ffjord-rank"]
    fixed = {**args, "kind": kind, "solver": "rk4", "step_size": 0.06}
    flow = build_posterior(name, FEATURES, LATENT, fixed).flow.train(training)
    z, features = inputs()
    steps = gradients_of(flow, z, features, checkpointed=True)
    through = gradients_of(flow, z, features, checkpointed=False, adjoint=False)
    for one, two in zip(steps, through, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["none", "rank"])
def test_gradients_of_adaptive_steps(kind):
    flow, (z, features) = flow_of("ffjord-rank" if kind == "rank" else "ffjord-none"), inputs()
    assert flow.solver.gradient == "discrete-adjoint"
    steps = gradients_of(flow, z, features)
    # torchdiffeq also differentiates its choice of the first step, of the order of the tolerance.
    for other in ({"adjoint": False}, {"adjoint": True}):
        for one, two in zip(
            steps, gradients_of(flow, z, features, checkpointed=False, **other), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


class Held:
    """Counts numbers that autograd keeps for a backward pass, and the most at any time."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        held = _Kept(self, tensor)
        self.now += held.count
        self.most = max(self.most, self.now)
        return held

    def unpack(self, held):
        return held.tensor


class _Kept:
    def __init__(self, owner, tensor):
        self.owner, self.tensor, self.count = owner, tensor, tensor.numel()

    def __del__(self):
        self.owner.now -= self.count


def most_kept(checkpointed, step_size):
    args = {"flows": 1, "hidden": [16, 16], "rank": 2, "solver": "rk4", "step_size": step_size}
    gradient = "steps" if checkpointed else "solver"
    flow = AmortisedFFJORD(FEATURES, LATENT, gradient=gradient, **args)
    z, features = inputs()
    held = Held()
    with saved_tensors_hooks(held.pack, held.unpack):
        end, log_det = flow(z, features, torch.Generator())
        (end.sum() + log_det.sum()).backward()
    assert flow.amortised[0].weight.grad is not None
    return held.most


def test_memory_of_a_gradient_by_steps_is_that_of_one_step():
    few, many = most_kept(True, 0.5 / 5), most_kept(True, 0.5 / 50)
    states = 3 * 2 * (LATENT + 1)
    assert many - few <= 45 * states
    assert most_kept(False, 0.5 / 50) > 5 * many


def test_evaluations_count_forward_and_backward():
    args = {"flows": 2, "hidden": [6], "rank": 1, "solver": "rk4", "step_size": 0.125}
    flow, (z, features) = AmortisedFFJORD(FEATURES, LATENT, **args), inputs()
    end, _ = flow(z, features, torch.Generator())
    assert flow.solver.evaluations == 2 * 4 * 4
    end.sum().backward()
    assert flow.solver.evaluations == 2 * 2 * 4 * 4


@pytest.mark.parametrize("gradient", ["steps", "adjoint", "solver"])
def test_training_step_of_a_continuous_autoencoder(gradient, generator):
    args = {"flows": 1, "hidden": [8], "rank": 2, "gradient": gradient}
    model = ContinuousConvVAE((1, 8, 8), latent=3, posterior_args=args)
    assert isinstance(model, HasPosteriorDraws)
    assert isinstance(model, SolvesODE)
    x = torch.rand(4, 1, 8, 8).round()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = -model.elbo(x, generator).mean()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all((old != new).any() for old, new in zip(before, model.parameters(), strict=True))
    assert model.function_evaluations > 10
    assert model.solver_settings == "dopri5 rtol 1e-05, atol 1e-05"


def test_settings_of_the_posteriors_solver(generator):
    args = {"flows": 1, "hidden": [8], "rank": 2}
    model = ContinuousDenseVAE((6,), latent=3, hidden=5, posterior_args=args).eval()
    model.solve_with(solver="rk4", step_size=0.25)
    model.function_evaluations = 3
    draws = model.draw(torch.rand(4, 6).round(), 7, generator)
    assert draws.z.shape == (4, 7, 3)
    assert model.function_evaluations == 3 + 2 * 4
    assert model.solver_settings == "rk4 step 0.25"
    with pytest.raises(DeclarationError, match="is no setting"):
        model.solve_with(tolerance=1.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gradient": "none"}, "gradient 'none': is not known"),
        ({"kind": "all"}, "kind 'all': is not known"),
        ({"hidden": []}, "hidden: no hidden layer"),
    ],
)
def test_wrong_arguments_are_refused(wrong, told):
    with pytest.raises(DeclarationError, match=told):
        build_posterior("ffjord", FEATURES, LATENT, wrong)


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("no-flow", {"flows": 3}, r"takes no posterior_args \(flows\)"),
        ("planar", {"layers": 3}, "has no argument 'layers'; use flows"),
        ("sylvester-orthogonal", {"vector": 3}, "did you mean 'vectors'"),
        ("sylvester-orthogonal", {"kind": "triangular"}, "use flows, vectors or reflections"),
        ("ffjord", {"latent": 3}, "has no argument 'latent'"),
    ],
)
def test_arguments_that_a_posterior_does_not_have_are_refused(name, args, told):
    with pytest.raises(DeclarationError, match=told):
        build_posterior(name, FEATURES, LATENT, args)


@pytest.mark.parametrize("model", [ConvVAE, DenseVAE])
def test_the_continuous_posterior_is_that_of_the_continuous_models(model):
    with pytest.raises(DeclarationError, match=f"use gated_vae:Continuous{model.__name__}"):
        model((1, 8, 8), posterior="ffjord")
