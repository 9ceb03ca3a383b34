"""Training steps of MAF and FFJORD beside other libraries, on the CPU and on a GPU if there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
import torch
from floors import floor_of, least_floor
from interleaved import (
    ON_EACH_DEVICE,
    SEED,
    InterleavedTiming,
    Step,
    flat_gradient,
    require_equal_size,
)
from jaxtyping import Float
from peers import PlainFFJORD, ZukoFFJORD, ZukoMAF, nflows_maf
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from dgm_bench.models.continuous.activations import Nonlinearity
from dgm_bench.models.continuous.dynamics import ConcatSquash, value_and_estimate
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.flows.maf import MAF

pytestmark = ON_EACH_DEVICE

# ------------------------------------------------------------------------------------ MAF


class Masked(NamedTuple):
    """Size of a MAF."""

    dim: int
    width: int
    layers: int
    batch: int


BSDS300 = Masked(dim=63, width=512, layers=5, batch=100)
MNIST = Masked(dim=784, width=1024, layers=5, batch=100)
SMALL = Masked(dim=8, width=64, layers=5, batch=100)


@pytest.mark.parametrize("size", [BSDS300, MNIST, SMALL], ids=["bsds300", "mnist", "small"])
def test_maf(size: Masked, device: str, benchmark: BenchmarkFixture) -> None:
    """MAF without batch normalisation: nflows' is another one and zuko has none."""
    dim, width, layers, batch = size
    x = torch.randn(batch, dim, device=device)
    ours = Step("ours", MAF((dim,), layers, (width, width), batch_norm=False), x)
    peers = [
        Step("nflows", nflows_maf(dim, width, layers), x),
        Step("zuko", ZukoMAF(dim, width, layers), x),
    ]
    require_equal_size(ours, peers)
    InterleavedTiming(ours, peers, least_floor(peers)).run(benchmark)


# --------------------------------------------------------------------------------- FFJORD


class Continuous(NamedTuple):
    """Size of an FFJORD of one flow."""

    dim: int
    hidden: tuple[int, ...]
    activation: Nonlinearity
    batch: int


#: One of the five flows of FFJORD Table 4, at a tenth of its batch.
POWER = Continuous(dim=6, hidden=(60, 60, 60), activation="tanh", batch=1_000)
#: FFJORD Table 4, at a tenth of its batch.
MINIBOONE = Continuous(dim=43, hidden=(860, 860), activation="softplus", batch=100)

#: New weights are doubled: a new network is so smooth that a solver needs next to no steps.
GAIN = 2.0
#: Relative error of the gradient that solvers may make.
GRADIENT_ERROR = 1e-5

sizes = pytest.mark.parametrize("size", [POWER, MINIBOONE], ids=["power", "miniboone"])


@sizes
def test_ffjord_fixed_steps(size: Continuous, device: str, benchmark: BenchmarkFixture) -> None:
    """Four steps of the Runge-Kutta method there and four back: 32 evaluations for everyone."""
    model, x = new_ffjord(size, device)
    model.solve_with(solver="rk4", step_size=0.25)
    beside_plain(model, x).run(benchmark)


@sizes
def test_ffjord_adaptive_steps(size: Continuous, device: str, benchmark: BenchmarkFixture) -> None:
    """The published solver and tolerances (FFJORD, appendix C)."""
    model, x = new_ffjord(size, device)
    model.solve_with(solver="dopri5", rtol=1e-6, atol=1e-8)
    beside_plain(model, x).run(benchmark)


@sizes
def test_ffjord_same_error(size: Continuous, device: str, benchmark: BenchmarkFixture) -> None:
    """Each with the coarsest setting that gets the gradient right to ``GRADIENT_ERROR``.

    Tolerances of unlike solvers mean unlike things, so errors are measured, against a gradient in
    double precision. Ours takes fixed steps; then it adapts them, from the whole interval on; then
    it is solved as published, by the adjoint equation.
    """
    model, x = new_ffjord(size, device)
    exact = exact_gradient(model, x)

    def ours(**settings: Any) -> FFJORD:  # noqa: ANN401  as solve_with has them
        changed = copy.deepcopy(model)
        changed.solve_with(**settings)
        return changed

    tolerances = [10.0**-exponent for exponent in range(2, 8)]
    whole = {"adjoint": False, "first_step": 1.0}
    ways: dict[str, tuple[Callable[[float], nn.Module], Sequence[float]]] = {
        "ours": (
            lambda step: ours(solver="rk5", step_size=step, adjoint=False),
            [1 / count for count in range(1, 9)],
        ),
        "ours, adaptive": (lambda tol: ours(rtol=tol, atol=tol, **whole), tolerances),
        "ours, adjoint": (lambda tol: ours(rtol=tol, atol=tol), tolerances),
        "zuko": (partial(ZukoFFJORD, model), tolerances),
    }
    found = {name: coarsest(*way, x, exact) for name, way in ways.items()}
    first, *others = [Step(name, ways[name][0](setting), x) for name, setting in found.items()]
    benchmark.extra_info["settings"] = found
    InterleavedTiming(first, others).run(benchmark)


def new_ffjord(size: Continuous, device: str) -> tuple[FFJORD, Float[Tensor, "batch dim"]]:
    """Return a model with new weights times ``GAIN``, and a batch."""
    model = FFJORD((size.dim,), 1, size.hidden, activation=size.activation)
    with torch.no_grad():
        for layer in model.flows[0].network.layers:
            cast(ConcatSquash, layer).linear.weight.mul_(GAIN)
    return model.to(device), torch.randn(size.batch, size.dim, device=device)


def beside_plain(model: FFJORD, x: Float[Tensor, "batch dim"]) -> InterleavedTiming:
    """Return the timing beside the plain formulation, which provably does the same work."""
    ours, plain = Step("ours", model, x), Step("torchdiffeq", PlainFFJORD(model), x)
    loss, gradient = ours.loss_and_gradient()
    plain_loss, plain_gradient = plain.loss_and_gradient()
    assert plain_loss == pytest.approx(loss, abs=1e-4)
    assert relative_error(plain_gradient, gradient) < GRADIENT_ERROR
    return InterleavedTiming(ours, [plain], floor_of(plain))


def exact_gradient(model: FFJORD, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " parameters"]:
    """Return the loss's gradient in double precision at the noise that a :class:`Step` draws."""
    exact = copy.deepcopy(model).double()
    exact.solve_with(solver="dopri5", rtol=1e-9, atol=1e-9)
    generator = torch.Generator(x.device).manual_seed(SEED)
    noise = torch.empty_like(x).normal_(generator=generator).double()
    flow, start = exact.flows[0], (x.double(), x.double().new_zeros(len(x)))
    z, log_det = exact.solver.solve(
        flow.network, start, flow.span, partial(value_and_estimate, noise=noise)
    )
    (-(exact.density.log_prob(z) + log_det).mean()).backward()
    return flat_gradient(exact)


def coarsest(
    build: Callable[[float], nn.Module],
    settings: Sequence[float],
    x: Float[Tensor, "batch dim"],
    exact: Float[Tensor, " parameters"],
) -> float:
    """Return the first setting, coarse ones first, whose gradient is good enough."""
    for setting in settings:
        _, gradient = Step("tried", build(setting), x).loss_and_gradient()
        if relative_error(gradient, exact) < GRADIENT_ERROR:
            return setting
    pytest.fail(f"no setting gets the gradient right to {GRADIENT_ERROR:g}")


def relative_error(
    gradient: Float[Tensor, " parameters"], exact: Float[Tensor, " parameters"]
) -> float:
    """Return the length of the error over the length of the gradient."""
    return float((gradient - exact).norm() / exact.norm())
