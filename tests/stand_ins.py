"""Data sets and recipes made small, so that every declared recipe can be run in a test.

Sets that need no files are the real ones, cut to their first rows. Of the others there are
stand-ins of the same form: bytes, bits or rows drawn with numpy's seed 0, which go through the
loader's own conventions of images (logits, mirror images, fresh noise) as the files would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from dgm_bench.catalog import load_catalog
from dgm_bench.data import card, class_rows, images, load
from dgm_bench.data.binary_images import as_pixels, bernoulli_draw
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Augment, Dataset
from dgm_bench.data.freyfaces import bits_per_dim
from dgm_bench.data.labelled_images import image_dataset
from dgm_bench.data.levels import level_dataset
from dgm_bench.metrics.images.classifier import ClassifierSettings, settings_for
from dgm_bench.models.build import build
from dgm_bench.models.codes.packing import CODE_TYPE
from dgm_bench.spec import Cell, DataSpec, ImageEvaluationSpec, Recipe, Stage, StoppingSpec

Sizes = Mapping[str, int]
#: The most that arguments of a narrow model are, alone, in a list or within a posterior's: units or
#: channels of a layer, then layers.
NARROW = dict.fromkeys(("features", "filters", "hidden", "residual", "units", "width"), 64)
NARROW |= dict.fromkeys(("blocks", "depth", "flows", "layers"), 2) | {"vectors": 8}


def small_data(spec: DataSpec, sizes: Sizes, event_shape: tuple[int, ...] | None = None) -> Dataset:
    """Return a data set with so many rows in each split.

    Args:
        spec: Which, with the options of its loader.
        sizes: Rows of ``train``, ``val`` and ``test``; a set may have no ``val``.
        event_shape: Of an example, where it is not to be the set's own.
    """
    known = card(spec.name)
    known = replace(known, event_shape=event_shape or known.event_shape)
    options = {name: spec.args.get(name, values[0]) for name, values in known.options.items()}
    if known.embedded:
        return first_rows(whole(spec.name), sizes)
    module = known.loader.split(":")[0]
    if module == "images":
        return _flow_images(known, options, sizes)
    if module in ("labelled_images", "captioned_images", "image_folder"):
        return _pixel_images(known, sizes)
    if module == "class_rows":
        return _class_rows(known, options, sizes)
    if module == "levels":
        return level_dataset(known, _levels(known, sizes))
    return _examples(known, sizes)


@cache
def whole(name: str) -> Dataset:
    """Return a data set that needs no files, loaded once."""
    return load(name, Path("no folder"), offline=True)


def first_rows(data: Dataset, sizes: Sizes) -> Dataset:
    """Return a data set with the first rows of each split."""
    splits = {name: split[: sizes[name]].clone() for name, split in data.splits.items()}
    labels = {name: split[: sizes[name]].clone() for name, split in data.labels.items()}
    return replace(data, splits=splits, labels=labels)


def in_float64(data: Dataset) -> Dataset:
    """Return a data set whose bytes, too, become float64 where they become numbers."""

    def doubled(augment: Augment | None) -> Augment | None:
        return augment and (lambda x, noise: augment(x, noise).double())

    return replace(data, augment=doubled(data.augment), dequantise=doubled(data.dequantise))


def _flow_images(known: DatasetCard, options: Mapping[str, Any], sizes: Sizes) -> Dataset:
    """Return what the loader makes of random bytes in the place of its files."""
    draw = np.random.default_rng(0)
    drawn = {name: _bytes(draw, n, known.event_shape) for name, n in sizes.items()}
    function = getattr(images, known.loader.split(":")[1])
    # In the order of the files: all but the last train.
    held = iter([drawn["train"]] * (len(known.files) - 1) + [drawn["test"]])
    readers = {
        "read_cifar_batch": lambda path: next(held),
        "read_idx": lambda path: next(held)[:, 0],
        "checksums": lambda *found: ({}, False),
        "_validating_on_the_rest": lambda *found, **sized: drawn,
    }
    with patch.multiple(images, **readers):
        made = function(known, Path("no folder"), **options)
    return first_rows(made, {**sizes, "train": 2 * sizes["train"]})  # with mirror images


def _bytes(draw: np.random.Generator, n: int, shape: tuple[int, ...]) -> np.ndarray:
    return draw.integers(256, size=(n, *shape), dtype=np.uint8)


def _class_rows(known: DatasetCard, options: Mapping[str, Any], sizes: Sizes) -> Dataset:
    """Return rows of random bytes of MNIST's size, and their classes."""
    draw, shape = np.random.default_rng(0), (1, 28, 28)
    splits = {}
    for name in known.sizes:
        images = torch.from_numpy(_bytes(draw, sizes[name], shape))
        splits[name] = class_rows.with_classes(images, torch.arange(sizes[name]) % 10)
    return class_rows.rows_dataset(known, splits, shape, **options)


def _pixel_images(known: DatasetCard, sizes: Sizes) -> Dataset:
    """Return random bytes, of the first classes of as many as there are."""
    draw = np.random.default_rng(0)
    splits = {name: torch.from_numpy(_bytes(draw, n, known.event_shape))
              for name, n in sizes.items()}  # fmt: skip
    labels = {name: torch.arange(n) % 10 for name, n in sizes.items()} if known.classes else {}
    return image_dataset(known, splits, labels, tuple(map(str, range(known.classes or 0))))


def _levels(known: DatasetCard, sizes: Sizes) -> dict[str, Tensor]:
    draw = np.random.default_rng(0)
    return {name: torch.from_numpy(_bytes(draw, n, known.event_shape)) for name, n in sizes.items()}


def _examples(known: DatasetCard, sizes: Sizes) -> Dataset:
    """Return images for autoencoders, or rows of a table."""
    draw = np.random.default_rng(0)
    splits = {name: _floats(known, draw, name, n) for name, n in sizes.items()}
    data = Dataset(known.name, "stand-in", splits, unit=known.unit, verified=False)
    if not known.is_image:
        return replace(data, unit="nats")
    _, height, width = known.event_shape
    return replace(
        data,
        image_shape=(1, height, width),
        to_pixels=as_pixels,
        augment=bernoulli_draw if known.name == "omniglot" else None,
        to_unit=bits_per_dim if known.name == "freyfaces" else None,
    )


def _floats(known: DatasetCard, draw: np.random.Generator, split: str, n: int) -> Tensor:
    if not known.is_image:
        return torch.from_numpy(draw.standard_normal((n, known.dim), dtype=np.float32))
    grey = draw.random((n, *known.event_shape), dtype=np.float32)
    stored = grey if _is_grey(known.name, split) else grey.round()
    return torch.from_numpy(stored)


def _is_grey(name: str, split: str) -> bool:
    return name == "freyfaces" or (name == "omniglot" and split == "train")


# ------------------------------------------------------------------------------- codes


def drawn_codes(first: Stage, event_shape: tuple[int, ...], sizes: Sizes) -> Dataset:
    """Return random codes such as the model of a first stage gives images, of ten classes."""
    model = build(first.model, event_shape)
    draw = np.random.default_rng(0)
    splits = {}
    for name, n in sizes.items():
        levels = zip(model.grids, model.codebook_sizes, strict=True)
        codes = [draw.integers(size, size=(n, rows * columns)) for (rows, columns), size in levels]
        row = np.concatenate([*codes, np.arange(n)[:, None] % 10], axis=1)
        splits[name] = torch.from_numpy(row).to(CODE_TYPE)
    return Dataset("codes", "stand-in", splits, verified=False)


# ------------------------------------------------------------------------------- recipes


@cache
def distinct() -> dict[str, Cell]:
    """Return the first cell of each recipe by the recipe's hash, in declared order."""
    cells: dict[str, Cell] = {}
    for cell in load_catalog().cells:
        if cell.recipe is not None:
            cells.setdefault(cell.recipe.content_hash, cell)
    return cells


def one_of_each_kind(largest: int = 500) -> list[Cell]:
    """Return recipes, of small examples first, that have each model with each of its objectives.

    Args:
        largest: Examples have fewer dimensions than this.
    """
    covered: set[tuple[str, str]] = set()
    chosen = []
    for cell in sorted(distinct().values(), key=dimensions):
        kinds = {(stage.model.name, stage.objective.name) for stage in cell.recipe.stages}
        if dimensions(cell) < largest and not kinds <= covered:
            covered |= kinds
            chosen.append(cell)
    return chosen


def dimensions(cell: Cell) -> int:
    """Return the number of dimensions of an example of a cell's data."""
    return card(cell.recipe.stages[0].data.name).dim


def with_loose_solver(stage: Stage) -> Stage:
    """Return a stage whose adaptive solver, if it has one, has tolerances that cost little."""
    model = stage.model.model_copy(update={"args": _loosened(stage.model.args)})
    return stage.model_copy(update={"model": model})


def _loosened(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with other tolerances, also within those of a posterior."""
    return {
        name: 1e-2
        if name in ("rtol", "atol")
        else _loosened(value)
        if isinstance(value, dict)
        else value
        for name, value in args.items()
    }


def few_examples(spec: DataSpec, *, fit: bool) -> Dataset:
    """Return a small set of the same form: where a fit is to exist, 60 more than dimensions."""
    known = card(spec.name)
    if known.loader.startswith(("labelled_images:", "captioned_images:", "image_folder:")):
        return small_data(spec, {"train": 30, "val": 8, "test": 20})
    if spec.args.get("convention") == "ffjord":
        return small_data(spec, {"train": 4, "test": 2})
    train = known.dim + 60 if fit else 80
    return small_data(spec, {"train": train, "val": 6, "test": 6})


def one_step(recipe: Recipe) -> Recipe:
    """Return the recipe with one step of a small batch and, for an ODE, loose tolerances."""
    stages = tuple(shortened(stage) for stage in recipe.stages)
    update: dict[str, Any] = {"model_overrides": {}}
    if recipe.evaluation.importance_samples is not None:
        update |= {"importance_samples": 2, "importance_examples": 3}
    if recipe.evaluation.judge is not None:
        update["judge"] = lenient(recipe.evaluation.judge)
    evaluation = recipe.evaluation.model_copy(update=update)
    return recipe.model_copy(update={"stages": stages, "evaluation": evaluation})


def narrow(recipe: Recipe) -> Recipe:
    """Return the recipe with models of few and narrow layers."""
    stages = []
    for stage in recipe.stages:
        args = {name: _narrowed(name, value) for name, value in stage.model.args.items()}
        model = stage.model.model_copy(update={"args": args})
        stages.append(stage.model_copy(update={"model": model}))
    return recipe.model_copy(update={"stages": tuple(stages)})


def _narrowed(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _narrowed(inner, its) for inner, its in value.items()}
    if isinstance(value, list | tuple):
        return [_narrowed(name, its) for its in value]
    return min(value, NARROW[name]) if name in NARROW and isinstance(value, int) else value


def lenient(judge: ImageEvaluationSpec) -> ImageEvaluationSpec:
    """Return a judge of few images, by features that need no weights of others."""
    few = {"samples": 12, "compared": None, "reference": None, "isc_splits": 2}
    subsets = {"kid_subsets": 2, "kid_subset_size": 5, "features": ("classifier",)}
    return judge.model_copy(update={**few, **subsets})


def shortened(stage: Stage) -> Stage:
    """Return a stage of one step of a small batch."""
    update = {
        "batch_size": min(stage.batch_size, 16),
        "validation": stage.validation.model_copy(update={"batch_size": 16}),
        "stopping": StoppingSpec(max_steps=0 if stage.stopping.max_steps == 0 else 1),
    }
    return with_loose_solver(stage).model_copy(update=update)


def hasty(image_shape: tuple[int, int, int]) -> ClassifierSettings:
    """Return the settings of a classifier that sees its images once."""
    return replace(settings_for(image_shape), epochs=1)
