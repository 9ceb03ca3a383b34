"""Interleaved timing of training steps, so that a noisy machine slows all of them alike.

In each round every implementation takes one step, and the floor (:mod:`floors`) its own, in random
order, and ratios are computed within the round. First calls are discarded. The result is the median
ratio with a confidence interval from order statistics, exact for any distribution of times.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from contestants import Contestant
from jaxtyping import Float
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.stats import binom
from torch import Tensor, nn

from dgm_bench.spec import OptimizerSpec
from dgm_bench.train.objectives import negative_log_likelihood
from dgm_bench.train.optimizers import build_optimizer

SEED = 7
SECONDS = 12.0
FEWEST_ROUNDS, MOST_ROUNDS = 8, 300
CONFIDENCE = 0.95

#: Mark of a file of benchmarks: each on the CPU by thread time, and on a GPU where there is one.
ON_EACH_DEVICE = pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.benchmark(timer=time.thread_time)),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
                pytest.mark.benchmark(timer=time.perf_counter),
            ],
        ),
    ],
)


class Step(Contestant):
    """One training step of a model: loss, gradient, Adam, gradients cleared.

    The learning rate is zero and the noise the same in each step: the arithmetic is that of any
    step, and every round is about the same weights, so adaptive solvers have the same work.

    Args:
        name: Of the library.
        model: Has ``log_prob_estimate`` or ``log_prob``, as our objective asks.
        x: The batch.
    """

    def __init__(self, name: str, model: nn.Module, x: Float[Tensor, "batch dim"]) -> None:
        super().__init__(name, x.is_cuda)
        self.model, self.x = model.to(x.device), x
        self.generator = torch.Generator(x.device)
        self.objective = negative_log_likelihood()
        optimizer = build_optimizer(OptimizerSpec(lr=0.0), model)
        assert optimizer is not None
        self.optimizer = optimizer

    def run(self) -> None:
        """Take the step."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Float[Tensor, ""]:
        """Return the loss in nats."""
        self.generator.manual_seed(SEED)
        return self.objective(self.model, self.x, 0, self.generator).total

    def loss_and_gradient(self) -> tuple[float, Float[Tensor, " parameters"]]:
        """Return the loss in nats and its gradient, laid out flat in double precision."""
        loss = self.loss()
        loss.backward()
        gradient = flat_gradient(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), gradient

    def evaluations(self) -> int | None:
        """Return how often a step evaluates the dynamics; None for a model that has none."""
        before = getattr(self.model, "function_evaluations", None)
        if before is None:
            return None
        self()
        return int(getattr(self.model, "function_evaluations", before)) - int(before)


def flat_gradient(model: nn.Module) -> Float[Tensor, " parameters"]:
    """Return the gradient of all parameters in one vector, in double precision."""
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(gradients).double()


class Reading(NamedTuple):
    """Seconds that one step took.

    Attributes:
        cpu: CPU time of this thread.
        wall: Wall-clock time.
    """

    cpu: float
    wall: float


def require_equal_size(ours: Step, peers: Sequence[Step]) -> None:
    """Assert that all models have as many parameters as ours."""
    size, *sizes = [sum(p.numel() for p in step.model.parameters()) for step in (ours, *peers)]
    assert sizes == [size] * len(peers)


def require_equal_gradient(ours: Step, peer: Step, tolerance: float = 1e-4) -> None:
    """Assert that a peer with our weights has our loss and our gradient, up to the order of both.

    The order of parameters differs between libraries, so the numbers are compared sorted.

    Args:
        ours: Our step.
        peer: A step with the same weights.
        tolerance: Largest error of the loss, and of the gradient, over their sizes.
    """
    (loss, gradient), (other, others) = ours.loss_and_gradient(), peer.loss_and_gradient()
    assert other == pytest.approx(loss, rel=tolerance, abs=tolerance)
    others = others[others != 0]  # masked weights have none, and some libraries do not store them
    gradient = gradient[gradient != 0]
    assert len(others) == len(gradient)
    error = (others.sort().values - gradient.sort().values).norm() / gradient.norm()
    assert error.item() < tolerance


class InterleavedTiming:
    """Interleaved timing of our step, those of the peers, and the floor.

    Args:
        ours: Our step; pytest-benchmark's own columns are about this one.
        peers: The others.
        floor: What a step cannot do without (:mod:`floors`), or None.
    """

    def __init__(
        self, ours: Contestant, peers: Sequence[Contestant], floor: Contestant | None = None
    ) -> None:
        self.ours, self.peers, self.floor = ours, list(peers), floor
        self.everyone = [ours, *self.peers, *([floor] if floor else [])]
        self.readings: dict[str, list[Reading]] = {each.name: [] for each in self.everyone}
        self._random = random.Random(SEED)
        self._waiting: list[Contestant] = []

    def run(self, benchmark: BenchmarkFixture) -> None:
        """Measure as many rounds as the time allows, and leave the result in ``extra_info``."""
        self._round()
        started = time.perf_counter()
        self._round()
        affordable = int(SECONDS / (time.perf_counter() - started))
        for readings in self.readings.values():
            readings.clear()
        rounds = min(max(affordable, FEWEST_ROUNDS), MOST_ROUNDS)
        benchmark.pedantic(
            lambda: self._measure(self.ours),
            setup=self._before,
            teardown=self._measure_waiting,
            rounds=rounds,
        )
        if benchmark.enabled:
            benchmark.extra_info.update(self.result())

    def result(self) -> dict[str, Any]:
        """Return times, evaluations and ratios, ready for JSON.

        ``clock`` says which ratio to trust: the thread's CPU time, which waits for no other
        process, or the wall clock where a GPU does the work. Ratios are a peer's time over ours,
        the fastest peer first, and ours over the floor's.
        """
        clock = "wall" if self.ours.is_cuda else "cpu"
        peers = [{**self._described(p), **self._ratios(p, self.ours)} for p in self.peers]
        result: dict[str, Any] = {
            "clock": clock,
            "ours": self._described(self.ours),
            "peers": sorted(peers, key=lambda peer: peer[f"{clock}_ratio"]),
        }
        if self.floor:
            ratios = self._ratios(self.ours, self.floor)
            result["floor"] = {**self._described(self.floor), **ratios}
        return result

    def _round(self) -> None:
        self._before()
        self._measure(self.ours)
        self._measure_waiting()

    def _before(self) -> None:
        """Let the peers step whose turn is before ours; the others wait."""
        order = self.everyone.copy()
        self._random.shuffle(order)
        turn = order.index(self.ours)
        for step in order[:turn]:
            self._measure(step)
        self._waiting = order[turn + 1 :]

    def _measure_waiting(self) -> None:
        for step in self._waiting:
            self._measure(step)

    def _measure(self, step: Contestant) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        step()
        reading = Reading(time.thread_time() - cpu, time.perf_counter() - wall)
        self.readings[step.name].append(reading)

    def _described(self, step: Contestant) -> dict[str, Any]:
        cpu, wall = np.transpose(self.readings[step.name])
        return {
            "name": step.name,
            "evaluations": step.evaluations(),
            "cpu_seconds": cpu.tolist(),
            "wall_seconds": wall.tolist(),
        }

    def _ratios(self, above: Contestant, below: Contestant) -> dict[str, Any]:
        ratios = np.divide(self.readings[above.name], self.readings[below.name])
        return {
            "cpu_ratio": median_with_interval(ratios[:, 0]),
            "wall_ratio": median_with_interval(ratios[:, 1]),
        }


def median_with_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Return the median and an interval that covers the true one with ``CONFIDENCE`` or more."""
    ordered = np.sort(values)
    low = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5)) - 1
    return float(np.median(ordered)), float(ordered[low]), float(ordered[-1 - low])
