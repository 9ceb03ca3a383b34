"""Losses of two players against formulas, and their steps in turns."""

import numpy as np
import pytest
import torch
from factories import make_context, make_dataset, make_stage
from scipy.special import expit
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.dcgan import DCGAN
from dgm_bench.models.adversarial.gan import GAN
from dgm_bench.spec import DataSpec, ModelSpec, ObjectiveSpec, OptimizerSpec
from dgm_bench.train.adversarial import non_orthogonality
from dgm_bench.train.games import compared, sliced_wasserstein, variance_within
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import build_objective
from dgm_bench.train.players import require_classes, require_players

ARGS = {"latent": 2, "hidden": [8]}


def objective(**args):
    return build_objective(ObjectiveSpec(name="adversarial", args=args))


def softplus(x):
    return -np.log(expit(-x))


#: Of scores of data and of samples: what either player minimises.
FORMULAS = {
    "non-saturating": (lambda d, f: softplus(-d) + softplus(f), lambda f: softplus(-f)),
    "hinge": (lambda d, f: np.maximum(0, 1 - d) + np.maximum(0, 1 + f), lambda f: -f),
    "wasserstein": (lambda d, f: f - d, lambda f: -f),
}


@pytest.mark.parametrize("loss", FORMULAS)
def test_both_losses_are_those_of_the_formulas(loss, generator):
    model, x = GAN((2,), hidden=[8]), 2 * torch.randn(20, 2)
    terms = objective(loss=loss)(model, x, 0, generator).terms
    fake = model.sample(20, torch.Generator().manual_seed(generator.initial_seed()))
    scores = [model.discriminator(batch).detach().numpy() for batch in (x, fake)]
    of_discriminator, of_generator = FORMULAS[loss]
    assert terms["discriminator"] == pytest.approx(of_discriminator(*scores).mean())
    assert terms["generator"] == pytest.approx(of_generator(scores[1]).mean())


def test_each_player_gets_the_gradients_of_its_own_loss(generator):
    model, x = GAN((2,), hidden=[8]), torch.randn(20, 2)
    loss = objective()(model, x, 0, generator)
    loss.total.backward()
    noise = torch.Generator().manual_seed(generator.initial_seed())
    fake = model.generator(model.draw_noise(20, noise))
    odds = torch.sigmoid(model.discriminator(fake.detach()))
    own = -(torch.sigmoid(model.discriminator(x)).log() + (1 - odds).log()).mean()
    deceit = -torch.sigmoid(model.discriminator(fake)).log().mean()
    torch.testing.assert_close(loss.total, own + deceit)
    for player, its_loss in ((model.discriminator, own), (model.generator, deceit)):
        parameters = list(player.parameters())
        expected = torch.autograd.grad(its_loss, parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


# --------------------------------------------------------------------------- penalties


class Linear(nn.Module):
    """A game whose critic is the product with a vector, or half the square of that."""

    latent, classes = 2, None

    def __init__(self, squared=False):
        super().__init__()
        self.generator = nn.Bilinear(2, 1, 2)
        self.generator.forward = lambda z, classes=None: z
        self.weight = torch.tensor([3.0, 4.0])
        self.squared = squared
        self.discriminator = nn.Module()
        self.discriminator.forward = self.score

    def score(self, x, classes=None):
        return (x @ self.weight).square() / 2 if self.squared else x @ self.weight

    def draw_noise(self, n, generator):
        return torch.empty(n, 2).normal_(generator=generator)

    def examples_and_classes(self, x):
        return x, None


def of_discriminator(generator, game=None, **args):
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    turn = objective(loss="wasserstein", discriminator_steps=1, **args)
    return turn(game or Linear(), x, 0, generator).total.item()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"gradient_penalty": 10.0}, 10 * (5 - 1) ** 2),
        ({"gradient_penalty": 10.0, "gradient_target": 4.0}, 10 * (5 - 4) ** 2 / 4**2),
        ({"r1": 10.0}, 10 / 2 * 25),
        ({"drift": 0.5}, 0.5 * (3**2 + 8**2) / 2),
    ],
    ids=str,
)
def test_penalties_of_a_linear_critic_are_those_of_its_slope(args, expected, generator):
    state = generator.get_state()
    plain = of_discriminator(generator)
    generator.set_state(state)
    assert of_discriminator(generator, **args) - plain == pytest.approx(expected)


def test_r1_is_taken_at_the_data(generator):
    """The slope of half the square of <w, x> is <w, x> w."""
    state = generator.get_state()
    plain = of_discriminator(generator, Linear(squared=True))
    generator.set_state(state)
    penalised = of_discriminator(generator, Linear(squared=True), r1=2.0)
    assert penalised - plain == pytest.approx(25 * (3**2 + 8**2) / 2)


def test_the_gradient_penalty_is_taken_all_along_the_way_to_the_samples():
    """Of half the square of <w, x> the slope's norm is 5 |<w, x>|, at points uniform on lines."""
    game, penalised = Linear(squared=True), {"gradient_penalty": 1.0}
    x = torch.tensor([[1.0, 0.0]]).repeat(20_000, 1)
    turn = objective(loss="wasserstein", discriminator_steps=1, **penalised)
    plain = objective(loss="wasserstein", discriminator_steps=1)
    noise = [torch.Generator().manual_seed(0) for _ in range(3)]
    found = turn(game, x, 0, noise[0]).total - plain(game, x, 0, noise[1]).total
    ends = game.draw_noise(len(x), noise[2]) @ game.weight
    way = torch.linspace(0, 1, 201)[:, None]
    expected = (5 * ((1 - way) * 3 + way * ends).abs() - 1).square().mean()
    assert found.item() == pytest.approx(expected.item(), rel=0.05)


def test_orthogonality_is_of_different_rows_and_not_of_embeddings():
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 3), nn.Embedding(5, 4))
    expected = 0.0
    for layer in network[:2]:
        rows = layer.weight.detach().flatten(1).numpy()
        product = rows @ rows.T
        expected += ((product * (1 - np.eye(len(rows)))) ** 2).sum()
    assert non_orthogonality(network).item() == pytest.approx(expected)


# --------------------------------------------------------------------------- turns


def playing(discriminator=None, **stage):
    torch.manual_seed(0)
    data = make_dataset(torch.randn(120, 2), 80, 20)
    spec = ModelSpec(name="gan:GAN", args=ARGS)
    stage = make_stage(
        spec,
        **{"objective": ObjectiveSpec(name="adversarial", args={"discriminator_steps": 2})} | stage,
        discriminator=discriminator,
    )
    model = GAN((2,), **ARGS)
    return Trainer(stage, model, data, make_context(), seed=0)


def weights(player):
    return torch.cat([p.detach().flatten() for p in player.parameters()])


def test_players_move_in_turns_each_at_its_own_rate():
    slow, fast = (OptimizerSpec(name="sgd-momentum", lr=lr, betas=(0.0, 0.9)) for lr in (0.1, 0.4))
    trainer = playing(fast, optimizer=slow)
    model = trainer.model
    for player, rate in ((0, 0.4), (0, 0.4), (1, 0.1), (0, 0.4)):
        moved, held = (model.discriminator, model.generator)[:: -1 if player else 1]
        before = weights(moved), weights(held)
        x = trainer.next_batch()
        noise = trainer.state.noise.get_state()
        gradient = torch.autograd.grad(trainer.loss(x), list(moved.parameters()))
        trainer.state.noise.set_state(noise)
        trainer.step_on(x)
        step = rate * torch.cat([part.flatten() for part in gradient])
        torch.testing.assert_close(weights(moved), before[0] - step)
        assert torch.equal(weights(held), before[1])


def test_a_collapsed_generator_is_told_once():
    told = []

    class Reporter:
        def message(self, text):
            told.append(text)

        def progress(self, event):
            pass

    game = DCGAN((1, 8, 8), latent=2, width=2)
    spec = ModelSpec(name="dcgan:DCGAN", args={"latent": 2, "width": 2})
    play = ObjectiveSpec(name="adversarial", args={"discriminator_steps": 1})
    stage = make_stage(spec, objective=play, optimizer=OptimizerSpec(lr=0.0))
    data = make_dataset(torch.rand(120, 1, 8, 8), 80, 20)
    with torch.no_grad():
        game.generator.project.weight.zero_()
    Trainer(stage, game, data, make_context(reporter=Reporter()), seed=0).run()
    (text,) = told
    assert text.startswith("step 5: the generator has collapsed: its samples have 0.00% of")


# --------------------------------------------------------------------------- validation


def test_the_distance_of_a_shift_is_its_size_and_order_does_not_matter(generator):
    x = torch.randn(400, 3, 5)
    assert sliced_wasserstein(x, x[torch.randperm(400)], generator) < 1e-9
    shifts = [sliced_wasserstein(x, x + 0.3, generator) for _ in range(20)]
    assert np.mean(np.square(shifts)) ** 0.5 == pytest.approx(0.3, rel=0.1)


def test_variance_within_classes_leaves_out_that_between_them():
    classes = torch.arange(300) % 3
    x = 10.0 * classes[:, None] + torch.randn(300, 4)
    expected = np.mean([x[classes == k].numpy().var(0).mean() for k in range(3)])
    assert variance_within(x, classes) == pytest.approx(expected)
    assert variance_within(x, None) > 50


# --------------------------------------------------------------------------- refusals


def labelled(classes):
    images = torch.rand(30, 1, 8, 8)
    kinds = {"train": torch.arange(10) % 3} if classes else {}
    splits = dict(zip(("train", "val", "test"), images.split(10), strict=True))
    return Dataset("toy", "1", splits, labels=kinds, classes=tuple("abc"[:classes]))


@pytest.mark.parametrize(
    ("with_classes", "of_data", "of_model", "reason"),
    [
        (True, 0, None, "toy has no classes"),
        (True, 3, None, "GAN is told of no classes"),
        (False, 3, 3, "GAN is told of 3 classes"),
        (True, 3, 4, "toy has 3 classes"),
    ],
)
def test_classes_are_told_where_they_are_there_and_wanted(with_classes, of_data, of_model, reason):
    game = GAN((2,), **ARGS)
    game.classes = of_model
    data = DataSpec(name="toy", with_classes=with_classes)
    spec = make_stage(ModelSpec(name="gan:GAN"), data=data)
    with pytest.raises(DeclarationError, match=reason):
        require_classes(spec, game, labelled(of_data))


def test_a_discriminator_of_its_own_optimiser_is_refused():
    own = OptimizerSpec(name="adam", lr=1e-3)
    with pytest.raises(DeclarationError, match="in more than rate"):
        require_players(make_stage(ModelSpec(name="gan:GAN"), discriminator=own), GAN((2,)))
    with pytest.raises(DeclarationError, match="Linear has no such player"):
        require_players(make_stage(ModelSpec(name="x"), discriminator=own), nn.Linear(1, 1))
    with pytest.raises(DeclarationError, match="no training"):
        objective(discriminator_steps=0)


def test_fewer_of_large_examples_are_compared():
    """At 1024 x 1024 pixels, two thousand would be 50 GB in double precision."""
    nothing = torch.zeros(())
    sizes = {32: 2_048, 128: 1_365, 1024: 21, 8192: 2}
    for side, n in sizes.items():
        assert len(compared(nothing.expand(3_000, 3, side, side))) == n
    assert len(compared(nothing.expand(7, 3, 8, 8))) == 7
