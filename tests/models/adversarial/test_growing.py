"""Players that grow: sizes, fading in, the schedule, and what is kept of it."""

import math

import numpy as np
import pytest
import torch
from games import GAMES
from models.adversarial.test_games import trained

from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.equalised import doubled, halved
from dgm_bench.models.adversarial.growing import Growth, faded, pyramid
from dgm_bench.models.adversarial.progan import ProGAN
from dgm_bench.models.adversarial.stylegan import StyleGAN
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.objectives import build_objective

NAMES = {"progan": "progan:ProGAN", "stylegan": "stylegan:StyleGAN"}
KINDS = {"progan": ProGAN, "stylegan": StyleGAN}
every_kind = pytest.mark.parametrize("kind", KINDS)
#: Of the authors' configurations for 1024 x 1024, the smallest resolution first.
FILTERS = [512, 512, 512, 512, 256, 128, 64, 32, 16]


def new(kind, shape=(2, 16, 16), **changes):
    args = {"latent": 6, "filters": [5, 4, 3], "stable": 100, "fade": 50} | changes
    model = KINDS[kind](shape, **args)
    for name, parameter in model.named_parameters():
        if name.endswith("noise"):  # which begins as nothing
            torch.nn.init.ones_(parameter)
    return model


def at(model, level):
    model.generator.level = model.discriminator.level = level
    return model


def images_of(model, z):
    torch.manual_seed(5)  # the noise of the layers
    return model.generator(z)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# ----------------------------------------------------------------- sizes


@pytest.mark.parametrize(("kind", "count"), [("progan", 23_079_115), ("stylegan", 26_219_627)])
def test_parameters_are_as_many_as_in_the_papers(kind, count):
    """StyleGAN's table 1 says 23.1M and 26.2M; the latter's code prints 26,219,627."""
    with torch.device("meta"):
        model = KINDS[kind]((3, 1024, 1024), latent=512, filters=FILTERS)
        images = model.generator(torch.empty(2, 512))
        assert images.shape == (2, 3, 1024, 1024)
        assert model.discriminator(images).shape == (2,)
    assert parameters(model.generator) == count
    assert parameters(model.discriminator) == 23_087_249


@every_kind
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 4, 8), (3, 16, 8)])
def test_images_have_the_shape_of_examples(kind, shape):
    model = new(kind, shape, filters=[5])
    images = model.generator(torch.randn(3, 6))
    assert images.shape == (3, *shape)
    assert model.discriminator(images).shape == (3,)
    assert model.classes is None


@every_kind
def test_what_does_not_fit_is_refused(kind):
    with pytest.raises(DeclarationError, match="halving"):
        new(kind, (1, 12, 12))
    with pytest.raises(DeclarationError, match="halving"):
        new(kind, (1, 8, 9))
    with pytest.raises(DeclarationError, match="filters"):
        new(kind, filters=[])
    with pytest.raises(DeclarationError, match="use one of 4, 8"):
        new(kind, (1, 8, 8), filters=[3], start=16)


def test_widths_go_by_resolution():
    assert pyramid((3, 32, 64), [8, 6]).filters == (8, 6, 6, 6)
    assert pyramid((3, 8, 8), [8, 6, 5, 4]).filters == (8, 6)
    assert pyramid((3, 32, 64), [8, 6]).base == (4, 8)


# ----------------------------------------------------------------- signal and gradients


@every_kind
def test_gradients_reach_every_parameter_at_some_level(kind):
    model, reached = new(kind), set()
    for level in (0, 0.5, 1, 1.5, 2):
        model.zero_grad()
        scores = at(model, level).discriminator(images_of(model, torch.randn(4, 6)))
        scores.square().sum().backward()
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in model.named_parameters()}


@every_kind
def test_untrained_features_have_unit_scale(kind):
    """He's constant keeps their scale over a dozen layers; 64 channels let it be seen."""
    model, found = at(new(kind, (3, 32, 32), latent=64, filters=[64]), 3), []

    def look(module, inputs, outputs):
        found.append(outputs.detach().square().mean().sqrt().item())

    for module in model.modules():
        if module is not model.discriminator.out and hasattr(module, "scaled"):
            module.register_forward_hook(look)
    images = images_of(model, torch.randn(6, 64))
    model.discriminator(doubled(torch.randn_like(images[:, :, :4, :4]), 3))
    assert len(found) > 15
    assert all(0.3 < scale < 3 for scale in found), found


@every_kind
def test_second_derivatives_of_scores_are_right(kind):
    model = at(new(kind, (1, 8, 8), filters=[2]), 0.5)
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: model.discriminator(x).tanh(), x, fast_mode=True)


# ----------------------------------------------------------------- fading in


@every_kind
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_that_begins_to_fade_in_changes_nothing_yet(kind, level):
    """And at its end the next resolution is what it is without fading (figure 2)."""
    model, z, x = new(kind).eval(), torch.randn(3, 6), torch.rand(3, 2, 16, 16)
    images, scores = images_of(at(model, level), z), model.discriminator(x)
    for near in {max(level - 1e-12, 0), min(level + 1e-12, 2)}:
        torch.testing.assert_close(images_of(at(model, near), z), images, rtol=0, atol=1e-9)
        torch.testing.assert_close(model.discriminator(x), scores, rtol=0, atol=1e-9)


@every_kind
def test_half_way_is_the_mean_of_both(kind):
    model, z = new(kind).eval(), torch.randn(3, 6)
    below, between, above = (images_of(at(model, level), z) for level in (1, 1.5, 2))
    torch.testing.assert_close(between, (below + above) / 2)


@every_kind
def test_players_have_the_detail_of_their_level_only(kind):
    model = at(new(kind), 1).eval()
    images = images_of(model, torch.randn(3, 6))
    blocks = images.unflatten(3, (8, 2)).unflatten(2, (8, 2))
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    finer = torch.rand(3, 2, 16, 16)
    finer = finer - doubled(halved(finer))
    scores = model.discriminator(images)
    torch.testing.assert_close(model.discriminator(images + finer), scores)
    assert not torch.allclose(at(model, 1.5).discriminator(images + finer), scores)


@pytest.mark.parametrize("level", [0, 0.25, 1, 1.75, 2])
def test_real_images_are_faded_as_the_authors_code_does(level):
    """Means of 2 x 2 pixels, mixed with those of twice the size by the fraction, and repeated."""
    x = torch.rand(3, 2, 16, 16)
    lod, a = 2 - level, x.numpy()
    for _ in range(math.floor(lod)):
        a = a.reshape(3, 2, a.shape[2] // 2, 2, a.shape[3] // 2, 2).mean(axis=(3, 5))
    b = a.reshape(3, 2, a.shape[2] // 2, 2, a.shape[3] // 2, 2).mean(axis=(3, 5))
    a = a + (np.kron(b, np.ones((2, 2))) - a) * (lod - math.floor(lod))
    expected = np.kron(a, np.ones((2 ** math.floor(lod),) * 2))
    np.testing.assert_allclose(faded(x, 2, level).numpy(), expected, atol=1e-12)


@every_kind
def test_examples_are_faded_in_training_and_whole_in_evaluation(kind):
    model, x = new(kind), torch.rand(3, 2, 16, 16)
    model.grow(125)
    images, classes = model.train().examples_and_classes(x)
    assert classes is None
    torch.testing.assert_close(images, faded(2 * x - 1, 2, 0.5))
    torch.testing.assert_close(model.eval().examples_and_classes(x)[0], 2 * x - 1)


# ----------------------------------------------------------------- the schedule


@pytest.mark.parametrize("start", [0, 1])
def test_schedule_is_that_of_the_authors_code(start):
    growth = Growth(start, 3, stable=600, fade=400)
    for images in range(0, 4_000, 37):
        phase = images // 1_000
        lod = 3 - start - phase - max(images - phase * 1_000 - 600, 0) / 400
        assert growth.level(images) == pytest.approx(3 - max(lod, 0))


def test_schedules_without_growth_or_fading():
    assert Growth(0, 3, 0, 0).level(0) == 3
    assert [Growth(0, 3, 10, 0).level(n) for n in (9, 10, 35)] == [0, 1, 3]
    assert Growth(0, 3, 0, 10).level(5) == 0.5


# ----------------------------------------------------------------- what is drawn and kept


@every_kind
def test_a_loaded_model_draws_at_the_level_it_was_saved_at(kind, generator):
    model, fresh = new(kind).eval(), new(kind).eval()
    model.grow(130)
    fresh.load_state_dict(model.state_dict())
    assert fresh.generator.level == fresh.discriminator.level == 0.6
    labels = torch.zeros(3, dtype=torch.int64)
    drawn = [m.draw_images(labels, torch.Generator().manual_seed(3)) for m in (model, fresh)]
    assert torch.equal(*drawn)
    assert drawn[0].min() >= 0
    assert drawn[0].max() <= 1


@every_kind
def test_truncation_at_zero_gives_one_image(kind, generator):
    model, labels = new(kind).eval(), torch.zeros(4, dtype=torch.int64)
    for name, parameter in model.named_parameters():
        if name.endswith("noise"):
            torch.nn.init.zeros_(parameter)
    model.grow(10_000)
    images = model.draw_truncated(labels, 0.0, generator)
    torch.testing.assert_close(images, images[:1].expand_as(images))
    assert model.draw_images(labels, generator).var(0).max() > 1e-4


# ----------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("steps", "seen"), [(None, [0, 1, 2, 3]), (1, [0, 1, 1, 2]), (2, [0, 1, 2, 2])]
)
def test_what_the_discriminator_has_seen_decides(steps, seen, generator):
    """Images of the data before the step, whoever's turn it is; nothing grows in evaluation."""
    model = new("progan", (2, 8, 8), filters=[3])
    turn = ObjectiveSpec(name="adversarial", args={"discriminator_steps": steps})
    objective, x = build_objective(turn), torch.rand(4, 2, 8, 8)
    for step, batches in enumerate(seen):
        objective(model.train(), x, step, generator)
        assert model.images_shown == 4 * batches
    objective(model.eval(), x, 50, generator)
    assert model.images_shown == 4 * batches


@every_kind
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_a_training_that_was_stopped_in_a_fade_goes_on_to_the_bit(kind, tmp_path, monkeypatch):
    args = {"latent": 3, "filters": [4, 3], "stable": 4, "fade": 400}
    monkeypatch.setitem(GAMES, kind, (NAMES[kind], args, (2, 8, 8)))
    whole = trained(kind, tmp_path / "whole")
    stopped = trained(kind, tmp_path / "parts", polls=4)
    assert 0 < stopped.model.generator.level < whole.model.generator.level < 1
    torch.manual_seed(1)
    parts = trained(kind, tmp_path / "parts")
    assert [row[4] for row in parts.tally.curve] == [row[4] for row in whole.tally.curve]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
