"""Three seeds trained together beside one seed: what the second and the third cost.

A step is all that the loop does in it: batches, gradients, Adam, losses summed. The learning rate
is zero, as everywhere here. The line says three seeds / one seed where others say peer / ours;
``pytest benchmarks -k seeds_together`` prints it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contestants import Call
from interleaved import ON_EACH_DEVICE, InterleavedTiming
from pytest_benchmark.fixture import BenchmarkFixture

from dgm_bench.context import RunContext
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.build import build
from dgm_bench.paths import PACKAGE
from dgm_bench.spec import DataSpec, ModelSpec, OptimizerSpec, Stage, StoppingSpec
from dgm_bench.train.loop import Trainer
from dgm_bench.train.together import TrainersTogether

pytestmark = ON_EACH_DEVICE

SEEDS = 3
EXAMPLES = 1_347
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "made": ("made:MADE", {}),
    "maf-5": ("maf:MAF", {"layers": 5}),
    "real-nvp-5": ("realnvp:RealNVP", {"layers": 5}),
}
#: Widths of the hidden layers, dimensions and batch: as the columns digits, two dimensions and
#: oracle-8 have them, and wider ones on digits.
SIZES: dict[str, tuple[list[int], int, int]] = {
    "digits": ([128], 64, 128),
    "2d": ([64, 64], 2, 256),
    "oracle-8": ([128], 8, 256),
    "64x64": ([64, 64], 64, 128),
    "256x256": ([256, 256], 64, 128),
    "512x512": ([512, 512], 64, 128),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_seeds_together(model: str, size: str, device: str, benchmark: BenchmarkFixture) -> None:
    """Random numbers stand for the data."""
    name, args = MODELS[model]
    hidden, dim, batch = SIZES[size]
    stage = Stage(
        data=DataSpec(name="random"),
        model=ModelSpec(name=name, args={**args, "hidden": hidden}),
        optimizer=OptimizerSpec(lr=0.0),
        batch_size=batch,
        stopping=StoppingSpec(max_steps=10**9),
    )
    x = torch.randn(EXAMPLES, dim, device=device)
    data = Dataset("random", "1", dict.fromkeys(("train", "val", "test"), x))
    one, *three = (trainer(stage, data, seed) for seed in (0, 0, 1, 2))
    for each in (one, *three):
        each.begin()
    group = TrainersTogether(three)
    ours = Call("one seed", lambda: one.step_on(one.next_batch()), x.is_cuda)
    peer = Call(f"{SEEDS} seeds", lambda: group.step(three), x.is_cuda)
    InterleavedTiming(ours, [peer]).run(benchmark)
    assert [each.tally.together for each in three] == [SEEDS] * SEEDS


def trainer(stage: Stage, data: Dataset, seed: int) -> Trainer:
    """Return a trainer that keeps nothing."""
    torch.manual_seed(seed)
    device = data.splits["train"].device
    model = build(stage.model, data.event_shape).to(device)
    context = RunContext(PACKAGE, PACKAGE, device=device.type)
    return Trainer(stage, model, data, context, seed=seed)
