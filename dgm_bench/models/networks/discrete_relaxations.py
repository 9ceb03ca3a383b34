"""Draws of categorical variables by the Gumbel-max trick, and their relaxations.

Gumbel-softmax is by Jang, Gu and Poole (https://arxiv.org/abs/1611.01144), the Concrete
distribution, which is the same, and its density in log space by Maddison, Mnih and Teh
(https://arxiv.org/abs/1611.00712).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor

from dgm_bench.models.whole_batch import exponential_


def gumbel_noise(
    like: Float[Tensor, "*batch classes"], generator: torch.Generator
) -> Float[Tensor, "*batch classes"]:
    """Return independent standard Gumbel noise, ``-log(-log u)``, of the shape of ``like``."""
    # The inner -log u is a standard exponential, drawn as such: u itself might round to 0 or 1.
    return -exponential_(torch.empty_like(like), generator).log()


def one_hot_of_largest(y: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Return one-hot vectors of the largest entries."""
    return F.one_hot(y.argmax(-1), y.shape[-1]).to(y.dtype)


def gumbel_max(
    logits: Float[Tensor, "*batch classes"], generator: torch.Generator
) -> Float[Tensor, "*batch classes"]:
    """Return an exact one-hot draw of each categorical variable (Jang et al., equation 1)."""
    return one_hot_of_largest(logits + gumbel_noise(logits, generator))


def log_gumbel_softmax(
    logits: Float[Tensor, "*batch classes"], temperature: float, generator: torch.Generator
) -> Float[Tensor, "*batch classes"]:
    """Return the logarithms of relaxed draws, finite where the draws round to zero.

    Their exponentials are equation 2 of Jang et al.
    """
    return ((logits + gumbel_noise(logits, generator)) / temperature).log_softmax(-1)


def straight_through(
    hard: Float[Tensor, "*batch classes"], soft: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """Return the values of ``hard`` with the gradient of ``soft`` (https://arxiv.org/abs/1308.3432)."""
    return hard + (soft - soft.detach())


def half_estimator(
    z: Float[Tensor, "*batch classes"], logits: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """Return one-hot values whose gradient is that of the estimator of DARN.

    That of ``f(z)`` is ``f'(z) (z - 1/k)`` times the gradient of ``log p(z)``: the score function's
    with the baseline ``f(z) + f'(z) (1/k - z)``, a Taylor expansion around the draw, whose own
    mean is left out. For two classes it is ``f'(z) dp / (2 p(z))``, without bias for quadratic
    functions alone. Gregor et al. (2014, https://arxiv.org/abs/1310.8499), with k classes as Gu et
    al. (2016, https://arxiv.org/abs/1511.05176), section 4.2, equations 5 to 7.

    Args:
        z: Draws.
        logits: Normalised.
    """
    log_p = (z * logits).sum(-1, keepdim=True)
    return straight_through(z, (z - 1 / z.shape[-1]) * log_p)


def concrete_log_density(
    log_z: Float[Tensor, "*batch classes"],
    logits: Float[Tensor, "*batch classes"],
    temperature: float,
) -> Float[Tensor, "*batch"]:
    """Return the log density of Concrete variables in log space, in nats (Maddison et al., C.3).

    It is a density of the ``classes - 1`` differences of ``log_z`` to its last entry, which for two
    classes are the logits of binary Concrete variables.

    Args:
        log_z: Logarithms of points of the simplex.
        logits: Log weights of the classes, up to a constant.
        temperature: Above zero.
    """
    n = logits.shape[-1]
    tilted = logits - temperature * log_z
    constant = math.lgamma(n) + (n - 1) * math.log(temperature)
    return constant + tilted.sum(-1) - n * tilted.logsumexp(-1)


def surrogate_values(
    logits: Float[Tensor, "*batch classes"],
    estimator: str,
    temperature: float,
    generator: torch.Generator,
) -> Float[Tensor, "*batch classes"]:
    """Return inputs of the decoder with a surrogate gradient for normalised logits.

    Args:
        logits: Normalised.
        estimator: ``st``, ``darn``, ``gumbel`` or ``st-gumbel``.
        temperature: Temperature of the relaxation, or for ``st`` of the softmax of the gradient;
            ``darn`` has none.
        generator: Source of the Gumbel noise.
    """
    if estimator == "darn":
        return half_estimator(gumbel_max(logits.detach(), generator), logits)
    if estimator == "st":
        soft = (logits / temperature).softmax(-1)
        return straight_through(gumbel_max(logits.detach(), generator), soft)
    soft = log_gumbel_softmax(logits, temperature, generator).exp()
    return soft if estimator == "gumbel" else straight_through(one_hot_of_largest(soft), soft)
