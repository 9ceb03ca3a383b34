"""The table of VQ-VAE-2: what is published and what is not, runs that rows share, settings."""

from __future__ import annotations

import pytest
import torch

from dgm_bench.catalog import load_catalog
from dgm_bench.data import card
from dgm_bench.models.build import build
from dgm_bench.models.codes.packing import packed_size
from dgm_bench.models.codes.two_stage import compose
from dgm_bench.spec import Recipe, Stage
from dgm_bench.train.latents import code_shape

# What is read at second hand, as printed there; everything else about the paper is unverified.
PUBLISHED = {
    ("real", "cas-top1"): "73.09",
    ("real", "cas-top5"): "91.47",
    ("biggan-deep", "cas-top1"): "42.65",
    ("biggan-deep", "cas-top5"): "65.92",
    ("vqvae-2", "cas-top1"): "54.83",
    ("vqvae-2", "cas-top5"): "77.59",
    ("vqvae-2", "fid"): "31.11",
    ("vqvae-2", "isc"): "45",
    ("vqvae-2", "precision"): "0.36",
    ("vqvae-2", "recall"): "0.57",
    ("vqvae-2-rejection-published", "fid"): "10",
    ("vqvae-2-rejection-published", "isc"): "330",
    ("vqvae-2-reconstructions", "cas-top1"): "58.74",
    ("vqvae-2-reconstructions", "cas-top5"): "80.98",
}
#: Of an unknown unit, unverified, and read off a figure by a third party.
NO_TARGETS = ("3.40", "3.41", "3.45", "0.0047", "0.0050", "2")

TABLE = load_catalog().table("vqvae2/diversity")
CELLS = {(cell.row.id, cell.column.id): cell for cell in TABLE.cells}
RECIPES = {cell.recipe.content_hash: cell.recipe for cell in TABLE.cells if cell.recipe}
SMALL = ("digits", "mnist", "cifar10")
#: Above this many parameters a model is not built in a test.
LARGE = ("imagenet-256", "ffhq-1024")


def recipe(row: str, column: str) -> Recipe:
    found = CELLS[row, column].recipe
    assert found is not None
    return found


def stages(row: str, column: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in recipe(row, column).stages}


# ----------------------------------------------------------------------------- numbers


def test_the_published_numbers_are_those_at_second_hand():
    found = {key: str(cell.published.value) for key, cell in CELLS.items() if cell.published}
    assert found == PUBLISHED


def test_what_cannot_be_compared_is_no_number_of_the_table():
    values = {str(cell.published.value) for cell in CELLS.values() if cell.published}
    assert not values & set(NO_TARGETS)


def test_every_published_number_says_that_it_is_second_hand():
    sources = {source.id: source for source in load_catalog().paper("vqvae2").sources}
    used = {cell.published.source for cell in CELLS.values() if cell.published}
    assert used == set(sources)
    assert all(source.note.startswith("second-hand") for source in sources.values())
    assert sources["fid"].selection == "without rejection"


def test_only_columns_and_rows_of_the_paper_have_published_numbers():
    for cell in CELLS.values():
        if cell.published:
            assert cell.column.published
            assert cell.row.published
            assert cell.column.data == "imagenet-256"


# ----------------------------------------------------------------------------- recipes


def test_every_row_has_recipes_but_the_one_whose_rate_of_rejection_is_not_known():
    for cell in TABLE.cells:
        assert (cell.recipe is None) == (cell.row.id == "vqvae-2-rejection-published"), cell.id


@pytest.mark.parametrize("column", [f"{data}-fid" for data in SMALL])
def test_rejection_and_reconstructions_are_rows_of_the_same_run(column):
    rows = ("vqvae-2", "vqvae-2-rejection", "vqvae-2-reconstructions")
    assert len({recipe(row, column).content_hash for row in rows}) == 1
    metrics = [CELLS[row, column].metric for row in rows]
    name = "classifier-fid"
    assert metrics == [name, f"rejected-{name}", f"reconstruction-{name}"]
    assert recipe("vqvae-2", column).evaluation.judge.keep == 0.5


def test_all_columns_of_a_row_and_a_data_set_are_one_run():
    runs: dict[tuple[str, str, str], set[str]] = {}
    for cell in TABLE.cells:
        if cell.recipe:
            own = str(cell.column.args)
            key = cell.row.id, cell.column.data, own
            runs.setdefault(key, set()).add(cell.recipe.content_hash)
    assert all(len(hashes) == 1 for hashes in runs.values())


def test_real_images_go_through_no_model():
    whole = recipe("real", "digits-fid")
    assert whole.stages[0].model.name == "identity:Identity"
    assert whole.stages[0].stopping.max_steps == 0
    assert whole.evaluation.metrics == ("reconstructions",)
    assert CELLS["real", "cas-top1"].metric == "reconstruction-cas-top1"


def test_rows_that_compare_likelihoods_have_the_same_codes():
    for data in SMALL:
        for column in (f"{data}-nll-top", f"{data}-nll-bottom", f"{data}-nll-codes"):
            rows = [row for row, other in CELLS if other == column]
            assert len(rows) >= 2
            firsts = {recipe(row, column).stages[0].model_dump_json() for row in rows}
            assert len(firsts) == 1, column


def test_rows_differ_where_their_names_say_so():
    plain, three = stages("vqvae-2", "digits-fid"), stages("vqvae-2-three", "digits-fid")
    assert list(plain) == ["autoencoder", "top-prior", "bottom-prior"]
    assert list(three) == ["autoencoder", "top-prior", "middle-prior", "bottom-prior"]
    assert plain["top-prior"].model.name == "pixelsnail:PixelSNAIL"
    assert plain["bottom-prior"].model.name == "pixelcnn:PixelCNN"
    without = stages("vqvae-2-pixelcnn", "digits-fid")
    assert without["top-prior"].model.name == "pixelcnn:PixelCNN"
    for column in SMALL:
        beside = stages("vqvae-2-pixelcnnpp", f"{column}-fid")
        for prior in ("top-prior", "bottom-prior"):
            args = beside[prior].model.args
            assert beside[prior].model.name == "pixelcnnpp:PixelCNNPP"
            coarsest = min(args["grids"][args["level"]]) // 2 ** (args["scales"] - 1)
            assert coarsest >= 2
    for stage in recipe("vqvae-2-unconditional", "digits-fid").stages[1:]:
        assert stage.model.args["classes"] is None
    captions = stages("dvae-text", "cifar10-fid")["prior"].model.args["captions"]
    assert len(set(captions)) == 10


@pytest.mark.parametrize(
    "whole",
    [r for r in RECIPES.values() if r.stages[0].data.name not in LARGE],
    ids=lambda whole: whole.name,
)
def test_small_models_are_built_and_belong_together(whole: Recipe):
    name = whole.stages[0].data.name
    side = {"digits-labelled": (1, 8, 8), "mnist-labelled": (1, 32, 32)}.get(name, (3, 32, 32))
    first = build(whole.stages[0].model, side)
    models = [first]
    for stage in whole.stages[1:]:
        assert stage.data.codes_of == whole.stages[0].name
        assert [list(grid) for grid in first.grids] == stage.model.args["grids"]
        assert stage.model.args["codes"] == first.codebook_sizes[0]
        models.append(build(stage.model, (packed_size(first.grids),)))
    compose(whole.stages, models)


@pytest.mark.parametrize("data", ["digits-labelled", "mnist-labelled", "cifar10-labelled"])
def test_as_many_images_are_compared_as_are_held_out(data):
    judges = [r.evaluation.judge for r in RECIPES.values() if r.stages[0].data.name == data]
    sizes = card(data).sizes
    for judge in judges:
        assert judge.compared == sizes["test"]
        assert judge.samples <= sizes["train"]
    if data == "digits-labelled":
        assert {judge.samples for judge in judges} == {sizes["train"]}


# ----------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("column", "grids", "steps"),
    [("fid", [(32, 32), (64, 64)], 2_207_444), ("ffhq-1024-fid", None, 304_741)],
)
def test_stage_1_is_the_transcribed_table(column, grids, steps):
    first = stages("vqvae-2", column)["autoencoder"]
    args = first.model.args
    assert first.batch_size == 128
    assert (args["hidden"], args["residual_units"], args["residual_layers"]) == (128, 64, 2)
    assert (args["codes"], args["dim"]) == (512, 64)
    assert (args["codebook"], args["decay"]) == ("ema", 0.99)
    assert first.objective.args == {"commitment": 0.25}
    assert first.stopping.max_steps == steps
    side = card(first.data.name).dim // 3
    levels = grids or [(32, 32), (64, 64), (128, 128)]
    below = [round(side**0.5) // stride for stride in _strides(args["strides"])]
    assert [(n, n) for n in reversed(below)] == levels


def _strides(steps: list[int]) -> list[int]:
    found = []
    for step in steps:
        found.append(step * (found[-1] if found else 1))
    return found


# Batch, hidden units, residual units, layers, attention layers, dropout, conditioning, steps.
PRIORS = {
    ("fid", "top-prior"): (1024, 512, 2048, 20, 4, 0.1, 0, 1_600_000),
    ("fid", "bottom-prior"): (512, 512, 1024, 20, 0, 0.1, 20, 754_000),
    ("ffhq-1024-fid", "top-prior"): (1024, 512, 2048, 20, 4, 0.5, 0, 237_000),
    ("ffhq-1024-fid", "middle-prior"): (512, 512, 1024, 20, 1, 0.3, 8, 57_400),
    ("ffhq-1024-fid", "bottom-prior"): (256, 512, 1024, 10, 0, 0.25, 8, 270_000),
}


@pytest.mark.parametrize(("place", "expected"), list(PRIORS.items()), ids=str)
def test_priors_are_the_second_hand_and_recalled_tables(place, expected):
    stage = stages("vqvae-2", place[0])[place[1]]
    args = stage.model.args
    found = (
        stage.batch_size,
        args["hidden"],
        args["residual"],
        args["layers"],
        args.get("attention_layers", 0),
        args["dropout"],
        args["conditioning_layers"],
        stage.stopping.max_steps,
    )
    assert found == expected
    assert args["kernel"] == 5
    assert args["output_layers"] == (20 if place[1] == "top-prior" else 0)
    assert args["classes"] == (1000 if place[0] == "fid" else None)
    if args.get("attention_layers", 0) == 4:
        assert args["heads"] == 8


def test_notes_say_what_was_not_read():
    for column in ("fid", "ffhq-1024-fid"):
        notes = " ".join(recipe("vqvae-2", column).notes)
        assert "recalled, not verified" in notes
        assert "second-hand" in notes
        assert "learning rate" in notes


def test_the_discrete_vae_is_dalle_s():
    first = stages("dvae", "fid")["autoencoder"]
    assert first.model.args["codes"] == 8192
    assert (first.optimizer.name, first.optimizer.lr) == ("adamw", 1e-4)
    assert (first.optimizer.betas, first.optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert first.optimizer.weight_decay == 1e-4
    assert first.schedule.cosine_steps == 1_200_000
    assert first.schedule.cosine_floor * first.optimizer.lr == pytest.approx(1.25e-6)
    assert first.average_decay == 0.999
    assert (first.batch_size, first.stopping.max_steps) == (512, 3_000_000)
    assert first.objective.args == {
        "kl_weight": 6.6,
        "kl_steps": 5_000,
        "temperature": 1 / 16,
        "temperature_steps": 150_000,
    }


# ----------------------------------------------------------------------------- costs


def test_costs_say_how_stages_share_the_time():
    for whole in RECIPES.values():
        shares = whole.cost.stage_shares
        if len(whole.stages) > 1:
            assert len(shares) == len(whole.stages)
            assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_digits_come_first_and_fit_a_quarter_of_an_hour():
    from dgm_bench.planner import Speed, expected_seconds

    first = {c.recipe.content_hash: c.recipe for c in TABLE.cells if c.priority == 30}
    rows = {c.row.id for c in TABLE.cells if c.priority == 30}
    main = {"vqvae-2", "vqvae-2-rejection", "vqvae-2-reconstructions", "real", "vqvae", "dvae"}
    assert rows == main
    assert len(first) == 4
    planned = sum(expected_seconds(r.cost, Speed.cpu(2)) for r in first.values())
    assert planned <= 0.8 * 15 * 60


@pytest.mark.parametrize(
    ("row", "column", "shape"),
    [
        ("vqvae-2", "cas-top1", (3, 256, 256)),
        ("dvae", "cas-top1", (3, 256, 256)),
        ("vqvae-2", "ffhq-1024-fid", (3, 1024, 1024)),
    ],
)
def test_what_is_too_large_for_a_test_is_built_without_memory(row, column, shape):
    whole, models = recipe(row, column), []
    with torch.device("meta"):
        for stage in whole.stages:
            codes_of = stage.data.codes_of
            models.append(
                build(stage.model, code_shape(models[0], codes_of) if codes_of else shape)
            )
    compose(whole.stages, models)
