"""A model of eleven parameters that can have whatever the training loop asks of a model, and data.

The formulas are functions of plain tensors, so that the reference computes with them from arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.models.capabilities import Draws
from dgm_bench.train.losses import Loss

#: The parameters that weight decay is for; neither the first, nor the last, nor half of them.
DECAYED = ("scale", "shift")
NAMES = ("weight", "scale", "shift", "power")


def features(p: Mapping[str, Tensor], x: Tensor, mixed: bool = False) -> Tensor:
    """Return two numbers for each example, by a product in bfloat16 where ``mixed``."""
    low = torch.bfloat16 if mixed else x.dtype
    return torch.tanh((x.to(low) @ p["weight"].to(low)).to(x.dtype))


def log_density(p: Mapping[str, Tensor], centre: Tensor, x: Tensor, f: Tensor) -> Tensor:
    """Return a density (not normalised) that depends on the mean of the features."""
    white = (x - p["shift"]) * p["scale"].exp()
    apart = (f - centre).sum(1)
    return p["scale"].sum() - 0.5 * white.square().sum(1) - (p["power"] - apart).square()


def noisy(log_prob: Tensor, f: Tensor, noise: Tensor) -> Tensor:
    """Return an estimate of the log density whose gradient depends on ``noise`` too."""
    return log_prob + 0.1 * (noise * f).sum(1)


def divergence(p: Mapping[str, Tensor], noise: Tensor) -> Tensor:
    """Return what stands for the divergence of a draw."""
    return p["shift"].square().sum() + 0.1 * (noise * p["scale"][:2]).sum(1)


@dataclass(frozen=True)
class Traits:
    """What a model has: a likelihood or else a bound, an estimate, statistics, exclusions, ..."""

    likelihood: bool = True
    estimates: bool = False
    calibrates: bool = False
    decays: bool = False
    initialises: bool = False

    @classmethod
    def of(cls, model: type[nn.Module]) -> Traits:
        """Read them from a class."""
        names = ("log_prob", "log_prob_estimate", "calibrate", "decayed_parameters", "initialise")
        return cls(*(hasattr(model, name) for name in names))


class Tiny(nn.Module):
    """The model itself; ``heard`` is what it was asked in evaluation mode."""

    declaration: Any = None
    latent = 2

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, 2))
        self.scale = nn.Parameter(0.1 * torch.randn(dim))
        self.shift = nn.Parameter(1.2 + 0.1 * torch.randn(dim))
        self.power = nn.Parameter(torch.ones(()))
        self.register_buffer("centre", torch.zeros(2))
        self.heard: list[dict[str, Tensor]] = []

    def values(self) -> dict[str, Tensor]:
        """Return copies of all parameters and of the statistics."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}

    def density_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both; a minibatch's mean is a constant, and enters a running mean."""
        f = features(dict(self.named_parameters()), x)
        centre = self.centre
        if self.training:
            centre = f.detach().mean(0)
            self.centre.lerp_(centre, 0.1)
        else:
            self.heard.append({"inputs": x.clone(), **self.values()})
        return log_density(dict(self.named_parameters()), centre, x, f), f

    def estimate(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a log density with noise."""
        log_prob, f = self.density_and_features(x)
        return noisy(log_prob, f, torch.randn(len(x), 2, dtype=x.dtype, generator=generator))

    elbo = estimate

    def draw(self, x: Tensor, samples: int, generator: torch.Generator) -> Draws:
        """Return a draw, its divergence split into a posterior and a prior of zero."""
        log_prob, f = self.density_and_features(x)
        noise = torch.randn(len(x), 2, dtype=x.dtype, generator=generator)
        rest = divergence(dict(self.named_parameters()), noise)[:, None]
        fit = noisy(log_prob, f, noise)[:, None]
        return Draws(noise[:, None], fit, torch.zeros_like(fit), rest)


def _log_prob(self: Tiny, x: Tensor) -> Tensor:
    return self.density_and_features(x)[0]


def _calibrate(self: Tiny, x: Tensor, batch_size: int = 10_000) -> None:
    with torch.no_grad():
        self.centre.copy_(features(dict(self.named_parameters()), x).mean(0))


def _decayed_parameters(self: Tiny) -> list[nn.Parameter]:
    return [getattr(self, name) for name in DECAYED]


def _initialise(self: Tiny, x: Tensor) -> None:
    self.shift.copy_(x.mean(0) + 1)


def make_model(traits: Traits) -> Tiny:
    """Return a model with these traits; its weights come from torch's generator."""
    methods: dict[str, Any] = {"initial_examples": 7}
    methods |= {"log_prob": _log_prob} if traits.likelihood else {}
    methods |= {"log_prob_estimate": Tiny.estimate} if traits.estimates else {}
    methods |= {"calibrate": _calibrate} if traits.calibrates else {}
    methods |= {"decayed_parameters": _decayed_parameters} if traits.decays else {}
    methods |= {"initialise": _initialise} if traits.initialises else {}
    model: Tiny = type("Tiny", (Tiny,), methods)()
    return model


def probe(model: Tiny, x: Tensor, step: int, generator: torch.Generator) -> Loss:
    """An objective that depends on noise and step, for all those that the model has no part in."""
    return Loss(-model.estimate(x, generator).mean() * (1 + 0.1 * step * model.training))


# ------------------------------------------------------------------------------- data


def with_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to each number, as dequantisation does."""
    return x + 0.4 * torch.rand(x.shape, dtype=x.dtype, generator=generator)


def flipped_with_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the examples, then add noise."""
    coins = torch.rand(len(x), 1, dtype=x.dtype, generator=generator)
    return with_noise(torch.where(coins < 0.5, x.flip(1), x), generator)


#: Whether there is a validation split, how examples are augmented, and how dequantised.
KINDS: dict[str, tuple[bool, Any, Any]] = {
    "as-stored": (True, None, None),
    "augmented": (True, with_noise, None),
    "dequantised": (True, with_noise, with_noise),
    "no-validation-split": (False, flipped_with_noise, with_noise),
}


def make_data(kind: str) -> Dataset:
    """Return 17 training examples; those held out are wider and lie elsewhere."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(31, 3, generator=generator, dtype=torch.float64)
    held_out, augment, dequantise = KINDS[kind]
    splits = {"train": x[:17] * 0.5, "val": x[17:24] + 0.5, "test": x[24:] + 0.7}
    if not held_out:
        del splits["val"]
    return Dataset(f"tiny {kind}", "1", splits, augment=augment, dequantise=dequantise)
