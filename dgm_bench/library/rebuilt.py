"""A model as it was evaluated, from its recipe and its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import ResultsError, shortened
from dgm_bench.metrics.evaluate import prepare
from dgm_bench.models.build import build
from dgm_bench.models.codes.two_stage import compose
from dgm_bench.models.revisions import current
from dgm_bench.spec import Recipe
from dgm_bench.train.latents import code_shape
from dgm_bench.train.precision import dtype_of


def rebuilt(
    recipe: Recipe, seed: int, data: Dataset, weights: bytes, where: Path | str
) -> nn.Module:
    """Return a model in evaluation mode, on the device of its data.

    Args:
        recipe: Of the run.
        seed: Of the run: some models draw their masks and orders from it.
        data: The data set, on the device and in the precision to compute in.
        weights: As a run wrote them.
        where: What they are of, for messages.

    Raises:
        ResultsError: They are no weights, or of another model; or the code of the model gives
            other numbers since.
    """
    if current(recipe).revisions != recipe.revisions:
        reason = "is of an earlier revision of its model's code, which gives other numbers now"
        raise ResultsError(where, reason, "run its cell again")
    device = data.splits["train"].device if data.resident else torch.device("cpu")
    model = _untrained(recipe, seed, data.event_shape).to(device)
    try:
        model.load_state_dict(from_safetensors(weights))
    except (SafetensorError, RuntimeError) as error:
        reason = f"holds no weights of {type(model).__name__}: {shortened(str(error))}"
        raise ResultsError(where, reason, "name weights of this very recipe") from error
    prepare(model, data, recipe.evaluation)
    return model


def _untrained(recipe: Recipe, seed: int, event_shape: tuple[int, ...]) -> nn.Module:
    """Return the model of all stages as a run begins with it; torch's own noise is left alone."""
    models: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        for index, stage in enumerate(recipe.stages):
            torch.default_generator.manual_seed(seed + index)
            source = stage.data.codes_of
            shape = event_shape if source is None else code_shape(models[source], source)
            models[stage.name] = build(stage.model, shape).to(dtype_of(stage))
    return compose(recipe.stages, list(models.values()))
