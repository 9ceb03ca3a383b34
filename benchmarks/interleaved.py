"""Interleaved timing of training steps, so that a noisy machine slows all of them alike.

In each round every implementation takes one step, in random order, and ratios are computed within
the round. First calls are discarded. The result is the median ratio with a confidence interval from
order statistics, which is exact for any distribution of times.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
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


class Step:
    """One training step of a model: loss, gradient, Adam, gradients cleared.

    The learning rate is zero and the noise the same in each step: the arithmetic is that of any
    step, and every round is about the same weights, so adaptive solvers have the same work.

    Args:
        name: Of the library.
        model: Has ``log_prob_estimate`` or ``log_prob``, as our objective asks.
        x: The batch.
    """

    def __init__(self, name: str, model: nn.Module, x: Float[Tensor, "batch dim"]) -> None:
        self.name, self.model, self.x = name, model.to(x.device), x
        self.generator = torch.Generator(x.device)
        self.objective = negative_log_likelihood()
        optimizer = build_optimizer(OptimizerSpec(lr=0.0), model)
        assert optimizer is not None
        self.optimizer = optimizer

    def __call__(self) -> None:
        """Take the step, and wait for the device to be done."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.x.is_cuda:
            torch.cuda.synchronize()

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


class InterleavedTiming:
    """Interleaved timing of our step and those of the peers.

    Args:
        ours: Our step; pytest-benchmark's own columns are about this one.
        peers: The others.
    """

    def __init__(self, ours: Step, peers: Sequence[Step]) -> None:
        self.ours, self.peers = ours, list(peers)
        self.readings: dict[str, list[Reading]] = {step.name: [] for step in (ours, *peers)}
        self._random = random.Random(SEED)
        self._waiting: list[Step] = []

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
        process, or the wall clock where a GPU does the work.
        """
        return {
            "clock": "wall" if self.ours.x.is_cuda else "cpu",
            "ours": self._described(self.ours),
            "peers": [{**self._described(p), **self._ratios(p)} for p in self.peers],
        }

    def _round(self) -> None:
        self._before()
        self._measure(self.ours)
        self._measure_waiting()

    def _before(self) -> None:
        """Let the peers step whose turn is before ours; the others wait."""
        order = [self.ours, *self.peers]
        self._random.shuffle(order)
        turn = order.index(self.ours)
        for step in order[:turn]:
            self._measure(step)
        self._waiting = order[turn + 1 :]

    def _measure_waiting(self) -> None:
        for step in self._waiting:
            self._measure(step)

    def _measure(self, step: Step) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        step()
        reading = Reading(time.thread_time() - cpu, time.perf_counter() - wall)
        self.readings[step.name].append(reading)

    def _described(self, step: Step) -> dict[str, Any]:
        cpu, wall = np.transpose(self.readings[step.name])
        return {
            "name": step.name,
            "evaluations": step.evaluations(),
            "cpu_seconds": cpu.tolist(),
            "wall_seconds": wall.tolist(),
        }

    def _ratios(self, peer: Step) -> dict[str, Any]:
        ratios = np.divide(self.readings[peer.name], self.readings[self.ours.name])
        return {
            "cpu_ratio": median_with_interval(ratios[:, 0]),
            "wall_ratio": median_with_interval(ratios[:, 1]),
        }


def median_with_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Return the median and an interval that covers the true one with ``CONFIDENCE`` or more."""
    ordered = np.sort(values)
    low = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5)) - 1
    return float(np.median(ordered)), float(ordered[low]), float(ordered[-1 - low])
