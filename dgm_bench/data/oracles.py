"""Data sets whose log density and entropy are known, so that a gap in nats can be measured.

``oracle-D`` is a fixed random invertible transformation of a simple base, in float64, from seeds:
the coordinates of the base, some of them bimodal, some of small variance, pass affine couplings
with random smooth functions, elementwise sinh-arcsinh maps and rotations, and are standardised. The
density has curved ridges and many modes, so that a Gaussian fits it badly and more expressive
models come closer.

Two simpler oracles serve tests: a Gaussian, and one that is autoregressive with affine
conditionals, which an affine autoregressive flow can represent exactly.

Everything here is written independently of the model classes that are measured with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset, Entropy

LOG_2PI_E = math.log(2 * math.pi * math.e)
SEED = 2019

#: Entropies of ``oracle-D`` in nats with their standard errors, from :func:`estimate_entropy`
#: with ``n = 4_000_000`` and ``seed = 1``: too expensive to repeat at every load.
ENTROPIES = {
    6: Entropy(-0.14168, se=0.00044),
    8: Entropy(-0.03340, se=0.00019),
    21: Entropy(-0.84093, se=0.00095),
    43: Entropy(6.89079, se=0.00107),
    63: Entropy(12.70678, se=0.00116),
}


@runtime_checkable
class Oracle(Protocol):
    """A density that can be sampled, evaluated and whose entropy is known."""

    @property
    def entropy(self) -> Entropy:
        """Differential entropy in nats."""
        ...

    def sample(self, n: int, seed: int) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points in float64."""
        ...

    def log_density(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the exact log density in nats, in float64."""
        ...


def load(card: DatasetCard, home: Path) -> Dataset:
    """Draw the splits of ``oracle-D``, always the same ones; ``home`` is not used."""
    oracle = transformed_oracle(card.dim)
    splits = {
        split: oracle.sample(size, seed=100 + number).float()
        for number, (split, size) in enumerate(card.sizes.items())
    }
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        log_density=oracle.log_density,
        entropy=oracle.entropy,
        note=card.note,
    )


# ---------------------------------------------------------------------------- for the tests


@dataclass(frozen=True)
class GaussianOracle:
    """``x = mean + factor z`` with standard normal ``z`` and a lower triangular factor.

    Example:
        >>> oracle = GaussianOracle(torch.zeros(2), torch.eye(2))
        >>> round(oracle.entropy.value, 4)  # log(2 pi e)
        2.8379
    """

    mean: Float[Tensor, " dim"]
    factor: Float[Tensor, "dim dim"]

    @property
    def entropy(self) -> Entropy:
        """Exact: ``D/2 ln(2 pi e) + ln det factor``."""
        return Entropy(len(self.mean) * LOG_2PI_E / 2 + float(self.factor.diagonal().log().sum()))

    def sample(self, n: int, seed: int) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points in float64."""
        return self.mean + _normals(n, len(self.mean), seed) @ self.factor.T

    def log_density(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the exact log density in nats, in float64."""
        centred = (_float64(x) - self.mean).T
        z = torch.linalg.solve_triangular(self.factor, centred, upper=False).T
        log_p = _standard_normal_log_density(z) - self.factor.diagonal().log().sum()
        return log_p.to(x.device)


def gaussian_oracle(dim: int, seed: int = 0) -> GaussianOracle:
    """Return a Gaussian with random mean and correlated coordinates."""
    rng = np.random.RandomState(seed)
    factor = np.tril(rng.randn(dim, dim), k=-1) / math.sqrt(dim) + np.diag(0.5 + rng.rand(dim))
    return GaussianOracle(torch.from_numpy(rng.randn(dim)), torch.from_numpy(factor))


@dataclass(frozen=True)
class AutoregressiveOracle:
    """``x_i = m_i(x_<i) + exp(s_i(x_<i)) z_i`` with standard normal ``z`` and ``x_1 = z_1``.

    ``m_i = slope_i sin(weight_i . x_<i)`` and ``s_i = scale_i sin(rate_i x_1 + phase_i)``. As x_1
    is standard normal, the mean of ``s_i`` is ``scale_i sin(phase_i) exp(-rate_i^2 / 2)``, which
    makes the entropy exact.
    """

    weight: Float[Tensor, "dim dim"]
    slope: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]
    rate: Float[Tensor, " dim"]
    phase: Float[Tensor, " dim"]

    @property
    def entropy(self) -> Entropy:
        """Exact: ``D/2 ln(2 pi e) + sum_i E[s_i]``."""
        mean_log_scale = self.scale * self.phase.sin() * (-self.rate.square() / 2).exp()
        return Entropy(len(self.slope) * LOG_2PI_E / 2 + float(mean_log_scale.sum()))

    def sample(self, n: int, seed: int) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points in float64, one coordinate after the other."""
        x = _normals(n, len(self.slope), seed)
        for i in range(1, x.shape[1]):
            mean, log_scale = self._conditionals(x)
            x[:, i] = mean[:, i] + log_scale[:, i].exp() * x[:, i]
        return x

    def log_density(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the exact log density in nats, in float64."""
        values = _float64(x)
        mean, log_scale = self._conditionals(values)
        z = (values - mean) * (-log_scale).exp()
        return (_standard_normal_log_density(z) - log_scale.sum(1)).to(x.device)

    def _conditionals(
        self, x: Float[Tensor, "n dim"]
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """Return mean and log scale of every coordinate given those before it."""
        mean = self.slope * (x @ self.weight.T).sin()
        log_scale = self.scale * (x[:, :1] * self.rate + self.phase).sin()
        return mean, log_scale


def autoregressive_oracle(dim: int, seed: int = 0) -> AutoregressiveOracle:
    """Return an oracle with affine Gaussian conditionals, smooth and not linear."""
    rng = np.random.RandomState(seed)
    weight = np.tril(rng.randn(dim, dim), k=-1) / np.sqrt(np.maximum(np.arange(dim), 1))[:, None]
    draws = [1 + rng.rand(dim), 0.5 * rng.rand(dim), 0.5 + rng.rand(dim), 3 * rng.rand(dim)]
    first_is_standard = np.arange(dim) > 0
    slope, scale, rate, phase = (torch.from_numpy(draw * first_is_standard) for draw in draws)
    return AutoregressiveOracle(torch.from_numpy(weight), slope, scale, rate, phase)


# --------------------------------------------------------------------------------- oracle-D


@runtime_checkable
class Layer(Protocol):
    """An invertible map; both directions give the log determinant of the forward one."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x(z)`` and ``log|det dx/dz|``."""
        ...

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``z(x)`` and ``log|det dx/dz|`` there."""
        ...


@dataclass(frozen=True)
class Shear:
    """``b' = b exp(s(a)) + t(a)``: some coordinates scaled and shifted by functions of the others.

    With ``h = sin(a frequency + phase)``, ``s = h log_scale`` and ``t = h shift``.
    """

    still: Sequence[int]
    moved: Sequence[int]
    frequency: Float[Tensor, "still features"]
    phase: Float[Tensor, " features"]
    log_scale: Float[Tensor, "features moved"]
    shift: Float[Tensor, "features moved"]

    def forward(self, z: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the transformed points and the log determinant."""
        log_scale, shift = self._functions(z)
        x = z.clone()
        x[:, self.moved] = z[:, self.moved] * log_scale.exp() + shift
        return x, log_scale.sum(1)

    def inverse(self, x: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the inverse image and the log determinant of the map there."""
        log_scale, shift = self._functions(x)
        z = x.clone()
        z[:, self.moved] = (x[:, self.moved] - shift) * (-log_scale).exp()
        return z, log_scale.sum(1)

    def _functions(self, x: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        h = torch.sin(x[:, self.still] @ self.frequency + self.phase)
        return h @ self.log_scale, h @ self.shift


@dataclass(frozen=True)
class SinhArcsinh:
    """``x = sinh(tail asinh(z) + skew)``, coordinate by coordinate (Jones and Pewsey, 2009)."""

    skew: Float[Tensor, " dim"]
    tail: Float[Tensor, " dim"]

    def forward(self, z: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the transformed points and the log determinant."""
        bent = self.tail * z.asinh() + self.skew
        return bent.sinh(), self._log_det(z, bent)

    def inverse(self, x: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the inverse image and the log determinant of the map there."""
        bent = x.asinh()
        z = ((bent - self.skew) / self.tail).sinh()
        return z, self._log_det(z, bent)

    def _log_det(self, z: Tensor, bent: Tensor) -> Tensor:
        slope = self.tail.log() + bent.cosh().log() - 0.5 * torch.log1p(z.square())
        return slope.sum(1)


@dataclass(frozen=True)
class Linear:
    """``x = (z - mean) matrix`` with a known inverse and log determinant."""

    mean: Float[Tensor, " dim"]
    matrix: Float[Tensor, "dim dim"]
    inverse_matrix: Float[Tensor, "dim dim"]
    log_det: float

    def forward(self, z: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the mapped points and the log determinant."""
        return (z - self.mean) @ self.matrix, z.new_full((len(z),), self.log_det)

    def inverse(self, x: Float[Tensor, "n dim"]) -> tuple[Tensor, Tensor]:
        """Return the inverse image and the log determinant of the map there."""
        return x @ self.inverse_matrix + self.mean, x.new_full((len(x),), self.log_det)


@dataclass(frozen=True)
class Base:
    """Independent coordinates, each an even mixture of two Gaussians, at ``+mode`` and ``-mode``.

    Both have deviation ``scale``; a mode of 0 makes a coordinate normal.
    """

    mode: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]

    @property
    def entropy(self) -> float:
        """In nats, by a sum over a fine grid: exact to rounding, the integrand being smooth."""
        t = torch.arange(-12, 12, 0.01, dtype=torch.float64)[:, None]
        # Each mixture is symmetric, so integrate around one mode, weighted as half of it.
        log_p = self._log_densities(self.mode + self.scale * t)
        weight = (-0.5 * t.square()).exp() / math.sqrt(2 * math.pi) * 0.01
        return -float((weight * log_p).sum())

    def sample(self, n: int, seed: int) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points in float64."""
        rng = np.random.RandomState(seed)
        signs = torch.from_numpy(np.sign(rng.rand(n, len(self.mode)) - 0.5))
        normals = torch.from_numpy(rng.randn(n, len(self.mode)))
        return signs * self.mode + self.scale * normals

    def log_density(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the exact log density in nats."""
        return self._log_densities(z).sum(1)

    def _log_densities(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        plus, minus = (
            -0.5 * ((z - mode) / self.scale).square() for mode in (self.mode, -self.mode)
        )
        normaliser = math.log(2) + 0.5 * math.log(2 * math.pi) + self.scale.log()
        return torch.logaddexp(plus, minus) - normaliser


@dataclass(frozen=True)
class TransformedOracle:
    """A base and the layers that transform it."""

    base: Base
    layers: tuple[Layer, ...]

    @property
    def entropy(self) -> Entropy:
        """The stored entropy of ``oracle-D``."""
        return ENTROPIES[len(self.base.mode)]

    def sample(self, n: int, seed: int) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points in float64."""
        chunks = self.base.sample(n, seed).split(10_000)
        return torch.cat([self.transform(z)[0] for z in chunks])

    def transform(
        self, z: Float[Tensor, "n dim"]
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, " n"]]:
        """Return ``x(z)`` and ``log|det dx/dz|``."""
        total = z.new_zeros(len(z))
        for layer in self.layers:
            z, log_det = layer.forward(z)
            total = total + log_det
        return z, total

    def log_density(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the exact log density in nats, in float64."""
        z = _float64(x)
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, log_det = layer.inverse(z)
            total = total + log_det
        return (self.base.log_density(z) - total).to(x.device)


def transformed_oracle(dim: int) -> TransformedOracle:
    """Return ``oracle-D``: the same one at every call, for any number of dimensions above 1."""
    rng = np.random.RandomState(SEED + dim)
    base = _random_base(dim)
    layers: list[Layer] = [_rotation(dim, rng)]
    half = dim // 2
    first, second = list(range(half)), list(range(half, dim))
    for _ in range(2):
        layers += [_random_shear(first, second, rng), _random_shear(second, first, rng)]
        layers += [_random_bend(dim, rng), _rotation(dim, rng)]
    layers.append(_standardisation(TransformedOracle(base, tuple(layers))))
    return TransformedOracle(base, tuple(layers))


def estimate_entropy(oracle: TransformedOracle, n: int, seed: int) -> Entropy:
    """Estimate ``H(x) = H(z) + E log|det dx/dz|`` from ``n`` points; only the last term is random.

    This is how :data:`ENTROPIES` was computed.
    """
    chunks = [min(50_000, n - start) for start in range(0, n, 50_000)]
    log_dets = torch.cat(
        [
            oracle.transform(oracle.base.sample(size, seed=seed * 10_000 + number))[1]
            for number, size in enumerate(chunks)
        ]
    )
    value = oracle.base.entropy + float(log_dets.mean())
    return Entropy(value, float(log_dets.std()) / math.sqrt(n))


def _random_base(dim: int) -> Base:
    """A third of the coordinates, at most six, have two modes; scales fall from 1 to 0.1."""
    bimodal = min(-(-dim // 3), 6)
    mode = torch.zeros(dim, dtype=torch.float64)
    mode[:bimodal] = 1.0
    scale = torch.logspace(0, -1, dim, dtype=torch.float64)
    scale[:bimodal] = 0.25
    return Base(mode, scale)


def _random_shear(still: list[int], moved: list[int], rng: np.random.RandomState) -> Shear:
    """Sums of waves, each over a plane of two ``still`` coordinates.

    With higher frequencies (1.5 for 0.6), or waves over all coordinates, a MAF trained on 100,000
    points is hardly better than the Gaussian.
    """
    features = 2 * len(still)
    wave = np.zeros((len(still), features))
    for feature in range(features):
        plane = rng.permutation(len(still))[:2]
        wave[plane, feature] = 0.6 * rng.randn(len(plane))
    phase = 2 * math.pi * rng.rand(features)
    log_scale = 0.4 * rng.randn(features, len(moved)) / math.sqrt(features / 2)
    shift = 0.8 * rng.randn(features, len(moved)) / math.sqrt(features / 2)
    arrays = (torch.from_numpy(array) for array in (wave, phase, log_scale, shift))
    return Shear(still, moved, *arrays)


def _random_bend(dim: int, rng: np.random.RandomState) -> SinhArcsinh:
    skew, tail = rng.uniform(-0.4, 0.4, size=dim), rng.uniform(0.8, 1.2, size=dim)
    return SinhArcsinh(torch.from_numpy(skew), torch.from_numpy(tail))


def _rotation(dim: int, rng: np.random.RandomState) -> Linear:
    q, r = np.linalg.qr(rng.randn(dim, dim))
    matrix = torch.from_numpy(q * np.sign(np.diag(r)))  # one sign whichever LAPACK computed it
    return Linear(torch.zeros(dim, dtype=torch.float64), matrix, matrix.T, 0.0)


def _standardisation(oracle: TransformedOracle) -> Linear:
    """Return the map to mean 0 and deviation 1, as 20,000 draws have it."""
    draws = oracle.sample(20_000, seed=0)
    deviation = draws.std(0)
    log_det = -float(deviation.log().sum())
    return Linear(draws.mean(0), torch.diag(1 / deviation), torch.diag(deviation), log_det)


def _normals(n: int, dim: int, seed: int) -> Float[Tensor, "n dim"]:
    return torch.from_numpy(np.random.RandomState(seed).randn(n, dim))


def _standard_normal_log_density(z: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def _float64(x: Tensor) -> Tensor:
    """Return ``x`` in float64 on the CPU, as not every device has float64."""
    return x.detach().to("cpu", torch.float64)
