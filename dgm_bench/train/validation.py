"""Validation: what is measured, which parameters are the best, and when the rate drops."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.control import Interrupted
from dgm_bench.data.class_rows import inputs_with_classes
from dgm_bench.data.dataset import Dataset
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import log_likelihoods
from dgm_bench.models.capabilities import (
    AdversarialGame,
    CalibratesOnData,
    DrawsImages,
    HasLogProb,
    SolvesODE,
)
from dgm_bench.models.precise import widest
from dgm_bench.models.whole_batch import by_slices
from dgm_bench.spec import Stage
from dgm_bench.train.games import COLLAPSED, compare, compared
from dgm_bench.train.losses import Objective
from dgm_bench.train.state import TrainingState


class Validation:
    """Measures a stage's model on the examples held out, and draws the consequences.

    Args:
        stage: The recipe's stage.
        data: Its ``val`` split, or ``test`` where it has none.
        objective: What is measured of a model without a density.
        state: Of the training; its best parameters, patience and rate are kept up to date.
        seed: Of the run; decides the objective's noise.
    """

    def __init__(
        self, stage: Stage, data: Dataset, objective: Objective, state: TrainingState, seed: int
    ) -> None:
        self.stage, self.data, self.objective = stage, data, objective
        self.state, self.seed = state, seed
        self.examples = data.splits["val" if "val" in data.splits else "test"]
        self.classes = data.labels.get("val", data.labels.get("test"))
        #: What is to be told of the last validation besides its value, if anything.
        self.remark = ""
        self._collapsed = False

    def due(self) -> bool:
        """Say whether the stage wants a validation after the step that was just taken."""
        rule, sampler = self.stage.validation, self.state.sampler
        if rule.unit == "steps":
            return self.state.tally.step % rule.every == 0
        return sampler.position == 0 and sampler.epoch % rule.every == 0

    def measure(self) -> float:
        """Return the negative log-likelihood in nats or, without one, the mean objective.

        Of a game of images, it is the distance between samples and examples.

        Raises:
            Interrupted: It is time to stop; the training's noise is as it was before.
            RunFailure: It is not a number, or below all.
        """
        state = self.state
        before = state.noise.get_state(), state.function_evaluations
        state.model.eval()
        try:
            with state.averaged(), state.gathered(), state.mixed_precision():
                loss = self._measured(state.model)
        except Interrupted:
            state.noise.set_state(before[0])
            if isinstance(state.model, SolvesODE) and before[1] is not None:
                state.model.function_evaluations = before[1]
            raise
        finally:
            state.model.train()
        if math.isnan(loss) or loss == -math.inf:
            raise state.diverged(f"the validation loss is {loss}")
        return loss

    def _measured(self, model: nn.Module) -> float:
        if isinstance(model, CalibratesOnData):
            model.calibrate(self.data.splits["train"])
        if isinstance(model, HasLogProb):
            return self._negative_log_likelihood(model)
        if isinstance(model, AdversarialGame) and isinstance(model, DrawsImages):
            return self._distance_of_samples(model)
        return self._mean_objective()

    def take_in(self, value: float) -> None:
        """Keep the parameters if they are the best so far, else count; lower the rate if due."""
        tally = self.state.tally
        tally.validations += 1
        tally.last_validation = value
        if tally.best is None or value < tally.best:
            tally.best, tally.best_step, tally.bad_validations = value, tally.step, 0
            self.state.keep_best()
        elif self.state.sampler.epoch >= self.stage.stopping.patience_from:
            tally.bad_validations += 1
        self.state.schedule.after_validation(tally.bad_validations)

    def _negative_log_likelihood(self, model: nn.Module) -> float:
        rule, noise = self.stage.validation, self.state.noise
        values, _ = log_likelihoods(model, self.data, self.examples, rule, noise)
        return float(-values.mean())

    def _distance_of_samples(self, game: AdversarialGame) -> float:
        """Return how far samples are from examples, and remark if the generator has collapsed."""
        device = self.state.device
        own = torch.Generator(device).manual_seed(self.seed)
        inputs = self.data.dequantised(compared(self.examples).to(device), own)
        if self.stage.data.with_classes and self.classes is not None:
            inputs = inputs_with_classes(inputs, self.classes[: len(inputs)].to(device))
        found = compare(game, inputs, self.stage.validation.batch_size, own)
        before, self._collapsed = self._collapsed, found.variance < COLLAPSED
        part = f"its samples have {found.variance:.2%} of the variance of held-out examples"
        self.remark = f"the generator has collapsed: {part}" if self._collapsed > before else ""
        return found.distance

    @torch.no_grad()
    def _mean_objective(self) -> float:
        """Return the objective, for a model without a density; its noise never changes.

        The mean is over examples: an objective is itself a mean over those of its batch.
        """
        device, step, model = self.state.device, self.state.tally.step, self.state.model
        noise = torch.Generator(device).manual_seed(self.seed)
        total = torch.zeros((), dtype=widest(device), device=device)

        def of_examples(own: Num[Tensor, "own *event"]) -> Float[Tensor, "1"]:
            return (self.objective(model, own, step, noise).total * len(own)).view(1)

        def objective(part: Num[Tensor, "batch *event"]) -> Tensor:
            batch = self.data.dequantised(part.to(device), noise)
            return by_slices(of_examples, batch).sum()

        for part in each(self.examples.split(self.stage.validation.batch_size), objective, noise):
            total += part
        return total.item() / len(self.examples)
