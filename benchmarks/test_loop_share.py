"""What the training loop adds to a step: batches, sums of losses, rates, stopping rules, progress.

The "peer" is the bare step: the same model, batch size and optimiser, and nothing around it. So
``1 - peer / ours`` is the loop's share of a run; validations and checkpoints are not part of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contestants import Contestant
from interleaved import ON_EACH_DEVICE, InterleavedTiming
from pytest_benchmark.fixture import BenchmarkFixture

from dgm_bench.context import RunContext
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.flows.maf import MAF
from dgm_bench.spec import DataSpec, ModelSpec, OptimizerSpec, Stage, StoppingSpec, ValidationSpec
from dgm_bench.train.loop import Trainer

pytestmark = ON_EACH_DEVICE

EXAMPLES = 10_000
#: Steps in a round: so many that clocks are fine enough.
STEPS = 10
#: Dimensions and width of five MADEs, and the largest share of the loop.
CASES = {"bsds300": (63, 512, 0.05), "small": (8, 64, 0.10)}


class Training(Contestant):
    """Steps of a run, as the trainer takes them."""

    def __init__(self, dim: int, width: int, device: str) -> None:
        super().__init__("ours", device == "cuda")
        stage = Stage(
            data=DataSpec(name="random"),
            model=ModelSpec(name="maf:MAF"),
            optimizer=OptimizerSpec(name="adam-maf", lr=1e-4, weight_decay=1e-6),
            batch_size=100,
            validation=ValidationSpec(unit="steps", every=10**9),
            stopping=StoppingSpec(patience=30, max_steps=10**9),
        )
        x = torch.randn(EXAMPLES, dim, device=device)
        data = Dataset("random", "1", {"train": x, "val": x[:100], "test": x[:100]})
        model = MAF((dim,), 5, (width, width)).to(device)
        nowhere = RunContext(Path(), Path(), device=device)
        self.trainer = Trainer(stage, model, data, nowhere, seed=0, limit_seconds=1e9)
        self.trainer.begin()

    def run(self) -> None:
        """Do what the trainer's loop does."""
        for _ in range(STEPS):
            assert self.trainer.ended() is None
            self.trainer.step_on(self.trainer.next_batch())
            self.trainer.after_step()


class Bare(Contestant):
    """Forward, backward and optimiser's step of another training, and nothing else."""

    def __init__(self, of: Training) -> None:
        super().__init__("bare steps", of.is_cuda)
        self.trainer = of.trainer
        self.batch = self.trainer.next_batch()

    def run(self) -> None:
        """Take the steps."""
        trainer, optimizer = self.trainer, self.trainer.state.optimizer
        assert optimizer is not None
        for _ in range(STEPS):
            (-trainer.model.log_prob(self.batch).mean()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("case", CASES)
def test_loop_share(case: str, device: str, benchmark: BenchmarkFixture) -> None:
    """The share is below what the case allows."""
    dim, width, allowed = CASES[case]
    ours, other = Training(dim, width, device), Training(dim, width, device)
    timing = InterleavedTiming(ours, [Bare(other)])
    timing.run(benchmark)
    if benchmark.enabled and device == "cpu":
        share = 1 - timing.result()["peers"][0]["cpu_ratio"][0]
        assert share < allowed
