"""The work of a case: a training step, or twenty steps of the training loop.

The learning rate is zero and the noise repeats: each call is the same work on the same weights, so
that adaptive solvers take the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from dgm_bench.context import RunContext
from dgm_bench.control import Control
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import InitialisesOnData
from dgm_bench.perf.cases import CODES, Case
from dgm_bench.spec import DataSpec, OptimizerSpec, Stage, StoppingSpec, ValidationSpec
from dgm_bench.train.loop import Trainer
from dgm_bench.train.losses import Batch
from dgm_bench.train.objectives import build_objective
from dgm_bench.train.optimizers import build_optimizer

SEED = 7
#: Steps of the training loop in one call.
LOOP_STEPS = 20
#: No objective of a case loads data.
_NOWHERE = Path("no data root")


class Work(Protocol):
    """What is called again and again, and the model that it trains."""

    model: nn.Module

    def __call__(self) -> None:
        """Do the work once, and wait for the device."""


@contextmanager
def usual_settings() -> Iterator[None]:
    """Compute as a run does, in float32 and with one thread, until the block ends."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def make_work(case: Case, device: str = "cpu") -> Work:
    """Return the work of a case, with new weights that are the same each time."""
    return LoopSteps(case, device) if case.loop else TrainingStep(case, device)


class TrainingStep:
    """One step: loss, gradient, optimiser, gradients cleared.

    Args:
        case: The case.
        device: Where.
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.model, self.x = _model_and_examples(case, case.batch, device)
        self.generator = torch.Generator(device)
        self.objective = build_objective(case.objective, _NOWHERE)
        optimizer = build_optimizer(OptimizerSpec(lr=0.0), self.model)
        assert optimizer is not None  # every case has parameters
        self.optimizer = optimizer

    def __call__(self) -> None:
        """Take the step, and wait for the device."""
        self.generator.manual_seed(SEED)
        self.objective(self.model, self.x, 0, self.generator).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.x.is_cuda:
            torch.cuda.synchronize()


class LoopSteps:
    """:data:`LOOP_STEPS` steps of the training loop and the validation at their end.

    Args:
        case: The case.
        device: Where.
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.model, x = _model_and_examples(case, 4 * case.batch, device)
        self.data = Dataset("none", "1", {"train": x, "val": x[: case.batch]})
        self.stage = Stage(
            data=DataSpec(name="none"),
            model=case.model,
            objective=case.objective,
            optimizer=OptimizerSpec(lr=0.0),
            batch_size=case.batch,
            validation=ValidationSpec(every=LOOP_STEPS, unit="steps"),
            stopping=StoppingSpec(max_steps=LOOP_STEPS),
        )

    def __call__(self, after_step: Callable[[], None] = lambda: None) -> None:
        """Train.

        Args:
            after_step: Called after each step.
        """
        context = RunContext(_NOWHERE, _NOWHERE, control=_Attendant(after_step))
        Trainer(self.stage, self.model, self.data, context, seed=SEED).run()


class _Attendant(Control):
    """Is asked after each step whether to stop, and never wants to."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        super().__init__()
        self._after_step = after_step

    def stop_reason(self) -> str | None:
        self._after_step()
        return super().stop_reason()


def _model_and_examples(case: Case, examples: int, device: str) -> tuple[nn.Module, Batch]:
    torch.manual_seed(SEED)
    model = build(case.model, case.shape).to(device)
    x = _draw(case, examples).to(device)
    if isinstance(model, InitialisesOnData):
        model.initialise(x)
    return model, x


def _draw(case: Case, examples: int) -> Batch:
    shape = (examples, *case.shape)
    if case.values == "normal":
        return torch.randn(shape)
    if case.values == "codes":
        return torch.randint(CODES, shape)
    uniform = torch.rand(shape)
    return uniform if case.values == "uniform" else (uniform < 0.5).float()
