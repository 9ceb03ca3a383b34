"""Training steps of couplings, splines, sigmoidal and recurrent flows beside other libraries."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from floors import floor_of, least_floor
from interleaved import (
    ON_EACH_DEVICE,
    InterleavedTiming,
    Step,
    require_equal_gradient,
    require_equal_size,
)
from peers_flows import (
    PlainMAFDDSF,
    nflows_nsf,
    nflows_realnvp,
    normflows_nsf,
    normflows_realnvp,
    zuko_naf,
    zuko_realnvp,
)
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from dgm_bench.models.flows.naf import MAFDDSF
from dgm_bench.models.flows.nsf import NSFAutoregressive, NSFCoupling
from dgm_bench.models.flows.realnvp import RealNVP

pytestmark = ON_EACH_DEVICE

#: Data of the MAF paper: dimensions.
DIMS = {"power": 6, "miniboone": 43, "bsds300": 63}
data = pytest.mark.parametrize("data", DIMS)


def beside(ours: Step, exact: list[Step], others: list[Step]) -> InterleavedTiming:
    """Return the timing beside peers with our weights, and beside others of about our size."""
    for peer in exact:
        require_equal_gradient(ours, peer)
    require_equal_size(ours, exact)
    return InterleavedTiming(ours, [*exact, *others], least_floor(exact or others))


# ------------------------------------------------------------------------------ Real NVP

#: Widths of the hidden layers in the MAF paper (run_experiments.py), of 10 couplings, batch 100.
WIDTHS = {"power": 100, "miniboone": 512, "bsds300": 512}


@data
def test_realnvp(data: str, device: str, benchmark: BenchmarkFixture) -> None:
    """Real NVP without batch normalisation: each peer has our weights."""
    x = torch.randn(100, DIMS[data], device=device)
    model = RealNVP((DIMS[data],), 10, (WIDTHS[data],) * 2, batch_norm=False)
    peers = {"nflows": nflows_realnvp, "normflows": normflows_realnvp, "zuko": zuko_realnvp}
    exact = [Step(name, build(model), x) for name, build in peers.items()]
    beside(Step("ours", model, x), exact, []).run(benchmark)


@data
def test_realnvp_batch_norm(data: str, device: str, benchmark: BenchmarkFixture) -> None:
    """Real NVP as published; nflows' batch normalisation keeps running averages."""
    x = torch.randn(100, DIMS[data], device=device)
    model = RealNVP((DIMS[data],), 10, (WIDTHS[data],) * 2)
    ours, peer = Step("ours", model, x), Step("nflows", nflows_realnvp(model), x)
    require_equal_size(ours, [peer])
    InterleavedTiming(ours, [peer], floor_of(peer)).run(benchmark)


# --------------------------------------------------------------------------------- splines


class Splines(NamedTuple):
    """Setting of a neural spline flow of 10 layers (NSF paper, table of settings)."""

    batch: int
    hidden: int
    blocks: int
    bins: int


SPLINES = {
    "power": Splines(512, 256, 2, 8),
    "miniboone": Splines(64, 64, 1, 4),
    "bsds300": Splines(512, 256, 2, 8),
}


@data
@pytest.mark.parametrize("kind", [NSFCoupling, NSFAutoregressive], ids=["coupling", "ar"])
def test_nsf(
    kind: type[NSFCoupling | NSFAutoregressive],
    data: str,
    device: str,
    benchmark: BenchmarkFixture,
) -> None:
    """Rational-quadratic splines without dropout: each peer has our weights."""
    batch, *setting = SPLINES[data]
    x = torch.randn(batch, DIMS[data], device=device)
    model = kind((DIMS[data],), 10, *setting)
    peers = {"nflows": nflows_nsf, "normflows": normflows_nsf}
    exact = [Step(name, build(model), x) for name, build in peers.items()]
    beside(Step("ours", model, x), exact, []).run(benchmark)


# --------------------------------------------------------------------------- sigmoidal flows


@data
def test_maf_ddsf(data: str, device: str, benchmark: BenchmarkFixture) -> None:
    """MAF-DDSF as published, beside a plain formulation; zuko's NAF is of another kind."""
    x = torch.randn(100, DIMS[data], device=device)
    model = MAFDDSF((DIMS[data],), 5)
    exact = [Step("plain torch", PlainMAFDDSF(model), x)]
    others: list[tuple[str, nn.Module]] = [("zuko NAF", zuko_naf(model))]
    beside(Step("ours", model, x), exact, [Step(*o, x) for o in others]).run(benchmark)
