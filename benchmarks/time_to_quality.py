"""Training time to one validation likelihood: continuous flows solved fast, and as published.

    python benchmarks/time_to_quality.py [--seconds 60] [digits oracle-43 ...]

The plain formulation (reverse-mode trace, torchdiffeq's ``odeint_adjoint`` at the tolerances of
FFJORD's appendix C) and ours (``ffjord-fast`` in the recipes) start from the same weights and see
the same batches in the same order; the plain one has so many seconds of this thread's CPU time,
ours a third. They take turns, so that a busy machine slows both alike. Validations are not counted;
both have the published solver and the exact trace, whatever they were trained with.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from typing import cast

import torch
from peers import PlainFFJORD
from torch import nn

from dgm_bench.catalog import default_folder, load_catalog
from dgm_bench.data import default_root, load
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.spec import Stage
from dgm_bench.train.objectives import negative_log_likelihood
from dgm_bench.train.optimizers import build_optimizer

SEED = 0
#: Training time of ours, as a part of the plain one's.
SHARE = 1 / 3
VALIDATIONS, MOST_EXAMPLES = 24, 1_000
#: What the plain one had reached after these parts of its time is what ours is timed to.
LEVELS = (0.25, 0.5, 1.0)


class Training:
    """One of the two trainings.

    Args:
        name: For the table.
        model: What is trained.
        stage: Its objective, optimizer and batch size.
        source: The data set.
        budget: CPU seconds.
    """

    def __init__(
        self, name: str, model: nn.Module, stage: Stage, source: Dataset, budget: float
    ) -> None:
        self.name, self.model, self.stage, self.source = name, model, stage, source
        self.budget, self.seconds, self.steps = budget, 0.0, 0
        self.curve: list[tuple[float, float]] = []
        self.objective = negative_log_likelihood(**stage.objective.args)
        optimizer = build_optimizer(stage.optimizer, model)
        assert optimizer is not None
        self.optimizer = optimizer
        self.batches, self.noise = (torch.Generator().manual_seed(SEED) for _ in range(2))

    @property
    def share(self) -> float:
        """Part of its time that is over."""
        return self.seconds / self.budget

    def advance(self, validate: Callable[[nn.Module], float]) -> None:
        """Train for one interval between validations, then validate."""
        due = self.budget * len(self.curve) / VALIDATIONS
        started, before = time.thread_time(), self.seconds
        while self.seconds < due:
            self._step()
            self.seconds = before + time.thread_time() - started
        self.curve.append((self.seconds, validate(self.model)))

    def _step(self) -> None:
        train = self.source.splits["train"]
        size = (self.stage.batch_size,)
        x = train[torch.randint(len(train), size, generator=self.batches)]
        if self.source.augment is not None:
            x = self.source.augment(x, self.batches)
        self.objective(self.model, x, self.steps, self.noise).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def at(self, part: float) -> tuple[float, float]:
        """Return the best validation until a part of the time, and the seconds it took."""
        until = [point for point in self.curve if point[0] <= part * self.curve[-1][0]]
        return min(until, key=lambda point: point[1])

    def reaches(self, value: float) -> float | None:
        """Return the seconds after which the validation is as good, or None."""
        return next((seconds for seconds, found in self.curve if found <= value), None)


def compare(data: str, seconds: float) -> None:
    """Train both on a data set, and print the curves and the ratios of times."""
    source, fast, published = load(data, default_root(), offline=True), *stages(data)
    torch.manual_seed(SEED)
    start = FFJORD(source.event_shape, **fast.model.args)
    plain = copy.deepcopy(start)
    plain.solve_with(**{name: published.model.args[name] for name in ("solver", "rtol", "atol")})
    both = [
        Training("plain", PlainFFJORD(plain), published, source, seconds),
        Training("fast", copy.deepcopy(start), fast, source, seconds * SHARE),
    ]
    validate = validation(start, source)
    while waiting := [training for training in both if len(training.curve) <= VALIDATIONS]:
        min(waiting, key=lambda training: training.share).advance(validate)
    report(data, *both)


def stages(data: str) -> list[Stage]:
    """Return the only stages of the recipes of ``ffjord-fast`` and ``ffjord-adjoint``."""
    cells = {cell.id: cell for cell in load_catalog(default_folder()).cells}
    found = [cells[f"ffjord/density/{row}/{data}"] for row in ("ffjord-fast", "ffjord-adjoint")]
    return [cell.recipe.stages[0] for cell in found if cell.recipe]


def validation(model: FFJORD, source: Dataset) -> Callable[[nn.Module], float]:
    """Return what computes the mean negative log-likelihood in nats, accurately, of either."""
    x = source.splits["val"][:MOST_EXAMPLES]
    if source.dequantise is not None:
        x = source.dequantise(x, torch.Generator().manual_seed(SEED))
    accurate = copy.deepcopy(model)
    accurate.solve_with(solver="dopri5", rtol=1e-6, atol=1e-8)

    def validate(trained: nn.Module) -> float:
        layers = trained.flows[0].network if isinstance(trained, FFJORD) else trained.dynamics
        weights = cast(nn.Module, layers).layers.state_dict()
        cast(nn.Module, accurate.flows[0].network).layers.load_state_dict(weights)
        with torch.no_grad():
            return -accurate.log_prob(x).mean().item()

    return validate


def report(data: str, plain: Training, fast: Training) -> None:
    """Print what both reached, and how long each took to what the plain one reached."""
    print(f"\n{data}: validation, nats; seconds of CPU time of one thread")
    for training in (plain, fast):
        seconds, best = training.at(1.0)
        print(f"{training.name:6} {seconds:7.1f} s {training.steps:6} steps  best {best:.3f}")
        print("       " + "  ".join(f"{s:.1f}:{value:.2f}" for s, value in training.curve[::3]))
    for level in LEVELS:
        seconds, value = plain.at(level)
        needed = fast.reaches(value)
        ratio = (
            "not reached"
            if needed is None
            else f"{needed:.2f} s, {seconds / needed:.1f} times less"
        )
        print(f"to {value:.3f}: plain {seconds:.1f} s, fast {ratio}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on the data sets that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=["digits", "oracle-43"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the plain training")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for data in asked.data:
        compare(data, asked.seconds)


if __name__ == "__main__":
    main()
