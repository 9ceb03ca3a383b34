"""Metrics and recipes in words: all are known, and every number that decides is told."""

import re
from fnmatch import fnmatchcase

import pytest

from dgm_bench import data
from dgm_bench.catalog import load_catalog
from dgm_bench.data.cards import DatasetCard
from dgm_bench.report.glossary import METRICS, metric_in_words
from dgm_bench.report.recipe_words import recipe_in_words


@pytest.fixture(scope="module")
def cells():
    return load_catalog().cells


def test_every_metric_has_words_and_all_words_are_of_one(cells):
    names = {cell.column.metric for cell in cells}
    for name in names:
        assert any(fnmatchcase(name, known) for known in METRICS), name
    for known in METRICS:
        assert any(fnmatchcase(name, known) for name in names), known


def test_the_words_of_a_cell_say_unit_direction_and_draws(cells):
    for cell in cells:
        words = metric_in_words(cell)
        assert "{" not in words
        assert ("yes or no" if cell.column.unit == "yes = 1" else cell.column.unit) in words
        better = {"lower": "lower is better", "higher": "higher is better", "none": "neither"}
        assert better[cell.column.direction] in words
    cell = next(cell for cell in cells if cell.id == "iwae/likelihood/iwae-1-50/mnist-nll")
    assert "of 5,000 draws" in metric_in_words(cell)


def test_every_number_that_decides_a_run_is_in_its_words(cells):
    cards = {card.name: card for card in data.cards() if isinstance(card, DatasetCard)}
    recipes = {cell.recipe.content_hash: cell.recipe for cell in cells if cell.recipe}
    for recipe in recipes.values():
        lines = list(recipe_in_words(recipe, cards))
        words = " ".join(text for _, text in lines)
        said = {number.replace(",", "") for number in re.findall(r"[\d,.]+(?:e-?\d+)?", words)}
        said = {number.rstrip(".") for number in said}
        for stage in recipe.stages:
            stop = stage.stopping
            if stop.max_steps == 0:
                continue
            wanted = [stage.batch_size, stop.patience, stop.max_epochs, stop.max_steps]
            wanted += [stage.schedule.cosine_steps, stage.schedule.warmup_steps]
            wanted += [f"{stage.optimizer.lr:g}", stage.clip_norm and f"{stage.clip_norm:g}"]
            missing = {str(number) for number in wanted if number} - said
            assert not missing, (recipe.name, missing, words)
            assert stage.data.name in words or stage.data.codes_of in words
        assert [about for about, _ in lines].count("model") == len(recipe.stages)
        assert set(recipe.evaluation.metrics) <= set(re.findall(r"[\w-]+", words))
