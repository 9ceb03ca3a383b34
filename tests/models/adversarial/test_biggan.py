"""SAGAN, BigGAN and BigGAN-deep: spectral norms, and sizes as published and declared."""

import pytest
import torch
from games import make
from torch import nn
from torch.nn.utils import parametrize

from dgm_bench.catalog import load_catalog
from dgm_bench.data import card
from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.biggan import BigGAN
from dgm_bench.models.adversarial.biggan_deep import BigGANDeep
from dgm_bench.models.adversarial.sagan import SAGAN
from dgm_bench.models.build import build

CONDITIONAL = ("sagan", "biggan", "biggan-deep")
every_game = pytest.mark.parametrize("case", CONDITIONAL)
CLASSES = torch.tensor([2, 0, 1, 1])


@every_game
def test_spectral_norms_are_one_after_power_iterations(case):
    """Whatever the weights are: by singular values, of every layer but embeddings in batch norm."""
    made = make(case)
    layers = {n: m for n, m in made.named_modules() if hasattr(m, "parametrizations")}
    plain = [
        name
        for name, module in made.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in layers
    ]
    assert layers
    assert not plain
    for layer in layers.values():
        nn.init.normal_(layer.parametrizations.weight.original, std=3.0)
        for _ in range(100):
            layer.weight  # noqa: B018  each use in training is an iteration
    made.eval()
    for name, layer in layers.items():
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert largest == pytest.approx(1.0, abs=1e-2), name


@every_game
def test_evaluation_changes_nothing(case, generator):
    """Power iterations stand still, and so do statistics."""
    made = make(case).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.discriminator(2 * made.draw_images(CLASSES, generator) - 1, CLASSES)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name


# ------------------------------------------------------------------------------- sizes

#: Generator and discriminator at 128x128, in millions: BigGAN's of table 1 (to the parameter, what
#: ajbrock/BigGAN-PyTorch counts), BigGAN-deep's of appendix B.
PUBLISHED = {"biggan": (70.433988, 87.982370), "biggan-deep": (50.4, 34.6)}
DECLARED = {
    f"{cell.row.id}/{cell.column.data}": cell.recipe.stages[0]
    for cell in load_catalog().table("gan/images").cells
    if cell.row.id in CONDITIONAL
}


@pytest.fixture
def plain(monkeypatch):
    """Layers without spectral norms, which have no parameters, and are slow without memory."""
    ignored = lambda layer, *args, **options: layer  # noqa: E731
    monkeypatch.setattr(parametrize, "register_parametrization", ignored)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", DECLARED)
def test_declared_games_have_images_and_scores_of_the_right_shape(name):
    stage = DECLARED[name]
    shape = card(stage.data.name).event_shape
    with torch.device("meta"):
        game = build(stage.model, shape)
        classes = torch.zeros(2, dtype=torch.int64)
        images = game.generator(torch.zeros(2, game.latent), classes)
        assert images.shape == (2, *shape)
        assert game.discriminator(images, classes).shape == (2,)
    row, data = name.split("/")
    if data == "imagenet-128" and row in PUBLISHED:
        for player, published in zip(game.children(), PUBLISHED[row], strict=True):
            found = sum(p.numel() for p in player.parameters()) / 1e6
            assert found == pytest.approx(published, abs=0.05 if row == "biggan-deep" else 0)


def test_widths_must_fit():
    with pytest.raises(DeclarationError, match="cannot reach images of 8x8 by 4 doublings"):
        BigGAN((1, 8, 8), latent=10, generator_widths=[1] * 5)
    with pytest.raises(DeclarationError, match="cannot halve images of 8x8 4 times"):
        SAGAN((1, 8, 8), generator_widths=[1, 1], halvings=4)
    with pytest.raises(DeclarationError, match="latent=7: cannot be divided into 2 parts"):
        BigGAN((1, 8, 8), latent=7, generator_widths=[1, 1])
    with pytest.raises(DeclarationError, match="generator_widths: grow"):
        BigGANDeep((1, 8, 8), generator_widths=[1, 2])
    with pytest.raises(DeclarationError, match="discriminator_widths: shrink"):
        BigGANDeep((1, 8, 8), generator_widths=[1, 1], discriminator_widths=[2, 1], halvings=1)
