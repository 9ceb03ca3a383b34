"""The 2-D toy densities of the FFJORD paper (section 4.1), from the definitions in its code.

Where the released code (lib/toy_data.py) spaces points evenly along a curve, here they are drawn
independently, so that every set is a sample of a density. Four of the densities are known. The
paper is https://arxiv.org/abs/1810.01367.

Example:
    >>> round(entropy_of("checkerboard").value, 4)  # log 32
    3.4657
    >>> checkerboard_log_density(torch.tensor([[1.0, 1.0]])).exp()
    tensor([0.0312])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset, Entropy, LogDensity

Points = Float[np.ndarray, "n 2"]
SEED = 2018
CIRCLES = ((3.0, 1.5), 0.24)  # radii and noise
RINGS = ((3.0, 2.25, 1.5, 0.75), 0.08)


def load(card: DatasetCard, home: Path) -> Dataset:
    """Draw the splits of one density, always the same ones; ``home`` is not used."""
    draw = DRAW[card.name]
    splits = {
        split: torch.from_numpy(draw(size, np.random.default_rng((SEED, number)))).float()
        for number, (split, size) in enumerate(card.sizes.items())
    }
    log_density = LOG_DENSITY.get(card.name)
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        log_density=log_density,
        entropy=entropy_of(card.name) if log_density else None,
    )


# --------------------------------------------------------------------------------- samples


def eight_gaussians(n: int, rng: np.random.Generator) -> Points:
    """Gaussians of deviation 0.5 / 1.414 on a circle of radius 4 / 1.414."""
    angle = rng.integers(8, size=n) * math.pi / 4
    points: Points = 4 * _circle(angle) + 0.5 * rng.standard_normal((n, 2))
    return points / 1.414


def checkerboard(n: int, rng: np.random.Generator) -> Points:
    """Uniform on the eight squares of side 2 of one colour within [-4, 4]^2."""
    x = rng.uniform(-2, 2, size=n)
    y = rng.random(n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
    return 2 * np.stack([x, y], axis=1)


def two_spirals(n: int, rng: np.random.Generator) -> Points:
    """Two arms of one and a half turns, point reflections of each other."""
    angle = np.sqrt(rng.random(n)) * 3 * math.pi
    arm = angle[:, None] * np.stack([-np.cos(angle), np.sin(angle)], axis=1)
    sign = rng.choice([-1, 1], size=(n, 1))
    spirals: Points = sign * (arm + 0.5 * rng.random((n, 2))) / 3
    return spirals + 0.1 * rng.standard_normal((n, 2))


def pinwheel(n: int, rng: np.random.Generator) -> Points:
    """Five Gaussian arms, rotated by an angle that grows with the radius."""
    radial, tangential = np.array([0.3, 0.1])[:, None] * rng.standard_normal((2, n))
    radial = radial + 1
    turn = rng.integers(5, size=n) * 2 * math.pi / 5 + 0.25 * np.exp(radial)
    cos, sin = np.cos(turn), np.sin(turn)
    x = radial * cos + tangential * sin
    y = tangential * cos - radial * sin
    return 2 * np.stack([x, y], axis=1)


def swissroll(n: int, rng: np.random.Generator) -> Points:
    """One and a half turns of a spiral with Gaussian noise."""
    angle = 1.5 * math.pi * (1 + 2 * rng.random(n))
    points: Points = angle[:, None] * _circle(angle) + rng.standard_normal((n, 2))
    return points / 5


def moons(n: int, rng: np.random.Generator) -> Points:
    """Two interleaved half circles with Gaussian noise."""
    upper = rng.random(n)[:, None] < 0.5
    arc = _circle(rng.uniform(0, math.pi, size=n))
    points: Points = 0.1 * rng.standard_normal((n, 2))
    points += np.where(upper, arc, np.array([1, 0.5]) - arc)
    points *= 2
    points -= np.array([1, 0.2])
    return points


def circles(n: int, rng: np.random.Generator) -> Points:
    """Two concentric circles with Gaussian noise."""
    return _noisy_circles(n, rng, *CIRCLES)


def rings(n: int, rng: np.random.Generator) -> Points:
    """Four concentric circles with Gaussian noise."""
    return _noisy_circles(n, rng, *RINGS)


def _noisy_circles(
    n: int, rng: np.random.Generator, radii: tuple[float, ...], noise: float
) -> Points:
    radius = rng.choice(radii, size=(n, 1))
    points: Points = radius * _circle(rng.uniform(0, 2 * math.pi, size=n))
    return points + noise * rng.standard_normal((n, 2))


def _circle(angle: Float[np.ndarray, " n"]) -> Points:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


DRAW: dict[str, Callable[[int, np.random.Generator], Points]] = {
    "8gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "2spirals": two_spirals,
    "pinwheel": pinwheel,
    "swissroll": swissroll,
    "moons": moons,
    "circles": circles,
    "rings": rings,
}

# ------------------------------------------------------------------------------- densities


def eight_gaussians_log_density(x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Exact log density of :func:`eight_gaussians` in nats."""
    angle = torch.arange(8, dtype=x.dtype, device=x.device) * (math.pi / 4)
    centres = torch.stack([angle.cos(), angle.sin()], dim=1) * (4 / 1.414)
    variance = (0.5 / 1.414) ** 2
    squares = (x[:, None] - centres).square().sum(2)
    return torch.logsumexp(-squares / (2 * variance), 1) - math.log(16 * math.pi * variance)


def checkerboard_log_density(x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Exact log density of :func:`checkerboard`: -ln 32 on its squares, else minus infinity."""
    squares = (x / 2).floor()
    inside = (squares.sum(1) % 2 == 0) & (x.abs() <= 4).all(1)
    return torch.where(inside, -math.log(32), -math.inf).to(x.dtype)


def _noisy_circles_log_density(radii: tuple[float, ...], noise: float) -> LogDensity:
    """A circle's noisy density is Gaussian in the radius times a Bessel function (Rice)."""
    variance = noise**2

    def log_density(x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        r = x.norm(dim=1, keepdim=True)
        radius = torch.tensor(radii, dtype=x.dtype, device=x.device)
        bessel = torch.special.i0e(r * radius / variance).log()
        parts = bessel - (r - radius).square() / (2 * variance)
        return torch.logsumexp(parts, 1) - math.log(2 * math.pi * variance * len(radii))

    return log_density


LOG_DENSITY: dict[str, LogDensity] = {
    "8gaussians": eight_gaussians_log_density,
    "checkerboard": checkerboard_log_density,
    "circles": _noisy_circles_log_density(*CIRCLES),
    "rings": _noisy_circles_log_density(*RINGS),
}


def entropy_of(name: str) -> Entropy:
    """Return the entropy of a density of :data:`LOG_DENSITY` in nats.

    Exact for the checkerboard; the others are smooth, and a sum over a grid finer than their
    noise, which converges faster than any power of its spacing, is exact to rounding.
    """
    if name == "checkerboard":
        return Entropy(math.log(32))
    spacing = 0.02
    axis = torch.arange(-300, 301, dtype=torch.float64) * spacing
    log_p = LOG_DENSITY[name](torch.cartesian_prod(axis, axis))
    return Entropy(-float((log_p.exp() * log_p).sum()) * spacing**2)
