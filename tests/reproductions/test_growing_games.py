"""Recipes of games that grow: the authors' constants, what is built of them, and what it takes."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dgm_bench.catalog import load_catalog
from dgm_bench.data import card
from dgm_bench.models.build import build
from dgm_bench.train.objectives import build_objective

CELLS = {
    (cell.row.id, cell.recipe.stages[0].data.name): cell.recipe
    for cell in load_catalog().cells
    if (cell.paper, cell.table) == ("gan", "images")
    and cell.row.id in ("progan", "stylegan")
    and cell.recipe is not None
}
every_recipe = pytest.mark.parametrize("key", CELLS, ids="-".join)


def built(stage, device):
    with torch.device(device):
        return build(stage.model, card(stage.data.name).event_shape)


@every_recipe
def test_games_are_full_grown_long_before_they_end(key):
    (stage,) = CELLS[key].stages
    turns = stage.objective.args["discriminator_steps"]
    images = stage.batch_size * stage.stopping.max_steps // (2 if turns else 1)
    growth = built(stage, "meta").growth
    assert growth.level(0) == growth.start
    assert growth.level(images * 3 // 4) == growth.top


@every_recipe
def test_declared_weights_are_those_of_the_model(key):
    (stage,) = CELLS[key].stages
    weights = sum(p.numel() for p in built(stage, "meta").parameters())
    assert CELLS[key].cost.weights == pytest.approx(weights, rel=0.03)


def test_large_generators_are_those_of_the_papers():
    for row, count in (("progan", 23_079_115), ("stylegan", 26_219_627)):
        (stage,) = CELLS[row, "ffhq-1024"].stages
        model = built(stage, "meta")
        assert sum(p.numel() for p in model.generator.parameters()) == count


def test_progan_on_cifar10_is_the_authors_configuration():
    """config.py of the Theano version: kimg 20,000, 400 and 400; lambda 10, target 750, both."""
    (stage,) = CELLS["progan", "cifar10-labelled"].stages
    args, loss = stage.model.args, stage.objective.args
    assert stage.batch_size * stage.stopping.max_steps == 20_000_000
    assert (args["latent"], args["start"], args["stable"], args["fade"]) == (
        128,
        4,
        400_000,
        400_000,
    )
    assert [min(4096 // 2**level, 128) for level in (1, 2, 3, 4)] == args["filters"]
    assert (loss["gradient_penalty"], loss["gradient_target"], loss["drift"]) == (10, 750, 0.001)
    assert loss["discriminator_steps"] is None
    assert (stage.optimizer.lr, stage.optimizer.betas, stage.average_decay) == (
        1e-3,
        (0, 0.99),
        0.999,
    )


class Operations(TorchDispatchMode):
    """Counts those of products and convolutions, in gradients of gradients too."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=out)
        return out


@pytest.mark.parametrize("row", ["progan", "stylegan"])
def test_declared_operations_are_those_of_steps(row, generator):
    """On average over training; a step of each player at each of five times, for few images."""
    recipe, fewer = CELLS[row, "digits-labelled"], 8
    (stage,) = recipe.stages
    model, n = built(stage, "cpu").train(), stage.batch_size // fewer
    growth = model.growth
    model.growth = replace(growth, stable=growth.stable // fewer, fade=growth.fade // fewer)
    objective, x = build_objective(stage.objective), torch.rand(n, 1, 8, 8)
    times = [2 * int(stage.stopping.max_steps // 2 * (k + 0.5) / 5) for k in range(5)]
    with Operations() as operations:
        for step in times:
            for own in (step, step + 1):
                objective(model, x, own, generator).total.backward()
    found = operations.count / 10 * fewer
    assert recipe.cost.flops_per_step == pytest.approx(found, rel=0.15)
