"""The table of pixels: what is published, what follows of the released sizes, ours."""

import pytest
import torch

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.data import card
from dgm_bench.models.build import build
from dgm_bench.spec import Cell

# Test set of CIFAR-10, bits/dim.
PUBLISHED = {
    "pixelrnn": "3.00",
    "gated-pixelcnn": "3.03",
    "pixelcnnpp": "2.92",
    "pixelsnail": "2.85",
}
TABLE = load_catalog().table("pixels/density")
CELLS = {(cell.row.id, cell.column.id): cell for cell in TABLE.cells}
RUNNABLE = [cell for cell in TABLE.cells if cell.recipe]
#: 53 million are said of PixelCNN++'s released sizes by third parties; see the README.
PARAMETERS = {"pixelcnnpp": 53_659_080, "pixelsnail": 46_021_908}


def parameters(cell: Cell) -> int:
    assert cell.recipe is not None
    with torch.device("meta"):
        model = build(cell.recipe.stages[0].model, card(cell.column.data).event_shape)
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_published_numbers_are_those_transcribed():
    found = {key: str(cell.published.value) for key, cell in CELLS.items() if cell.published}
    wanted = {(row, "cifar10"): value for row, value in PUBLISHED.items()}
    bounds = {"vae": "4.51", "vqvae": "4.67", "vimco": "5.14"}
    assert found == wanted | {(row, "cifar10-bound"): value for row, value in bounds.items()}
    second_hand = {"pixelrnn", "gated-pixelcnn", "pixelsnail"}
    sources = {source.id: source for source in load_catalog().paper("pixels").sources}
    for row in second_hand:
        note = sources[CELLS[row, "cifar10"].published.source].note
        assert note.startswith("second-hand")


@pytest.mark.parametrize("cell", TABLE.cells, ids=lambda cell: cell.id)
def test_every_cell_resolves(cell: Cell):
    if cell.row.id in ("pixelrnn", "gated-pixelcnn", "vae", "vimco"):
        assert cell.no_recipe
    else:
        assert runnable(cell) == (True, "")


@pytest.mark.parametrize("cell", RUNNABLE, ids=lambda cell: cell.id)
def test_costs_count_the_weights(cell: Cell):
    assert cell.recipe.cost.weights == pytest.approx(parameters(cell), rel=0.1)


@pytest.mark.parametrize("row", PARAMETERS)
def test_the_released_sizes_give_these_models(row):
    cell = CELLS[row, "cifar10"]
    assert parameters(cell) == PARAMETERS[row]
    stage = cell.recipe.stages[0]
    assert stage.optimizer.betas == (0.95, 0.9995)
    assert stage.average_decay == 0.9995
    assert stage.stopping.max_epochs == 5_000
    assert stage.schedule.decay == {"pixelcnnpp": 0.999995, "pixelsnail": 0.999998}[row]
    assert stage.batch_size == {"pixelcnnpp": 12 * 8, "pixelsnail": 8 * 8}[row]


def test_levels_are_those_of_the_images():
    for cell in RUNNABLE:
        levels = cell.recipe.stages[0].model.args["levels"]
        assert levels == (17 if cell.column.data == "digits-levels" else 256)
