"""Inverting a MAF beside other libraries: what a sample costs.

They run every network once for each dimension; ours computes each hidden unit once.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from floors import Products
from interleaved import ON_EACH_DEVICE, InterleavedTiming, Step, require_equal_size
from jaxtyping import Float
from peers import ZukoMAF, nflows_maf
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from dgm_bench.models.capabilities import HasInverse
from dgm_bench.models.flows.maf import MAF

pytestmark = ON_EACH_DEVICE

#: BSDS300 of the MAF paper.
DIM, WIDTH, LAYERS = 63, 512, 5
#: Times that ours must be faster than the fastest peer, where arithmetic counts and not Python.
LEAST_RATIO = 10.0


class Inversion(Step):
    """From noise to data, without gradients, instead of a training step."""

    @torch.no_grad()
    def run(self) -> None:
        """Invert."""
        self.invert()

    def invert(self) -> Float[Tensor, "batch dim"]:
        """Return the data that the noise stands for."""
        x: Tensor = cast(HasInverse, self.model).inverse(self.x)
        return x


class NflowsInversion(Inversion):
    """The same with nflows."""

    def invert(self) -> Float[Tensor, "batch dim"]:
        """Return the data that the noise stands for."""
        x: Tensor = cast(Any, self.model)._transform.inverse(self.x)[0]
        return x


class ZukoInversion(Inversion):
    """The same with zuko."""

    def invert(self) -> Float[Tensor, "batch dim"]:
        """Return the data that the noise stands for."""
        x: Tensor = cast(ZukoMAF, self.model).flow().transform.inv(self.x)
        return x


@pytest.mark.parametrize("batch", [1_000, 100])
def test_inversion(batch: int, device: str, benchmark: BenchmarkFixture) -> None:
    """MAF without batch normalisation, as for training steps."""
    u = torch.randn(batch, DIM, device=device)
    ours = Inversion("ours", MAF((DIM,), LAYERS, (WIDTH, WIDTH), batch_norm=False), u)
    peers = [
        NflowsInversion("nflows", nflows_maf(DIM, WIDTH, LAYERS), u),
        ZukoInversion("zuko", ZukoMAF(DIM, WIDTH, LAYERS), u),
    ]
    require_equal_size(ours, peers)
    # One pass, as if every dimension were known: each weight has to be used once at least.
    one_pass = torch.no_grad()(lambda: peers[0].model.log_prob(u))
    InterleavedTiming(ours, peers, Products(one_pass, u.is_cuda)).run(benchmark)
    if benchmark.enabled and batch == 1_000:
        clock = benchmark.extra_info["clock"]
        ratios = [peer[f"{clock}_ratio"][0] for peer in benchmark.extra_info["peers"]]
        assert min(ratios) >= LEAST_RATIO
