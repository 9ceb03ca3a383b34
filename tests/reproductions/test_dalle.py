"""DALL-E's declarations: the paper's sizes, and rows that differ in what they say."""

import pytest
import torch

from dgm_bench.catalog import load_catalog
from dgm_bench.data import card
from dgm_bench.data.captions import CAPTIONS, KNOWN
from dgm_bench.models.build import build
from dgm_bench.models.codes.priors import byte_pairs
from dgm_bench.models.codes.two_stage import compose
from dgm_bench.train.latents import code_shape

CELLS = {(cell.row.id, cell.column.id): cell for cell in load_catalog().table("dalle/joint").cells}


def stages(row, column):
    return {stage.name: stage for stage in CELLS[row, column].recipe.stages}


def built(recipe, shape):
    models = []
    for stage in recipe.stages:
        codes_of = stage.data.codes_of
        models.append(build(stage.model, code_shape(models[0], codes_of) if codes_of else shape))
    compose(recipe.stages, models)
    return models


def test_the_papers_transformer_has_12_billion_weights(monkeypatch):
    """Section 2.2 and appendix B; without memory."""
    monkeypatch.setattr(byte_pairs, "DRAWS", 1)
    recipe = CELLS["joint", "imagenet-256-image-nll"].recipe
    with torch.device("meta"):
        _, joint = built(recipe, (3, 256, 256))
    weights = sum(parameter.numel() for parameter in joint.parameters())
    assert weights == pytest.approx(12e9, rel=0.05)
    assert recipe.cost.weights == pytest.approx(weights, rel=0.05)
    assert joint.grids == ((32, 32),)
    assert joint.codebook_sizes == (8192,)
    assert joint.patterns.count("column") == 16
    assert joint.transformer.width // joint.transformer.heads == 64


def test_the_papers_optimiser():
    """Appendix B.2."""
    stage = stages("joint", "imagenet-256-image-nll")["joint"]
    assert stage.optimizer.name == "adamw"
    assert (stage.optimizer.lr, stage.optimizer.weight_decay) == (4.5e-4, 4.5e-2)
    assert stage.optimizer.betas == (0.9, 0.96)
    assert (stage.clip_norm, stage.batch_size, stage.stopping.max_steps) == (4.0, 1_024, 430_000)
    assert (stage.schedule.warmup_steps, stage.schedule.factor) == (5_000, 0.5)
    assert len(stage.schedule.drops) == 5
    assert stage.average_decay**25 == pytest.approx(0.99, abs=1e-4)
    assert stage.objective.args == {"text_weight": 1 / 8}


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_rows_differ_in_what_they_say_alone(data):
    column = f"{data}-image-nll"
    joint, dense, given = (stages(row, column) for row in ("joint", "dense", "text-given"))
    assert joint["autoencoder"] == dense["autoencoder"] == given["autoencoder"]
    changed = {**joint["joint"].model.args, "attention": "dense"}
    assert changed == dense["joint"].model.args
    assert given["joint"].model == joint["joint"].model
    assert given["joint"].objective.args == {"text_weight": 0.0}
    assert joint["joint"].objective.args == {"text_weight": 1 / 8}


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_small_models_are_built_and_belong_together(data):
    recipe = CELLS["joint", f"{data}-image-nll"].recipe
    name = recipe.stages[0].data.name
    _, joint = built(recipe, card(name).event_shape)
    assert joint.classes == card(name).classes == len(CAPTIONS)
    assert recipe.stages[1].model.args["known"] == KNOWN
    assert joint.patterns[-1] == "convolutional"
    assert "column" in joint.patterns


def test_runs_of_one_recipe_serve_several_rows():
    recipes = {row: CELLS[row, "digits-caption-held-out"].recipe for row, _ in CELLS
               if (row, "digits-caption-held-out") in CELLS}  # fmt: skip
    assert recipes["joint"] == recipes["joint-reranked"] == recipes["joint-reconstructions"]
    assert len({recipe.content_hash for recipe in recipes.values()}) == 4
