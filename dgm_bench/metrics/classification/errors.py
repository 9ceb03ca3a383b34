"""How often a classifier is wrong, what its gradient takes, and what a solver's tolerance does.

The columns of neural ODEs' Table 1, and its figure 3 (Chen et al. 2018,
https://arxiv.org/abs/1806.07366, section 3).
"""

from __future__ import annotations

import copy
import math
import time
from functools import partial
from statistics import median
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.control import ask
from dgm_bench.data.class_rows import as_inputs, without_classes
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.gradients.memory import SavedMemory
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasClassLogits, SolvesODE
from dgm_bench.records import Metric

#: Images at a time, images of a gradient that is measured, and timings of it.
BATCH, IMAGES, REPEATS = 1_000, 32, 5
TOLERANCES = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5")  # relative and absolute
MIB = 2**20


@metric("classification", needs=HasClassLogits, words="a classifier of images")
def classification_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return ``test-error`` in per cent, and the mean of ``-log p(class | image)`` in nats.

    Raises:
        RunFailure: A log probability is not finite.
    """
    split, how = evaluation.spec.split, evaluation.protocol
    losses, wrong = _losses_and_errors(evaluation, evaluation.model)
    require_finite(losses, "the log probability", f"{split} images")
    return [
        error_rate("test-error", wrong, split, how),
        mean_metric("class-nll", losses, "nats", split, how),
        Metric(
            name="parameters",
            value=sum(p.numel() for p in evaluation.model.parameters()) / 1e6,
            se=None,
            n=1,
            unit="million",
            direction="none",
            split=split,
            protocol="all weights and biases",
        ),
    ]


@metric("gradient-costs", needs=HasClassLogits, words="a classifier of images")
def gradient_costs(evaluation: Evaluation) -> list[Metric]:
    """Return what the gradient of the loss of 32 images takes.

    ``gradient-memory`` is what it holds for its backward pass, in MiB, without parameters and
    images; ``gradient-seconds`` is of the machine at hand. A model with a solver also has its
    ``forward-evaluations`` and ``backward-evaluations`` of the dynamics.
    """
    gradient = _Gradient(evaluation, evaluation.model)
    return [*gradient.memory_and_evaluations(""), gradient.seconds()]


@metric("tolerances", needs=SolvesODE, words="a solver")
def tolerance_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return error, evaluations and a gradient's memory at other tolerances than the training's.

    Names end with the tolerance: ``test-error-1e-2``, ``forward-evaluations-1e-2`` (on the way to
    the loss of 32 images), ``backward-evaluations-1e-2``, ``gradient-memory-1e-2``.
    """
    found: list[Metric] = []
    for label in TOLERANCES:
        ask()
        model = copy.deepcopy(evaluation.model)
        cast(SolvesODE, model).solve_with(rtol=float(label), atol=float(label))
        how = f"rtol and atol {label} in place of the training's; {evaluation.protocol}"
        _, wrong = _losses_and_errors(evaluation, model)
        found.append(error_rate(f"test-error-{label}", wrong, evaluation.spec.split, how))
        found += _Gradient(evaluation, model).memory_and_evaluations(f"-{label}")
    return found


def error_rate(name: str, wrong: Num[Tensor, " n"], split: str, protocol: str) -> Metric:
    """Return the share of wrong classes in per cent, with its binomial standard error.

    Args:
        name: Of the metric.
        wrong: 1 for each example whose most probable class is another than its own, else 0.
        split: That the examples are of.
        protocol: In words.
    """
    n, rate = len(wrong), wrong.double().mean().item()
    return Metric(
        name=name,
        value=100 * rate,
        se=100 * math.sqrt(rate * (1 - rate) / n),
        n=n,
        unit="%",
        direction="lower",
        split=split,
        protocol=f"most probable class; {protocol}",
    )


@torch.no_grad()
def _losses_and_errors(
    evaluation: Evaluation, model: nn.Module
) -> tuple[Float[Tensor, " n"], Num[Tensor, " n"]]:
    """Return ``-log p(class | image)`` in float64, and whether the best class is another."""
    found = list(each(evaluation.examples.split(BATCH), partial(_of_rows, evaluation, model)))
    losses, wrong = torch.cat(found).unbind(1)
    return losses, wrong


def _of_rows(
    evaluation: Evaluation, model: nn.Module, rows: Num[Tensor, "n row"]
) -> Float[Tensor, "n 2"]:
    classifier = cast(HasClassLogits, model)
    inputs = as_inputs(rows.to(evaluation.device)).to(_precision(model))
    images, classes = without_classes(inputs, classifier.image_shape)
    logits = classifier.class_logits(images).double()
    losses = F.cross_entropy(logits, classes, reduction="none")
    return torch.stack([losses, (logits.argmax(1) != classes).double()], dim=1)


def _precision(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


class _Gradient:
    """The gradient of the loss of the first images, as often as it is asked for."""

    def __init__(self, evaluation: Evaluation, model: nn.Module) -> None:
        self.evaluation, self.model = evaluation, model
        rows = as_inputs(evaluation.examples[:IMAGES].to(evaluation.device))
        self.rows = rows.to(_precision(model))

    def memory_and_evaluations(self, suffix: str) -> list[Metric]:
        """Return memory and, where there is a solver, evaluations; names end with the suffix."""
        start = self._evaluations()
        with SavedMemory([*self.model.parameters(), self.rows]) as memory, torch.enable_grad():
            loss = self._loss()
            turn = self._evaluations()
            torch.autograd.grad(loss, tuple(self.model.parameters()))
        found = [self._metric(f"gradient-memory{suffix}", memory.peak / MIB, "MiB")]
        if isinstance(self.model, SolvesODE):
            ways = {"forward": turn - start, "backward": self._evaluations() - turn}
            for way, count in ways.items():
                found.append(self._metric(f"{way}-evaluations{suffix}", count, "evaluations"))
        return found

    def seconds(self) -> Metric:
        """Return the median time of several gradients."""
        taken = []
        for _ in range(REPEATS):
            ask()
            start = time.perf_counter()
            with torch.enable_grad():
                parts = torch.autograd.grad(self._loss(), tuple(self.model.parameters()))
            # Reading a number waits for devices that work on their own.
            parts[0].sum().item()
            taken.append(time.perf_counter() - start)
        spread = f"median of {REPEATS}, from {min(taken):.2g} to {max(taken):.2g}"
        return self._metric("gradient-seconds", median(taken), "s", spread)

    def _loss(self) -> Float[Tensor, ""]:
        classifier = cast(HasClassLogits, self.model)
        images, classes = without_classes(self.rows, classifier.image_shape)
        return F.cross_entropy(classifier.class_logits(images), classes)

    def _evaluations(self) -> int:
        return self.model.function_evaluations if isinstance(self.model, SolvesODE) else 0

    def _metric(self, name: str, value: float, unit: str, how: str = "parameters apart") -> Metric:
        count = len(self.rows)
        return Metric(
            name=name,
            value=float(value),
            se=None,
            n=count,
            unit=unit,
            direction="lower",
            split=self.evaluation.spec.split,
            protocol=f"loss of {count} images; {how}; {self.evaluation.protocol}",
        )
