"""VQ-VAEs of one to three levels, and their loss."""

import pytest
import torch
from code_models import train_briefly
from factories import StopAfter, make_context, make_dataset, make_stage
from torch import nn

from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasCodes, QuantisesImages, Reconstructs
from dgm_bench.models.codes.quantiser import VectorQuantiser
from dgm_bench.models.codes.vqvae import VQVAE, VQVAE2
from dgm_bench.spec import (
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import build_objective, require_fit
from dgm_bench.train.optimizers import build_optimizer
from dgm_bench.train.schedule import Schedule

SMALL = {"hidden": 8, "residual_units": 4, "residual_layers": 1, "codes": 16, "dim": 5}
HIERARCHIES = [
    # strides, sides of the image, sides of the grids from the top
    ([4], 16, [4]),
    ([2], 8, [4]),
    ([2, 2], 8, [2, 4]),
    ([4, 2], 16, [2, 4]),
    ([2, 4], 16, [2, 8]),
    ([8, 2, 2], 32, [1, 2, 4]),
    ([2, 2, 2], 8, [1, 2, 4]),
]
every_hierarchy = pytest.mark.parametrize(("strides", "side", "grids"), HIERARCHIES)


def new(strides, side=8, channels=3, **changes):
    kind = VQVAE if len(strides) == 1 else VQVAE2
    return kind((channels, side, side), strides=strides, **(SMALL | changes))


def pixels(n, side=8, channels=3):
    return torch.rand(n, channels, side, side)


# ----------------------------------------------------------------- the models


@every_hierarchy
def test_codes_and_reconstructions_have_their_shapes(strides, side, grids):
    model, x = new(strides, side).eval(), pixels(3, side)
    assert isinstance(model, HasCodes)
    assert isinstance(model, Reconstructs)
    assert isinstance(model, QuantisesImages)
    assert model.grids == tuple((g, g) for g in grids)
    assert model.codebook_sizes == (16,) * len(grids)
    codes = model.encode(x)
    assert [tuple(level.shape) for level in codes] == [(3, g, g) for g in grids]
    assert all(level.dtype == torch.int64 for level in codes)
    assert all(level.min() >= 0 and level.max() < 16 for level in codes)
    again = model.reconstruct(x)
    assert again.shape == x.shape
    assert 0 <= again.min() <= again.max() <= 1
    assert torch.equal(model.decode(codes), again)


def test_sides_need_not_be_equal():
    model = VQVAE2((1, 8, 16), strides=[2, 2], **SMALL).eval()
    assert model.grids == ((2, 4), (4, 8))
    assert model.reconstruct(torch.rand(2, 1, 8, 16)).shape == (2, 1, 8, 16)


@every_hierarchy
def test_training_sees_the_same_reconstruction_as_evaluation(strides, side, grids, generator):
    model, x = new(strides, side).eval(), pixels(3, side)
    trained, _ = model.quantised_reconstruction(x, generator)
    torch.testing.assert_close(trained.clamp(0, 1), model.reconstruct(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strides", [[2, 2], [2, 2, 2]])
def test_missing_levels_are_zeros_to_the_decoder(strides):
    model, x = new(strides).eval(), pixels(3)
    codes = model.encode(x)
    for present in range(1, len(codes)):
        values = [q.values_of(c) for q, c in zip(reversed(model.quantisers), codes, strict=True)]
        values = [v if i < present else v * 0 for i, v in enumerate(values)]
        expected = model._pixels(values).clamp(0, 1)
        torch.testing.assert_close(model.decode(codes[:present]), expected, rtol=0, atol=1e-12)
        assert not torch.allclose(model.decode(codes[:present]), model.decode(codes))


@pytest.mark.parametrize("strides", [[2], [2, 2], [2, 2, 2]])
def test_codes_do_not_depend_on_the_batch(strides):
    model, x = new(strides).eval(), pixels(6)
    together = model.encode(x)
    for i in range(6):
        for level, alone in zip(together, model.encode(x[i : i + 1]), strict=True):
            assert torch.equal(level[i : i + 1], alone)


def test_every_level_matters_and_lower_ones_are_conditioned_on_higher(generator):
    model, x = new([2, 2, 2], codes=64).eval(), pixels(8)
    codes = model.encode(x)
    model.quantisers[2].codebook.mul_(-50)
    changed = model.encode(x)
    assert not torch.equal(codes[1], changed[1])
    assert not torch.equal(codes[2], changed[2])
    for level in range(3):
        other = [c.clone() for c in changed]
        other[level] = (other[level] + 7) % 64
        assert not torch.allclose(model.decode(other), model.decode(changed))


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize(("strides", "side", "grids"), HIERARCHIES[1:])
def test_gradients_reach_every_parameter(strides, side, grids, codebook, generator):
    model = new(strides, side, codebook=codebook).train()
    loss = build_objective(ObjectiveSpec(name="vq"))(model, pixels(4, side), 0, generator)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_state_dict_holds_everything_and_training_goes_on_bit_for_bit(codebook):
    model = new([2, 2], codebook=codebook).train()
    objective = build_objective(ObjectiveSpec(name="vq"))

    def step(network, seed):
        network.zero_grad()
        noise = torch.Generator().manual_seed(seed)
        x = torch.rand(4, 3, 8, 8, generator=noise)
        objective(network, x, seed, noise).total.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad

    step(model, 1)
    twin = new([2, 2], codebook=codebook).train()
    twin.load_state_dict(model.state_dict())
    for network in (model, twin):
        step(network, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "shape", "args", "words"),
    [
        ("vqvae:VQVAE2", (3, 12, 12), {"strides": [4, 2]}, "multiples of 8"),
        ("vqvae:VQVAE2", (3, 12, 12), {"strides": [3, 2]}, "powers of 2"),
        ("vqvae:VQVAE2", (3, 8, 8), {"strides": [2]}, "two levels"),
        ("vqvae:VQVAE", (3, 8, 8), {"strides": [2, 2]}, "one level"),
        ("vqvae:VQVAE", (64,), {}, "no images"),
        ("vqvae:VQVAE", (3, 8, 8), {"codebook": "k-means"}, "k-means"),
    ],
)
def test_what_does_not_fit_is_refused_when_built(name, shape, args, words):
    with pytest.raises(DeclarationError, match=words):
        build(ModelSpec(name=name, args=args), shape)


def test_the_first_paper_s_network_has_its_layers():
    """Weights counted from section 4.1; the 3 x 3 ahead of the decoder is Sonnet's."""
    model = VQVAE((3, 32, 32), dim=64)
    encoder = (3 * 16 + 1) * 256 + (256 * 16 + 1) * 256
    residual = 2 * ((256 * 9 + 1) * 256 + (256 + 1) * 256)
    decoder = (64 * 9 + 1) * 256 + residual + (256 * 16 + 1) * 256 + 256 * 16 * 3 + 3
    projection = (256 + 1) * 64
    count = sum(p.numel() for p in model.parameters())
    assert count == encoder + residual + projection + decoder
    assert model.grids == ((8, 8),)


def test_averages_rest_in_evaluation_and_where_codes_are_only_looked_up(generator):
    model, x = new([2, 2]), pixels(3)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(x)
    model.eval().quantised_reconstruction(x, generator)
    assert all(torch.equal(held[name], value) for name, value in model.state_dict().items())
    model.train().quantised_reconstruction(x, generator)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(held[name], value)
    }
    assert changed == {
        f"quantisers.{i}.{name}"
        for i in range(2)
        for name in ("codebook", "counts", "sums", "weight")
    }


def test_statistics_stay_in_single_precision_under_autocast(generator):
    torch.set_default_dtype(torch.float32)
    model = new([2, 2]).train()
    with torch.autocast("cpu", torch.bfloat16):
        values, losses = model.quantised_reconstruction(pixels(4), generator)
    assert values.dtype == torch.bfloat16
    assert losses["commitment"].dtype == torch.float32
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    quantiser, z = VectorQuantiser(9, 4), torch.randn(2, 4, 3, 3)
    plain = quantiser(z)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = quantiser(z)
    assert torch.equal(plain.codes, mixed.codes)
    assert torch.equal(plain.values, mixed.values)


# ----------------------------------------------------------------- the loss


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_loss_is_the_papers(codebook, generator):
    model, x = new([2, 2], codebook=codebook).eval(), pixels(4)
    args = {"commitment": 0.5, "variance": 0.25}
    loss = build_objective(ObjectiveSpec(name="vq", args=args))(model, x, 0, generator)
    again, parts = model.quantised_reconstruction(x, generator)
    error, distance = (again - x).square().mean(), parts["commitment"]
    terms = {"reconstruction", "commitment"} | ({"codebook"} if codebook == "gradient" else set())
    assert set(loss.terms) == terms
    weight = 0.5 + (codebook == "gradient")
    torch.testing.assert_close(loss.total, 4 * error + weight * distance)
    torch.testing.assert_close(loss.terms["reconstruction"], error)


def quantised_by_numpy(quantiser, z):
    """Return the nearest codes' vectors, and their mean squared distance from ``z``."""
    rows, codebook = z.detach().movedim(1, -1).numpy(), quantiser.codebook.detach().numpy()
    chosen = ((rows[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
    return torch.tensor(codebook[chosen]).movedim(-1, 1), ((rows - codebook[chosen]) ** 2).mean()


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_two_levels_are_algorithm_1_and_their_loss_equation_2(codebook, generator):
    """Razavi et al.: the bottom is given the quantised top, and the decoder both levels."""
    model, x = new([2, 2], codebook=codebook).eval(), pixels(4)
    bottom = model.encoders[0](2 * x - 1)
    top = model.projections[1](model.encoders[1](bottom))
    top, of_top = quantised_by_numpy(model.quantisers[1], top)
    below = model.projections[0](torch.cat([model.conditioners[0](top), bottom], 1))
    below, of_bottom = quantised_by_numpy(model.quantisers[0], below)
    again = model.decoder(torch.cat([below, model.upsamplings[0](top)], 1)) / 2 + 0.5
    error = ((again - x).detach().numpy() ** 2).mean()
    learned = 0.3 + (codebook == "gradient")
    args = {"commitment": 0.3, "variance": 0.7}
    loss = build_objective(ObjectiveSpec(name="vq", args=args))(model, x, 0, generator)
    expected = error / 0.7 + learned * (of_top + of_bottom)
    assert loss.total.item() == pytest.approx(expected, rel=1e-12)


def test_loss_asks_for_a_quantised_model_and_sound_numbers():
    gaussian = build(ModelSpec(name="gaussian:Gaussian"), (3,))
    with pytest.raises(DeclarationError, match="quantised latent variables"):
        require_fit(ObjectiveSpec(name="vq"), gaussian)
    require_fit(ObjectiveSpec(name="vq"), new([2]))
    for args in ({"commitment": -1.0}, {"variance": 0.0}):
        with pytest.raises(DeclarationError, match=r"commitment|variance"):
            build_objective(ObjectiveSpec(name="vq", args=args))


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_digits_are_learned(codebook, generator):
    from sklearn.datasets import load_digits

    torch.set_default_dtype(torch.float32)
    x = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    train, held_out = x[:1500], x[1500:]
    args = {"hidden": 16, "residual_units": 8, "residual_layers": 1, "codes": 64, "dim": 16}
    model = VQVAE2((1, 8, 8), strides=[2, 2], codebook=codebook, **args).train()
    objective = build_objective(ObjectiveSpec(name="vq"))
    optimizer = build_optimizer(OptimizerSpec(name="adamw", lr=4e-3), model)
    train_briefly(model, objective, optimizer, train, 130, generator)
    with torch.no_grad():
        error = (model.reconstruct(held_out) - held_out).square().mean()
    # The mean image has an error of 1 on this scale.
    assert error < 0.5 * held_out.var(0).mean()
    use = len(model.encode(train)[1].unique()) / 64
    assert use > 0.05


# ----------------------------------------------------------------- what training it takes


@pytest.mark.parametrize("restart", [None, 1.0])
def test_a_continued_run_ends_with_the_same_bits(restart, tmp_path):
    images = torch.randint(256, (70, 1, 8, 8), dtype=torch.uint8)

    def to_floats(x, generator):
        return x.double() / 255

    data = make_dataset(images, 40, 15, augment=to_floats, dequantise=to_floats)
    args = SMALL | {"strides": [2, 2], "decay": 0.8, "restart": restart}
    stage = make_stage(
        ModelSpec(name="vqvae:VQVAE2", args=args),
        objective=ObjectiveSpec(name="vq"),
        optimizer=OptimizerSpec(name="adamw", lr=1e-2),
        batch_size=16,
        validation=ValidationSpec(every=4, unit="steps"),
        stopping=StoppingSpec(max_steps=12),
    )

    def trainer(control, folder):
        torch.manual_seed(0)
        model, context = build(stage.model, data.event_shape), make_context(control=control)
        checkpoint = StageCheckpoint(CheckpointFile(folder))
        return Trainer(stage, model, data, context, seed=0, checkpoint=checkpoint)

    whole = trainer(Control(), tmp_path / "whole")
    whole.run()
    with pytest.raises(Interrupted):
        trainer(StopAfter(6), tmp_path / "parts").run()
    rest = trainer(Control(), tmp_path / "parts")
    assert rest.restore() == 6
    rest.run()
    assert rest.tally.best == whole.tally.best
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_adamw_decays_weights_apart_from_gradients():
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    spec = OptimizerSpec(name="adamw", lr=0.1, weight_decay=0.01)
    optimizer = build_optimizer(spec, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.1 * 0.01))


def test_cosine_falls_to_its_floor_and_stays():
    schedule = Schedule(ScheduleSpec(cosine_steps=100, cosine_floor=0.0125), 1e-4)
    assert schedule.lr(0) == pytest.approx(1e-4)
    assert schedule.lr(50) == pytest.approx((1e-4 + 1.25e-6) / 2)
    assert schedule.lr(100) == schedule.lr(1000) == pytest.approx(1.25e-6)
