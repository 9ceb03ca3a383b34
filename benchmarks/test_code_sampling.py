"""Drawing a grid of codes: one position at a time with all kept, or the whole network each time.

Both draw the same codes from the same noise. The slow way is timed on some of the positions, and
its time for all is that times their ratio: each of its passes is the same work.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from dgm_bench.models.code_prior import CodePrior
from dgm_bench.models.packing import packed_size
from dgm_bench.models.pixelcnn import PixelCNN
from dgm_bench.models.pixelsnail import PixelSNAIL

#: Rows and columns, and on how many positions the slow way is timed.
GRID, TIMED = (32, 32), 16
#: A grid that the slow way fills in to the end.
SMALLER = (10, 10)
SIZE = {"codes": 512, "hidden": 64, "residual": 64}
MODELS: dict[str, tuple[type[PixelCNN] | type[PixelSNAIL], dict[str, Any]]] = {
    "pixelcnn": (PixelCNN, {"layers": 8}),
    "pixelsnail": (PixelSNAIL, {"layers": 8, "attention_layers": 2, "output_layers": 2}),
}
#: Times that keeping what is known must be faster than computing everything anew.
LEAST_RATIO = 10.0
HEAD = "model        grid     n   slow s    fast s    ratio"


def new(name: str, grid: tuple[int, int]) -> CodePrior:
    """Return a model over one grid, with fresh weights."""
    cls, own = MODELS[name]
    return cls((packed_size([grid]),), grids=[grid], level=0, **SIZE, **own)


def draw(model: CodePrior, n: int, positions: int | None = None) -> tuple[torch.Tensor, float]:
    """Return codes, all by the fast way or so many by the slow way, and the seconds it took."""
    labels, generator = torch.zeros(n, dtype=torch.long), torch.Generator().manual_seed(3)
    start = time.perf_counter()
    if positions is None:
        codes = model.sample_codes([], labels, generator)
    else:
        codes = model.sample_codes_slowly([], labels, generator, positions)
    return codes, time.perf_counter() - start


@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_sampling(
    name: str, n: int, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same codes, at least ten times faster."""
    small = new(name, SMALLER)
    assert torch.equal(draw(small, n)[0], draw(small, n, SMALLER[0] * SMALLER[1])[0])
    model, positions = new(name, GRID), GRID[0] * GRID[1]
    draw(model, n)
    fast, fast_seconds = benchmark.pedantic(draw, (model, n))
    slow, timed = draw(model, n, TIMED)
    assert torch.equal(fast.flatten(1)[:, :TIMED], slow.flatten(1)[:, :TIMED])
    slow_seconds = timed / TIMED * positions
    ratio = slow_seconds / fast_seconds
    with capsys.disabled():
        grid = f"{GRID[0]} x {GRID[1]}"
        print(f"\n{HEAD}")
        print(f"{name:<12} {grid:<8} {n:<3} {slow_seconds:<9.1f} {fast_seconds:<9.3f} {ratio:.0f}")
    if benchmark.enabled:
        assert ratio >= LEAST_RATIO
