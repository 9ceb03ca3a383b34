"""How exact gradients through a solver are, what memory they hold, and how long they take.

The two ways of neural ODEs (Chen et al. 2018, section 2) are compared with the exact gradient:
the adjoint equation, solved backwards in time, and backpropagation through the solver's own steps.
Everything is in float64, so that tolerances decide the error and rounding does not.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.control import ask, ask_within
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.gradients.memory import SavedMemory
from dgm_bench.metrics.registry import metric
from dgm_bench.models.continuous.dynamics import Dynamics
from dgm_bench.models.continuous.flow import ContinuousFlow, SolvedFlow
from dgm_bench.models.continuous.residual_network import ResidualODENet
from dgm_bench.models.continuous.solver import Solver
from dgm_bench.records import Metric

TOLERANCES = ("1e-3", "1e-5", "1e-7", "1e-9")  # relative and absolute
REFERENCE, CHECK = 1e-12, 1e-11  # of the reference gradient, and of the one it is checked with
POINTS = 32  # of the split
REPEATS = 3  # timings of each of the two that are compared
LINEAR_DIM = 6
LAYERS = (4, 16, 64)
RK4_ORDER = 4
KIB = 1024

Vector = Float[Tensor, " numbers"]


# ------------------------------------------------------------------------------- gradients


class Gradient(NamedTuple):
    """The gradient of the mean negative log-likelihood, and the evaluations that it took.

    Attributes:
        value: In all parameters, flat.
        forward: Evaluations of the dynamics on the way to the loss.
        backward: Evaluations on the way back.
    """

    value: Vector
    forward: int
    backward: int


def loss_gradient(flow: SolvedFlow, x: Float[Tensor, "batch *event"]) -> Gradient:
    """Return the gradient of a flow's mean negative log-likelihood in nats, with exact traces."""
    start = flow.function_evaluations
    loss = -flow.log_prob(x).mean()
    turn = flow.function_evaluations
    value = _flat(torch.autograd.grad(loss, tuple(flow.parameters())))
    return Gradient(value, turn - start, flow.function_evaluations - turn)


def relative_error(value: Vector, exact: Vector) -> float:
    """Return ``|value - exact| / |exact|``."""
    return float((value - exact).norm() / exact.norm())


def at_tolerance(solver: Solver, tolerance: float) -> Solver:
    """Return the solver with both tolerances set to one value.

    For ``rk4`` the step is the tolerance's fourth root, rounded down to a whole number of steps:
    its global error is of the order of the step's fourth power.
    """
    fixed = solver.solver == "rk4"
    step = 1 / math.ceil(tolerance ** (-1 / RK4_ORDER)) if fixed else None
    return dataclasses.replace(solver, rtol=tolerance, atol=tolerance, step_size=step)


def backpropagating(solver: Solver) -> Solver:
    """Return one that solves alike and whose gradients go through its own steps."""
    return dataclasses.replace(solver, gradient="backpropagation", evaluations=0, estimate=None)


def use(flow: SolvedFlow, solver: Solver) -> SolvedFlow:
    """Return the flow after its solver has been set to another's settings."""
    vars(flow.solver).update(vars(solver))
    return flow


def reference_gradient(
    flow: SolvedFlow, x: Float[Tensor, "batch *event"], tolerance: float = REFERENCE
) -> Vector:
    """Return the gradient by backpropagation through ``dopri5`` at a very small tolerance."""
    exact = Solver("dopri5", tolerance, tolerance, gradient="backpropagation")
    return loss_gradient(use(flow, exact), x).value


def _flat(parts: Iterable[Tensor]) -> Vector:
    return torch.cat([part.flatten() for part in parts])


# ---------------------------------------------------------------------- the linear equation


class LinearAt(NamedTuple):
    """``A z`` at a point, and its Jacobian, which is ``A`` everywhere."""

    value: Float[Tensor, "batch dim"]
    matrix: Float[Tensor, "dim dim"]

    def jvp(self, v: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``A v``."""
        return F.linear(v, self.matrix)

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``Tr A`` for each example."""
        return self.matrix.trace().expand(len(self.value))


class LinearDynamics(nn.Module):
    """``dz/dt = A z``, whose solution is the matrix exponential.

    Args:
        matrix: ``A``.
    """

    def __init__(self, matrix: Float[Tensor, "dim dim"]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt``."""
        return F.linear(z, self.matrix)

    def linearise(self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]) -> LinearAt:
        """Return ``dz/dt`` and its Jacobian in ``z``."""
        return LinearAt(self(t, z), self.matrix)


def linear_flow(dim: int, generator: torch.Generator, solver: Solver) -> SolvedFlow:
    """Return a flow of one linear equation, in float64, with Gaussian entries of deviation 1."""
    matrix = torch.randn(
        dim, dim, dtype=torch.float64, device=generator.device, generator=generator
    )
    flow = ContinuousFlow(LinearDynamics(matrix), solver)
    return SolvedFlow((dim,), [flow], solver).to(generator.device, torch.float64)


def exact_linear_gradient(flow: SolvedFlow, x: Float[Tensor, "batch dim"]) -> Vector:
    """Return the exact gradient of :func:`linear_flow`'s loss, by the matrix exponential."""
    (matrix,) = flow.parameters()
    u = F.linear(x, torch.linalg.matrix_exp(matrix))
    loss = -(flow.density.log_prob(u) + matrix.trace()).mean()
    return _flat(torch.autograd.grad(loss, (matrix,)))


# ------------------------------------------------------------------------------- memory


def measured_gradient(
    flow: SolvedFlow, x: Float[Tensor, "batch *event"], solver: Solver
) -> tuple[Gradient, int]:
    """Return a gradient and the most bytes that were held for the backward pass at once."""
    with SavedMemory(flow.parameters()) as memory:
        gradient = loss_gradient(use(flow, solver), x)
    return gradient, memory.peak


# --------------------------------------------------------------------------------- time


class Timed(NamedTuple):
    """Gradients taken two ways in turns, each once in every pair.

    Attributes:
        own: Seconds of the solver's way.
        other: Seconds of backpropagation through the same steps.
        discrete: The gradient that the other way gives: that of the numerical solution.
    """

    own: list[float]
    other: list[float]
    discrete: Vector


def timed_in_turns(flow: SolvedFlow, x: Float[Tensor, "batch *event"], solver: Solver) -> Timed:
    """Return the seconds of gradients the solver's way and through its steps."""
    own, other = [], []
    for _ in range(REPEATS):
        ask_within()
        own.append(_timed(flow, x, solver)[0])
        seconds, discrete = _timed(flow, x, backpropagating(solver))
        other.append(seconds)
    return Timed(own, other, discrete)


def _timed(
    flow: SolvedFlow, x: Float[Tensor, "batch *event"], solver: Solver
) -> tuple[float, Vector]:
    use(flow, solver)
    start = time.perf_counter()
    value = loss_gradient(flow, x).value
    # Reading a number waits for devices that work on their own.
    value.sum().item()
    return time.perf_counter() - start, value


# ------------------------------------------------------------------------------- metrics


@metric("gradients", needs=SolvedFlow, words="continuous flows")
def gradient_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return what the gradients of the model's solver are worth at each of the tolerances.

    Names are ``<quantity>-<tolerance>``. Errors are relative: ``gradient-error`` against a
    reference of the trained flow, whose own error is ``reference-error``; ``linear-error`` against
    the exact gradient of a linear equation; ``discrete-error`` against backpropagation through the
    same steps, the gradient of the numerical solution. The others are ``forward-evaluations``,
    ``backward-evaluations``, ``backward-memory``, ``time-ratio`` and ``seconds``.
    """
    flow, x = _in_float64(evaluation)
    own, generator, spec = copy.copy(flow.solver), evaluation.generator(), evaluation.spec
    shared = f"{way_of(own)}; float64, exact trace; {spec.checkpoint} checkpoint"
    made = _MetricMaker(len(x), spec.split, shared)
    reference = reference_gradient(flow, x)
    checked = relative_error(reference_gradient(flow, x, CHECK), reference)
    words = f"the reference, dopri5 at tolerance {REFERENCE:g}, against one at {CHECK:g}"
    found = [made("reference-error", checked, "relative", words)]
    linear = linear_flow(LINEAR_DIM, generator, copy.copy(own))
    z = x.new_empty(len(x), LINEAR_DIM).normal_(generator=generator)
    for label in TOLERANCES:
        ask()
        solver = at_tolerance(own, float(label))
        found += _of_flow(flow, x, solver, reference, label, made)
        found.append(_of_linear(linear, z, solver, label, made))
    return found


def _in_float64(evaluation: Evaluation) -> tuple[SolvedFlow, Float[Tensor, "batch *event"]]:
    """Return a copy of the flow, and the first examples of the split."""
    flow = copy.deepcopy(cast(SolvedFlow, evaluation.model)).double()
    return flow, evaluation.examples[:POINTS].double()


def way_of(solver: Solver) -> str:
    """Return in words how gradients are taken."""
    if solver.gradient == "discrete-adjoint":
        return "backpropagation through the steps, each computed anew"
    return (
        "adjoint equation" if solver.gradient == "adjoint" else "backpropagation through the solver"
    )


def _of_flow(
    flow: SolvedFlow,
    x: Float[Tensor, "batch *event"],
    solver: Solver,
    reference: Vector,
    label: str,
    made: _MetricMaker,
) -> list[Metric]:
    gradient, held = measured_gradient(flow, x, solver)
    timed = timed_in_turns(flow, x, solver)
    ratios = [a / b for a, b in zip(timed.own, timed.other, strict=True)]
    words = _setting(solver)
    saved = f"{words}; peak of tensors saved for the backward pass, without parameters"
    turns = f"{words}; medians of {REPEATS} timings in turns, from {min(ratios):.2f} to"
    turns = f"{turns} {max(ratios):.2f} of backpropagation"
    ratio = median(timed.own) / median(timed.other)
    error = relative_error(gradient.value, reference)
    discrete = relative_error(gradient.value, timed.discrete)
    return [
        made(f"gradient-error-{label}", error, "relative", words),
        made(f"discrete-error-{label}", discrete, "relative", words),
        made(f"forward-evaluations-{label}", gradient.forward, "evaluations", words),
        made(f"backward-evaluations-{label}", gradient.backward, "evaluations", words),
        made(f"backward-memory-{label}", held / KIB, "KiB", saved),
        made(f"time-ratio-{label}", ratio, "of backpropagation", turns),
        made(f"seconds-{label}", median(timed.own), "s", turns),
    ]


def _of_linear(
    flow: SolvedFlow, z: Float[Tensor, "batch dim"], solver: Solver, label: str, made: _MetricMaker
) -> Metric:
    gradient = loss_gradient(use(flow, solver), z).value
    error = relative_error(gradient, exact_linear_gradient(flow, z))
    words = f"linear equation in {z.shape[1]} dimensions; {_setting(solver)}"
    return made(f"linear-error-{label}", error, "relative", words)


def _setting(solver: Solver) -> str:
    if solver.step_size is None:
        return f"{solver.solver} at tolerance {solver.rtol:g}"
    return f"{solver.solver} in {round(1 / solver.step_size)} steps"


@dataclasses.dataclass(frozen=True)
class _MetricMaker:
    """Makes metrics that share number of examples, split and protocol."""

    n: int
    split: str
    protocol: str

    def __call__(self, name: str, value: float, unit: str, words: str) -> Metric:
        return Metric(
            name=name,
            value=float(value),
            se=None,
            n=self.n,
            unit=unit,
            direction="lower",
            split=self.split,
            protocol=f"{words}; {self.protocol}",
        )


# --------------------------------------------------------------------- the residual network


@metric("residual-network", needs=SolvedFlow, words="continuous flows")
def residual_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return how far a residual network is from Euler's solution of its equation, by layers.

    The network's blocks are the dynamics of the model's first flow. ``output-difference-L`` is
    relative, and so are the differences of the gradients in all weights of half the mean squared
    norm of the outputs: ``solver-difference-L`` by backpropagation through the solver, and
    ``adjoint-difference-L`` by the adjoint equation, which takes steps of its own.
    """
    flow, x = _in_float64(evaluation)
    dynamics = cast(ContinuousFlow, flow.layers[0]).network
    spec = evaluation.spec
    made = _MetricMaker(len(x), spec.split, f"float64; {spec.checkpoint} checkpoint")
    return [m for layers in LAYERS for m in _of_network(dynamics, x.flatten(1), layers, made)]


def _of_network(
    dynamics: Dynamics, x: Float[Tensor, "batch dim"], layers: int, made: _MetricMaker
) -> list[Metric]:
    network = ResidualODENet(dynamics, layers)
    output, gradient = _output_and_gradient(network, network, x)
    solution, through = _output_and_gradient(network, network.solve, x)
    _, adjoint = _output_and_gradient(network, lambda h: network.solve(h, adjoint=True), x)
    words = f"{layers} blocks against {layers} steps of Euler's method"
    differences = {
        "output": relative_error(solution.flatten(), output.flatten()),
        "solver": relative_error(through, gradient),
        "adjoint": relative_error(adjoint, gradient),
    }
    return [
        made(f"{name}-difference-{layers}", difference, "relative", words)
        for name, difference in differences.items()
    ]


def _output_and_gradient(
    network: ResidualODENet,
    function: Callable[[Float[Tensor, "batch dim"]], Float[Tensor, "batch dim"]],
    x: Float[Tensor, "batch dim"],
) -> tuple[Float[Tensor, "batch dim"], Vector]:
    output = function(x)
    loss = 0.5 * output.square().sum(1).mean()
    return output.detach(), _flat(torch.autograd.grad(loss, tuple(network.parameters())))
