"""What kind of model this is, measured: the four columns of FFJORD's Table 1.

Each ability is decided by an experiment on the trained model, or on untrained ones of the same
declaration in other dimensions, and the metric's protocol says what came out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.control import ask
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.abilities import exactness, jacobians
from dgm_bench.metrics.abilities.depth import depth_of, growth
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.quadrature import require_standard_prior
from dgm_bench.metrics.registry import metric
from dgm_bench.models.build import build_like
from dgm_bench.models.capabilities import (
    AdversarialGame,
    CalibratesOnData,
    HasDecoder,
    HasElbo,
    HasLogProb,
    HasSample,
    InitialisesOnData,
)
from dgm_bench.models.flows.flow import BaseDensity
from dgm_bench.records import Metric
from dgm_bench.spec import YES_NO

POINTS = 2_000  # of the split, for losses
BOUND_POINTS = 500  # of the split, for the quadrature over latent variables
COUNTED = 64  # points that pass through while operations are counted
DIMS = (4, 8, 16)  # where the cost of sampling is counted
INVERTED = 4  # times as many operations from data to noise as back: a search, not a pass
GROWTH = 0.5  # exponent between a cost that ignores the dimension (0) and one that follows it (1)
JACOBIAN_DIM = 12  # its square exceeds the 64 units of a planar flow's dynamics
JACOBIAN_POINTS = 400


class Finding(NamedTuple):
    """The outcome of one experiment.

    Attributes:
        holds: Whether the model has the ability.
        because: What was measured.
        n: Number of points that it was measured on.
    """

    holds: bool
    because: str
    n: int


Experiment = Callable[[nn.Module, Dataset, Float[Tensor, "n *event"], torch.Generator], Finding]


def require_two_dimensions(evaluation: Evaluation) -> None:
    """Refuse what the quadratures cannot do.

    Raises:
        DeclarationError: The data, or a latent space, is not two-dimensional, or the prior is not
            the standard normal.
    """
    model, data = evaluation.model, evaluation.data
    latent = getattr(model, "latent", 2) if isinstance(model, HasDecoder) else 2
    for thing, dim in ((data.name, data.dim), ("the latent space", latent)):
        if dim != 2:
            reason = f"{thing} has {dim} dimensions"
            raise DeclarationError("metric 'abilities'", reason, "use two dimensions")
    require_standard_prior(model, "metric 'abilities'")


@metric("abilities", check=require_two_dimensions)
def ability_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return one metric per column of FFJORD's Table 1, 1 for yes and 0 for no."""
    model, data, x = evaluation.model, evaluation.data, evaluation.examples
    generator = evaluation.generator()
    found = []
    for name, experiment in EXPERIMENTS.items():
        ask()
        found.append(_metric(name, experiment(model, data, x, generator), evaluation))
    return found


def _metric(name: str, found: Finding, evaluation: Evaluation) -> Metric:
    return Metric(
        name=name,
        value=float(found.holds),
        se=None,
        n=found.n,
        unit=YES_NO,
        direction="higher",
        split=evaluation.spec.split,
        protocol=f"{found.because}; {evaluation.protocol}",
    )


# ------------------------------------------------------------------------- trains on data


def trains_on_data(
    model: nn.Module, data: Dataset, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    """Whether the model has a loss of examples in one pass, and training brought it nearer to them.

    The loss is minus the log density or its bound. A discriminator's says little of the fit, which
    is then the energy distance between samples and data. A flow whose log density takes far longer
    chains of operations than its samples inverts its map numerically, which is not one pass.
    """
    x, fresh = x[:POINTS], _fresh(model, data)
    if isinstance(model, AdversarialGame):
        return _closer_samples(cast(HasSample, fresh), cast(HasSample, model), x, generator)
    if not isinstance(model, HasLogProb | HasElbo):
        return Finding(False, "nothing in the model takes examples", 0)
    if isinstance(model, HasLogProb):
        few = x[:COUNTED]
        there = depth_of(lambda: model.log_prob(few))
        back = _depth_of_samples(cast(HasSample, model), COUNTED, generator)
        if there > INVERTED * back:
            text = f"the log density takes {there} dependent operations, a sample {back}"
            return Finding(False, f"{text}: the map is inverted numerically", len(x))
    return _higher_scores(fresh, model, x, generator)


def _closer_samples(
    fresh: HasSample, model: HasSample, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    before, after = (_energy_distance(m, x, generator) for m in (fresh, model))
    text = f"energy distance of samples from data {before:.4f} untrained, {after:.4f} trained"
    return Finding(after < before, f"a discriminator judges examples; {text}", len(x))


def _higher_scores(
    fresh: nn.Module, model: nn.Module, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    before, after = (_scores(m, x, generator) for m in (fresh, model))
    gain = after - before
    se = float(gain.std()) / math.sqrt(len(x))
    kind = "log density" if isinstance(model, HasLogProb) else "bound of the log density"
    text = f"{kind} of examples {before.mean():.3f} nats untrained, {after.mean():.3f} trained"
    return Finding(float(gain.mean()) > exactness.ERRORS * se, text, len(x))


@torch.no_grad()
def _scores(
    model: nn.Module, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Float[Tensor, " n"]:
    if isinstance(model, HasLogProb):
        return model.log_prob(x).double()
    return cast(HasElbo, model).elbo(x, generator).double()


def _energy_distance(
    model: HasSample, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> float:
    """Return ``2 E|x - y| - E|x - x'| - E|y - y'|``, which is zero for equal distributions only."""
    x, y = x.flatten(1).double(), model.sample(len(x), generator).flatten(1).double()
    across, among_x, among_y = (torch.cdist(a, b).sum() for a, b in ((x, y), (x, x), (y, y)))
    n = len(x)
    return float(2 * across / n**2 - (among_x + among_y) / (n * (n - 1)))


# --------------------------------------------------------------------------- one-pass sampling


def samples_in_one_pass(
    model: nn.Module, data: Dataset, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    """Whether the number of sequential steps of sampling does not grow with the dimension.

    Solving a differential equation so counts as one pass, as it does in the paper: how often the
    solver evaluates the dynamics does not depend on the dimension.
    """
    depths = {dim: _sampling_depth(model, dim) for dim in DIMS}
    exponent = growth(depths)
    steps = ", ".join(f"{depth} in {dim}" for dim, depth in depths.items())
    text = f"dependent operations for a sample: {steps} dimensions (grows as D^{exponent:.2f})"
    return Finding(exponent < GROWTH, text, 2)


def _sampling_depth(model: nn.Module, dim: int) -> int:
    like = cast(HasSample, _fresh_of(model, (dim,)).double())
    return _depth_of_samples(like, 2, torch.Generator().manual_seed(0))


def _depth_of_samples(model: HasSample, n: int, generator: torch.Generator) -> int:
    return depth_of(lambda: model.sample(n, generator))


# ----------------------------------------------------------------------- exact log-likelihood


def has_exact_likelihood(
    model: nn.Module, data: Dataset, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    """Whether the model's density is normalised and is that of its samples."""
    if isinstance(model, HasLogProb):
        agreement = exactness.by_quadrature(cast(BaseDensity, model), generator)
        text = (
            f"the density integrates to {agreement.mass:.4f}; box probabilities by quadrature are "
            f"at most {agreement.worst:.1f} standard errors from the fractions of samples"
        )
        return Finding(agreement.exact, text, exactness.SAMPLES)
    if isinstance(model, HasElbo) and isinstance(model, HasDecoder):
        x = x[:BOUND_POINTS]
        bound = exactness.of_bound(cast(exactness.LatentBound, model), x, generator)
        text = (
            f"the bound is {bound.gap:.4f} nats below the log-likelihood by quadrature over the "
            f"latent variables, with standard error {bound.se:.4f}"
        )
        return Finding(bound.tight, text, len(x))
    return Finding(False, "the model offers no density", 0)


# ------------------------------------------------------------------------- free-form Jacobian


def has_free_form_jacobian(
    model: nn.Module, data: Dataset, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Finding:
    """Whether the Jacobians of some elementary map of the model span all matrices.

    Maps that serve others, such as batch normalisation, need not be free-form themselves.
    """
    noise = torch.Generator().manual_seed(0)
    like = _fresh_of(model, (JACOBIAN_DIM,)).double()
    jacobians.roughen(like, noise)
    spans = [
        jacobians.span(function, _points(inputs or JACOBIAN_DIM, noise))
        for function, inputs in jacobians.elementary_maps(like)
    ]
    if not spans:
        return Finding(False, "there is no map between noise and data", 0)
    best = max(spans, key=lambda span: span.rank / span.entries)
    text = (
        f"in {JACOBIAN_DIM} dimensions the Jacobians at {JACOBIAN_POINTS} points span "
        f"{best.rank} of {best.entries} dimensions (the freest of {len(spans)} elementary maps)"
    )
    return Finding(best.free, text, JACOBIAN_POINTS)


def _points(inputs: int, noise: torch.Generator) -> Float[Tensor, "n inputs"]:
    return 2 * torch.randn(JACOBIAN_POINTS, inputs, generator=noise, dtype=torch.float64)


# ------------------------------------------------------------------------------ untrained models


def _fresh(model: nn.Module, data: Dataset) -> nn.Module:
    """Return the model as a run with seed 0 starts it, on the data's device."""
    train = data.splits["train"]
    fresh = _fresh_of(model, data.event_shape).to(train.device, train.dtype)
    with torch.no_grad():
        if isinstance(fresh, InitialisesOnData):
            fresh.initialise(train[: fresh.initial_examples])
    if isinstance(fresh, CalibratesOnData):
        fresh.calibrate(train)
    return fresh


def _fresh_of(model: nn.Module, event_shape: tuple[int, ...]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_like(model, event_shape).eval()


EXPERIMENTS: dict[str, Experiment] = {
    "trains-on-data": trains_on_data,
    "one-pass-sampling": samples_in_one_pass,
    "exact-log-likelihood": has_exact_likelihood,
    "free-form-jacobian": has_free_form_jacobian,
}
