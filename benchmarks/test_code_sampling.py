"""Drawing a grid of codes: one position at a time with all kept, or the whole network each time.

Both draw the same codes from the same noise. A convolutional network's slow way is timed on some of
the positions, and its time for all is that times their ratio: each of its passes is the same work.
The transformer's passes grow with what is known, and its slow way is timed to the end.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from dgm_bench.models.codes.packing import packed_size
from dgm_bench.models.codes.priors.code_transformer import CodeTransformer
from dgm_bench.models.codes.priors.pixelcnn import PixelCNN
from dgm_bench.models.codes.priors.pixelcnnpp import PixelCNNPP
from dgm_bench.models.codes.priors.pixelsnail import PixelSNAIL

Prior = PixelCNN | PixelCNNPP | PixelSNAIL | CodeTransformer

#: Rows and columns, and on how many positions the slow way of a convolutional network is timed.
GRID, TIMED = (32, 32), 16
#: A grid that the slow way fills in to the end.
SMALLER = (10, 10)
WIDTHS = {"hidden": 64, "residual": 64, "layers": 8}
MODELS: dict[str, tuple[type[Prior], dict[str, Any]]] = {
    "pixelcnn": (PixelCNN, WIDTHS),
    "pixelcnnpp": (PixelCNNPP, {"hidden": 64, "blocks": 2}),
    "pixelsnail": (PixelSNAIL, {**WIDTHS, "attention_layers": 2, "output_layers": 2}),
    "transformer": (CodeTransformer, {"width": 64, "depth": 2, "heads": 4}),
}
#: Times that keeping what is known must be faster than computing everything anew.
LEAST_RATIO = 10.0
HEAD = "model        grid     n   slow s    fast s    ratio"


def new(name: str, grid: tuple[int, int]) -> Prior:
    """Return a model over one grid of 512 codes, with fresh weights, ready to draw."""
    cls, own = MODELS[name]
    model = cls((packed_size([grid]),), grids=[grid], level=0, codes=512, **own)
    model.eval()
    return model


def fast(model: Prior, n: int) -> tuple[torch.Tensor, float]:
    """Return codes, and the seconds they took."""
    start = time.perf_counter()
    codes = model.sample_codes([], *_given(n))
    return codes, time.perf_counter() - start


def slow(model: Prior, n: int, positions: int) -> tuple[torch.Tensor, float]:
    """Return codes of so many positions at least, and the seconds that all would take."""
    start = time.perf_counter()
    if isinstance(model, CodeTransformer):
        return model.sample_codes_uncached([], *_given(n)), time.perf_counter() - start
    codes = model.sample_codes_uncached([], *_given(n), positions)
    return codes, (time.perf_counter() - start) * codes[0].numel() / positions


def _given(n: int) -> tuple[torch.Tensor, torch.Generator]:
    return torch.zeros(n, dtype=torch.long), torch.Generator().manual_seed(3)


@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_code_sampling(
    name: str, n: int, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same codes, at least ten times faster."""
    small = new(name, SMALLER)
    assert torch.equal(fast(small, n)[0], slow(small, n, SMALLER[0] * SMALLER[1])[0])
    model = new(name, GRID)
    fast(model, n)
    ours, seconds = benchmark.pedantic(fast, (model, n))
    theirs, slow_seconds = slow(model, n, TIMED)
    drawn = None if isinstance(model, CodeTransformer) else TIMED
    assert torch.equal(ours.flatten(1)[:, :drawn], theirs.flatten(1)[:, :drawn])
    ratio = slow_seconds / seconds
    with capsys.disabled():
        grid = f"{GRID[0]} x {GRID[1]}"
        print(f"\n{HEAD}")
        print(f"{name:<12} {grid:<8} {n:<3} {slow_seconds:<9.1f} {seconds:<9.3f} {ratio:.0f}")
    if benchmark.enabled:
        assert ratio >= LEAST_RATIO
