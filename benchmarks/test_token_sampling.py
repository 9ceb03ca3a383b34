"""Drawing the tokens of an image with and without a cache of keys and values.

The slow way runs the whole transformer over all tokens so far, for each token.
"""

from __future__ import annotations

import torch
from contest import ON_EACH_DEVICE, SEED, Contest, Step
from jaxtyping import Int
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from dgm_bench.models.code_transformer import CodeTransformer

pytestmark = ON_EACH_DEVICE

#: DALL-E's grid of tokens (Ramesh et al. 2021, section 2), and a transformer that is small.
GRID, CODES, WIDTH, DEPTH, HEADS = (32, 32), 512, 64, 2, 4
#: Times that the cache must be faster.
LEAST_RATIO = 10.0


class Sampling(Step):
    """The codes of one image of each class in ``x``, instead of a training step."""

    def __call__(self) -> None:
        """Draw them, and wait for the device to be done."""
        self.codes()
        if self.x.is_cuda:
            torch.cuda.synchronize()

    def codes(self) -> Int[Tensor, "n rows columns"]:
        """Return the codes."""
        self.generator.manual_seed(SEED)
        assert isinstance(self.model, CodeTransformer)
        return self.model.sample_codes([], self.x, self.generator)


class SlowSampling(Sampling):
    """The same without a cache."""

    def codes(self) -> Int[Tensor, "n rows columns"]:
        """Return the codes."""
        self.generator.manual_seed(SEED)
        assert isinstance(self.model, CodeTransformer)
        return self.model.sample_codes_slowly([], self.x, self.generator)


def test_token_sampling(device: str, benchmark: BenchmarkFixture) -> None:
    """One image; the codes are asserted to be equal."""
    size = {"width": WIDTH, "depth": DEPTH, "heads": HEADS}
    model = CodeTransformer((1025,), grids=[GRID], level=0, codes=CODES, **size)
    model.eval()
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    ours = Sampling("ours", model, labels)
    slow = SlowSampling("ours, no cache", model, labels)
    assert torch.equal(ours.codes(), slow.codes())
    Contest(ours, [slow]).run(benchmark)
    if benchmark.enabled:
        clock = benchmark.extra_info["clock"]
        assert benchmark.extra_info["peers"][0][f"{clock}_ratio"][0] >= LEAST_RATIO
