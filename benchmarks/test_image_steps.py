"""Training steps of models of images and codes beside the same models in plain torch.

Ours has one convolution where the plain one has two, kernels without masked weights, and
nonlinearities of fast operators; the floor is the plain model's matrix products and convolutions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from floors import floor_of
from interleaved import ON_EACH_DEVICE, InterleavedTiming, Step, require_equal_gradient
from plain_images import PlainConvVAE, PlainIWAE, PlainPixelCNN
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from dgm_bench.models.codes.packing import packed_size
from dgm_bench.models.codes.priors.pixelcnn import PixelCNN
from dgm_bench.models.latent.gated_vae import ConvVAE
from dgm_bench.models.latent.hierarchical_vae import HierarchicalVAE
from dgm_bench.train.losses import Objective
from dgm_bench.train.objectives import negative_elbo, negative_importance_bound

pytestmark = ON_EACH_DEVICE


def beside(
    ours: nn.Module, plain: nn.Module, x: torch.Tensor, objective: Objective | None = None
) -> InterleavedTiming:
    """Return the timing beside a plain model, which has the same loss and gradient."""
    steps = [Step("ours", ours, x), Step("plain torch", plain, x)]
    for step in steps:
        step.objective = objective or step.objective
    require_equal_gradient(*steps)
    return InterleavedTiming(steps[0], steps[1:], min(map(floor_of, steps), key=lambda f: f.flops))


def test_conv_vae(device: str, benchmark: BenchmarkFixture) -> None:
    """The published size and batch (Sylvester, FFJORD): 28 x 28, 64 latent variables, 100."""
    model = ConvVAE((1, 28, 28))
    x = torch.bernoulli(torch.full((100, 1, 28, 28), 0.3)).to(device)
    beside(model, PlainConvVAE(model), x, negative_elbo()).run(benchmark)


@pytest.mark.parametrize("samples", [1, 50])
def test_iwae(samples: int, device: str, benchmark: BenchmarkFixture) -> None:
    """The published size and batch (importance-weighted autoencoders): two layers of 200, 20."""
    model = HierarchicalVAE((784,))
    x = torch.bernoulli(torch.full((20, 784), 0.3)).to(device)
    beside(model, PlainIWAE(model), x, negative_importance_bound(samples)).run(benchmark)


@pytest.mark.parametrize(("side", "batch"), [(8, 32), (32, 4)])
def test_pixelcnn(side: int, batch: int, device: str, benchmark: BenchmarkFixture) -> None:
    """Eight layers of 64 on 512 codes."""
    grid = (side, side)
    shape: dict[str, Any] = {"grids": [grid], "level": 0, "codes": 512}
    size = packed_size([grid])
    model = PixelCNN((size,), **shape, hidden=64, residual=64, layers=8)
    x = torch.randint(512, (batch, size), device=device)
    beside(model, PlainPixelCNN(model), x).run(benchmark)
