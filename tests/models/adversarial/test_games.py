"""What holds of every game of images."""

import pytest
import torch
from factories import StopAfter, make_context, make_stage
from games import GAMES, make
from scipy import stats

from dgm_bench.control import Control, Interrupted
from dgm_bench.data.class_rows import inputs_with_classes
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.adversarial import image_game
from dgm_bench.models.adversarial.dcgan import DCGAN
from dgm_bench.models.adversarial.image_game import ImageGame
from dgm_bench.models.capabilities import AdversarialGame, DrawsTruncated
from dgm_bench.models.names import MODELS
from dgm_bench.spec import DataSpec, ModelSpec, ObjectiveSpec, OptimizerSpec
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import build_objective

every_game = pytest.mark.parametrize("case", GAMES)


def rows(game, n):
    """A batch of training: images with pixels in [0, 1], with classes where they are told."""
    x = torch.rand(n, *game.event_shape)
    if game.classes is None:
        return x
    return inputs_with_classes(x, torch.arange(n) % game.classes)


def labels(game, n):
    return torch.arange(n) % (game.classes or 1)


def drawn(game, n=4, seed=0):
    return game.eval().draw_images(labels(game, n), torch.Generator().manual_seed(seed))


def test_every_game_of_images_is_tested():
    declared = {name for name, place in MODELS.items() if place.startswith("adversarial.")}
    assert {name for name, _, _ in GAMES.values()} == declared - {"gan:GAN"}


@every_game
def test_images_and_scores_have_their_shapes(case, generator):
    game = make(case)
    assert isinstance(game, ImageGame)
    assert isinstance(game, AdversarialGame)
    assert isinstance(game, DrawsTruncated)
    images, classes = game.examples_and_classes(rows(game, 5))
    assert images.shape == (5, *game.event_shape)
    assert images.min() >= -1
    assert images.max() <= 1
    assert game.generator(game.draw_noise(5, generator), classes).shape == images.shape
    assert game.discriminator(images, classes).shape == (5,)
    pixels = drawn(game)
    assert pixels.shape == (4, *game.event_shape)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@every_game
def test_gradients_reach_every_parameter_of_both_players(case, generator):
    game = make(case).train()
    for step in range(2):
        turn = ObjectiveSpec(name="adversarial", args={"discriminator_steps": 1})
        loss = build_objective(turn)(game, rows(game, 8), step, generator)
        loss.total.backward()
        moved, held = (game.generator, game.discriminator)[:: 1 if step else -1]
        assert all(p.grad is None for p in held.parameters())
        for name, parameter in moved.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        game.zero_grad(set_to_none=True)


@every_game
def test_without_noise_there_is_one_image_a_class(case, generator):
    game = make(case).eval()
    game.calibrate(rows(game, 4))
    classes = labels(game, 20)
    images = game.draw_truncated(classes, 0.0, generator)
    for own in classes.unique():
        same = images[classes == own]
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-9)
    if game.classes:
        assert (images[0] - images[1]).abs().max() > 0
    varied = game.draw_truncated(classes, 1.0, generator)
    assert (varied[0] - varied[game.classes or 1]).abs().max() > 1e-6


@every_game
def test_equal_outputs_after_saving_and_loading(case, generator):
    game, fresh = make(case), make(case)
    game.calibrate(rows(game, 4))
    fresh.load_state_dict(game.state_dict())
    assert torch.equal(drawn(fresh), drawn(game))
    x, classes = game.examples_and_classes(rows(game, 3))
    assert torch.equal(fresh.eval().discriminator(x, classes), game.discriminator(x, classes))


def trained(case, folder, polls=None):
    """A training of six steps in turns, stopped after so many questions and gone on with."""
    torch.manual_seed(0)
    name, args, shape = GAMES[case]
    game = make(case)
    images = torch.rand(24, *shape)
    kinds = {split: torch.arange(8) % (game.classes or 1) for split in ("train", "val", "test")}
    names = tuple(map(str, range(game.classes or 0)))
    splits = dict(zip(kinds, images.split(8), strict=True))
    data = Dataset("toy", "1", splits, labels=kinds, classes=names)
    stage = make_stage(
        ModelSpec(name=name, args=args),
        data=DataSpec(name="toy", with_classes=game.classes is not None),
        objective=ObjectiveSpec(name="adversarial", args={"discriminator_steps": 2}),
        optimizer=OptimizerSpec(lr=1e-3, betas=(0.0, 0.9)),
        discriminator=OptimizerSpec(lr=4e-3, betas=(0.0, 0.99)),
        batch_size=4,
        average_decay=0.9,
    )
    control = Control() if polls is None else StopAfter(polls)
    checkpoint = StageCheckpoint(CheckpointFile(folder), "")
    trainer = Trainer(stage, game, data, make_context(control=control), seed=0,
                      checkpoint=checkpoint)  # fmt: skip
    trainer.restore()
    if polls is None:
        trainer.run()
    else:
        with pytest.raises(Interrupted):
            trainer.run()
    return trainer


@every_game
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_a_training_that_was_stopped_goes_on_to_the_bit(case, tmp_path, monkeypatch):
    monkeypatch.setattr(image_game, "STANDING_BATCHES", 1)
    whole = trained(case, tmp_path / "whole")
    trained(case, tmp_path / "parts", polls=4)
    torch.manual_seed(1)
    parts = trained(case, tmp_path / "parts")
    assert [row[4] for row in parts.tally.curve] == [row[4] for row in whole.tally.curve]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name


# --------------------------------------------------------------------------- truncation


def test_truncated_noise_is_normal_noise_given_that_it_is_within(generator):
    game = ImageGame((1, 4, 4), 50, None)
    game.scale = torch.nn.Parameter(torch.ones(()))
    z = game.truncated_noise(400, 0.7, generator)
    assert z.abs().max() <= 0.7
    assert stats.kstest(z.flatten().numpy(), stats.truncnorm(-0.7, 0.7).cdf).pvalue > 1e-3
    wide = game.truncated_noise(400, 50.0, generator)
    assert stats.kstest(wide.flatten().numpy(), stats.norm.cdf).pvalue > 1e-3


def test_statistics_are_those_of_samples_whatever_they_were():
    game = DCGAN((1, 8, 8), latent=2, width=3)
    norm = game.generator.layers[0]
    norm.running_mean.fill_(9.0)
    game.eval().calibrate(torch.zeros(0))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    game.draw_images(torch.zeros(4_000, dtype=torch.int64), torch.Generator().manual_seed(5))
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=0, atol=1e-2)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.1, atol=0)
    assert not norm.training


def test_statistics_are_those_of_all_classes(monkeypatch):
    """Where there are more of them than images in a batch, as on ImageNet."""
    game = DCGAN((1, 8, 8), latent=2, width=3)
    game.classes, seen = 250, []
    monkeypatch.setattr(game, "generator", Counting(game.generator, seen))
    game.eval().calibrate(torch.zeros(0))
    counts = torch.cat(seen).bincount()
    assert counts.tolist() == [8] * 250


class Counting(torch.nn.Module):
    """A generator without classes that notes which it is told of."""

    def __init__(self, generator, seen):
        super().__init__()
        self.inner, self.seen = generator, seen

    def forward(self, noise, classes):
        self.seen.append(classes)
        return self.inner(noise, None)
