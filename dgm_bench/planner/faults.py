"""How long a run takes that fails, and is preempted, now and then.

Both come at random, as exponential times. After a failure a run goes on from its last checkpoint;
before a preemption it saves, and loses nothing. Then it starts anew, which may be interrupted too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dgm_bench.errors import UsageError
from dgm_bench.planner.fleet import PER_MACHINE

#: Of one GPU, between failures that end a run: 419 in 54 days on 16,384 (Llama Team, The Llama 3
#: herd of models, 2024, section 3.3.4).
MTBF_SECONDS = 50_677 * 3600.0
#: An assumption: a machine that costs less is taken away once a day.
PREEMPT_SECONDS = 86_400.0
#: An assumption: a place in the queue, torch, the data, and the checkpoint.
RESTART_SECONDS = 300.0
#: The shortest time between checkpoints: how often runs save by default.
SAVE_SECONDS = 30.0
#: What is saved for each weight: itself and two moments, in float32; and how fast, an assumption.
STATE_BYTES, WRITTEN_PER_SECOND = 12, 1e9
#: Interruptions expected until a run goes on, above which it practically never does.
MOST_TRIES = 10
#: Of more lost times than this the sum is drawn as a normal variate.
MANY = 100


@dataclass(frozen=True)
class Faults:
    """What goes wrong, how often, and what it takes to go on.

    Attributes:
        mtbf_seconds: Mean time between failures of a device; None where none fails.
        preempt_seconds: Mean time between preemptions of a machine of up to eight devices, which a
            run on it shares with nobody else; None where none is taken away.
        restart_seconds: From an interruption until a run goes on.
    """

    mtbf_seconds: float | None = MTBF_SECONDS
    preempt_seconds: float | None = PREEMPT_SECONDS
    restart_seconds: float = RESTART_SECONDS

    def of(self, devices: int, weights: float) -> Interruptions:
        """Return what interrupts a run on so many devices, and when it saves.

        Raises:
            UsageError: It would hardly ever get from one checkpoint to the next.
        """
        failures = devices / self.mtbf_seconds if self.mtbf_seconds else 0.0
        machines = math.ceil(devices / PER_MACHINE)
        preemptions = machines / self.preempt_seconds if self.preempt_seconds else 0.0
        saving = STATE_BYTES * weights / WRITTEN_PER_SECOND if failures else 0.0
        every = max(SAVE_SECONDS, math.sqrt(2 * saving / failures)) if failures else math.inf
        found = Interruptions(failures, preemptions, self.restart_seconds, every, saving)
        for option, tries in (
            ("--mtbf", failures * max(every + saving, self.restart_seconds) if failures else 0.0),
            ("--preempt-every", preemptions * self.restart_seconds),
        ):
            if tries > MOST_TRIES:
                reason = "so often interrupted, a run would hardly ever end"
                raise UsageError(option, reason, "name a longer time, or none")
        return found


@dataclass(frozen=True)
class Interruptions:
    """What interrupts one run.

    Attributes:
        failures: Per second.
        preemptions: Per second.
        restart: Seconds from an interruption until it goes on.
        every: Seconds of work between two checkpoints: Young's first-order optimum (A first order
            approximation to the optimum checkpoint interval, 1974), where it is not shorter than
            the suite saves anyway.
        saving: Seconds that a checkpoint takes.
    """

    failures: float
    preemptions: float
    restart: float
    every: float
    saving: float

    @property
    def rate(self) -> float:
        """Interruptions per second, of either kind."""
        return self.failures + self.preemptions

    def _segments(self, seconds: float) -> list[tuple[int, float]]:
        """Return numbers and lengths of the stretches of work that a failure sets back."""
        if math.isinf(self.every):
            return [(1, seconds)]
        whole = int(seconds // self.every)
        return [(whole, self.every + self.saving), (1, seconds - whole * self.every)]

    def expected(self, seconds: float) -> float:
        """Return the mean time that work of so many seconds takes.

        Daly (A higher order estimate of the optimum checkpoint interval, 2006, equation 13) for
        failures; each preemption adds a restart.
        """
        worked = sum(count * _stretched(self.failures, s) for count, s in self._segments(seconds))
        return worked * math.exp(self.rate * self.restart)

    def drawn(
        self, seconds: float, draws: int, generator: np.random.Generator
    ) -> Float[np.ndarray, " draws"]:
        """Return times that work of so many seconds takes.

        Args:
            seconds: Without interruptions.
            draws: How many times.
            generator: Its noise.
        """
        worked, restarts = np.zeros(draws), np.zeros(draws, int)
        for count, length in self._segments(seconds):
            lost, times = _lost(np.full(draws, count), self.failures, length, generator)
            worked += count * length + lost
            restarts += times
        restarts += generator.poisson(self.preemptions * worked)
        again, _ = _lost(restarts, self.rate, self.restart, generator)
        taken: Float[np.ndarray, " draws"] = worked + restarts * self.restart + again
        return taken


def _stretched(rate: float, seconds: float) -> float:
    """Return the mean time until so many seconds pass without an event."""
    return math.expm1(rate * seconds) / rate if rate else seconds


def _lost(
    successes: Int[np.ndarray, " draws"],
    rate: float,
    seconds: float,
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, " draws"], Int[np.ndarray, " draws"]]:
    """Return the time lost in tries that an event ended, and their number.

    Args:
        successes: How many stretches have to pass without an event.
        rate: Of events, per second.
        seconds: Of a stretch.
        generator: Its noise.
    """
    times = np.zeros(len(successes), int)
    some = successes > 0
    if rate and seconds and some.any():
        chance = math.exp(-rate * seconds)
        times[some] = generator.negative_binomial(successes[some], chance)
    return _sums(times, rate, seconds, generator), times


def _sums(
    times: Int[np.ndarray, " draws"], rate: float, seconds: float, generator: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return sums of so many exponential times, each known to be shorter than ``seconds``."""
    few = np.where(times > MANY, 0, times)
    uniform = generator.random(few.sum())
    single = -np.log1p(uniform * math.expm1(-rate * seconds)) / (rate or 1.0)
    sums = np.bincount(np.repeat(np.arange(len(few)), few), weights=single, minlength=len(few))
    mean, deviation = _truncated(rate, seconds)
    noise = generator.standard_normal(len(times))
    many = times * mean + np.sqrt(times) * deviation * noise
    return np.where(times > MANY, many, sums)


def _truncated(rate: float, seconds: float) -> tuple[float, float]:
    """Return mean and standard deviation of an exponential time shorter than ``seconds``."""
    if rate * seconds < 1e-3:  # nearly uniform
        return seconds / 2, seconds / math.sqrt(12)
    odds = math.expm1(rate * seconds)
    mean = 1 / rate - seconds / odds
    square = 2 / rate**2 - (seconds**2 + 2 * seconds / rate) / odds
    return mean, math.sqrt(square - mean**2)
