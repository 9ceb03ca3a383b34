"""A vector quantiser in training beside that of another library: same codebook, same codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contestants import Call
from floors import Products
from interleaved import ON_EACH_DEVICE, InterleavedTiming
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from dgm_bench.models.codes.quantiser import VectorQuantiser

pytestmark = ON_EACH_DEVICE

#: VQ-VAE on CIFAR-10 (van den Oord et al. 2017, section 4.1): 512 codes, 8 x 8 of them an image.
CODES, DIM, BATCH, SIDE = 512, 64, 128, 8


def test_quantiser(device: str, benchmark: BenchmarkFixture) -> None:
    """Nearest codes, straight-through gradient, commitment loss and moving average."""
    why = "needs vector-quantize-pytorch: pip install dgm-bench[peers]"
    library = pytest.importorskip("vector_quantize_pytorch", reason=why)
    z = torch.randn(BATCH, DIM, SIDE, SIDE, device=device, requires_grad=True)
    ours = VectorQuantiser(CODES, DIM).to(device)
    peer: Any = library.VectorQuantize(
        DIM, CODES, decay=0.99, accept_image_fmap=True, rotation_trick=False
    ).to(device)
    peer._codebook.embed.data.copy_(ours.codebook[None])
    generator = torch.Generator(device).manual_seed(0)

    def step() -> tuple[Tensor, Tensor]:
        found = ours(z)
        (found.values.square().mean() + found.commitment).backward()
        ours.learn(z.detach(), found.codes, generator)
        return found.codes, found.commitment.detach()

    def their_step() -> tuple[Tensor, Tensor]:
        values, codes, commitment = peer(z)
        (values.square().mean() + commitment.sum()).backward()
        return codes, commitment.sum().detach()

    (codes, commitment), (their_codes, their_commitment) = step(), their_step()
    assert torch.equal(codes, their_codes)
    torch.testing.assert_close(commitment, their_commitment)
    is_cuda = z.is_cuda
    contestants = [
        Call("ours", step, is_cuda),
        Call("vector-quantize-pytorch", their_step, is_cuda),
    ]
    floor = Products(step, is_cuda)
    InterleavedTiming(contestants[0], contestants[1:], floor).run(benchmark)
