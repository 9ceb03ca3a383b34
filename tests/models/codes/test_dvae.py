"""DALL-E's discrete VAE, its likelihood and its schedules."""

import math

import numpy as np
import pytest
import torch
from code_models import train_briefly

from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasCodes, Reconstructs
from dgm_bench.models.codes.dvae import DVAE
from dgm_bench.models.codes.dvae_networks import BottleneckBlock
from dgm_bench.models.codes.logit_laplace import into_support, log_density, out_of_support
from dgm_bench.spec import ModelSpec, ObjectiveSpec, OptimizerSpec
from dgm_bench.train.codebook_objectives import half_cosine
from dgm_bench.train.objectives import build_objective, require_fit
from dgm_bench.train.optimizers import build_optimizer

SMALL = {"codes": 11, "hidden": 8, "blocks": 1, "dim": 5}


def new(poolings=2, side=8, channels=3, **changes):
    return DVAE((channels, side, side), poolings=poolings, **(SMALL | changes))


def pixels(n, side=8, channels=3):
    return torch.rand(n, channels, side, side)


# ----------------------------------------------------------------- the likelihood


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (1.5, -1.0), (-2.0, 0.7)])
def test_logit_laplace_density_integrates_to_one(mean, log_scale):
    # Substituting x = sigmoid(t) keeps the quadrature's points where the mass is.
    t = mean + math.exp(log_scale) * torch.linspace(-30, 30, 600_001)
    x = t.sigmoid()
    inside = (x > 1e-12) & (x < 1 - 1e-12)
    density = log_density(
        x[inside],
        torch.full_like(x[inside], mean),
        torch.full_like(x[inside], log_scale),
    ).exp()
    assert torch.trapezoid(density, x[inside]).item() == pytest.approx(1, abs=2e-5)


def test_logit_laplace_density_is_that_of_a_transformed_laplace_variable():
    x, mean, log_scale = torch.rand(50) * 0.8 + 0.1, torch.randn(50), torch.randn(50)
    expected = torch.distributions.TransformedDistribution(
        torch.distributions.Laplace(mean, log_scale.exp()), torch.distributions.SigmoidTransform()
    )
    torch.testing.assert_close(log_density(x, mean, log_scale), expected.log_prob(x))


def test_pixels_are_mapped_inside_and_back():
    x = torch.tensor([0.0, 1 / 255, 0.5, 1.0])
    torch.testing.assert_close(into_support(x), torch.tensor([0.1, 0.1 + 0.8 / 255, 0.5, 0.9]))
    torch.testing.assert_close(out_of_support(into_support(x)), x)
    assert out_of_support(torch.tensor([0.01, 0.99])).tolist() == [0.0, 1.0]


# ----------------------------------------------------------------- the model


@pytest.mark.parametrize(("poolings", "side", "grid"), [(1, 8, 4), (2, 8, 2), (3, 16, 2)])
def test_codes_and_reconstructions_have_their_shapes(poolings, side, grid):
    model, x = new(poolings, side).eval(), pixels(3, side)
    assert isinstance(model, HasCodes)
    assert isinstance(model, Reconstructs)
    assert model.grids == ((grid, grid),)
    assert model.codebook_sizes == (11,)
    (codes,) = model.encode(x)
    assert codes.shape == (3, grid, grid)
    assert codes.dtype == torch.int64
    again = model.reconstruct(x)
    assert again.shape == x.shape
    assert again.min() >= 0
    assert again.max() <= 1
    assert torch.equal(model.decode([codes]), again)


def test_decoded_pixels_are_those_of_the_mean():
    model, x = new().eval(), pixels(3)
    codes = model.encode(x)
    mean, log_scale = model._mean_and_log_scale(model.vectors(codes[0]))
    assert mean.shape == log_scale.shape == x.shape
    expected = ((mean.sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(model.decode(codes), expected)


def test_relaxed_draws_of_low_temperature_are_codes_to_the_decoder(generator):
    model, x = new(), pixels(4)
    logits = model.posterior_logits(x)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(4, 2, 2))
    misfit, _ = model.relaxed_terms(x, 1e-6, torch.Generator().manual_seed(5))
    noise = torch.empty_like(logits).exponential_(generator=torch.Generator().manual_seed(5))
    drawn = (logits - noise.log()).argmax(-1)
    torch.testing.assert_close(misfit, model._negative_log_likelihood(x, model.vectors(drawn)))


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_relaxed_likelihood_is_that_of_mixed_vectors(temperature):
    """Equation 2 of Jang et al. mixes the codes' vectors; the density is A.3's, in NumPy."""
    model, x = new(), pixels(3)
    misfit, _ = model.relaxed_terms(x, temperature, torch.Generator().manual_seed(5))
    logits = model.posterior_logits(x).detach()
    noise = torch.empty_like(logits).exponential_(generator=torch.Generator().manual_seed(5))
    weights = np.exp((logits - noise.log()).numpy() / temperature)
    weights /= weights.sum(-1, keepdims=True)
    vectors = torch.tensor(weights @ model.vectors.weight.detach().numpy())
    maps = model.decoder(vectors.movedim(-1, 1)).detach().numpy()
    mean, log_scale = maps[:, :3], maps[:, 3:]
    inside = 0.8 * x.numpy() + 0.1
    distance = np.abs(np.log(inside / (1 - inside)) - mean) / np.exp(log_scale)
    density = np.exp(-distance) / (2 * np.exp(log_scale) * inside * (1 - inside))
    expected = -np.log(density).sum((1, 2, 3))
    np.testing.assert_allclose(misfit.detach().numpy(), expected, rtol=1e-12)


def test_divergence_is_that_from_the_uniform_prior(generator):
    model, x = new(), pixels(4)
    _, divergence = model.relaxed_terms(x, 1.0, generator)
    posterior = torch.distributions.Categorical(logits=model.posterior_logits(x))
    prior = torch.distributions.Categorical(logits=torch.zeros(11))
    expected = torch.distributions.kl_divergence(posterior, prior).sum((1, 2))
    torch.testing.assert_close(divergence, expected)


def test_bound_is_that_of_the_most_probable_codes():
    model, x = new().eval(), pixels(4)
    mean, log_scale = model._mean_and_log_scale(model.vectors(model.encode(x)[0]))
    fit = log_density(0.8 * x + 0.1, mean, log_scale).sum((1, 2, 3))
    torch.testing.assert_close(model.negative_elbo(x), -fit + 4 * math.log(11))


def test_codes_do_not_depend_on_the_batch():
    model, x = new().eval(), pixels(6)
    alone = torch.cat([model.encode(x[i : i + 1])[0] for i in range(6)])
    assert torch.equal(model.encode(x)[0], alone)


def test_gradients_reach_every_parameter(generator):
    model = new().train()
    objective = build_objective(ObjectiveSpec(name="dvae"))
    objective(model, pixels(4), 100, generator).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_state_dict_holds_everything():
    model, twin, x = new().eval(), new().eval(), pixels(4)
    assert not torch.equal(model.reconstruct(x), twin.reconstruct(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model.reconstruct(x), twin.reconstruct(x))


def test_networks_have_the_released_layers():
    model = DVAE((3, 64, 64), codes=50, hidden=16)
    blocks = [m for m in model.encoder if isinstance(m, BottleneckBlock)]
    assert [b.convs[-1].out_channels for b in blocks] == [16, 16, 32, 32, 64, 64, 128, 128]
    assert [b.gain for b in blocks] == [1 / 64] * 8
    assert [c.kernel_size[0] for c in blocks[0].convs] == [3, 3, 3, 1]
    assert model.encoder[0].kernel_size == (7, 7)
    assert model.encoder[-1].kernel_size == (1, 1)
    assert sum(isinstance(m, torch.nn.MaxPool2d) for m in model.encoder) == 3
    blocks = [m for m in model.decoder if isinstance(m, BottleneckBlock)]
    assert [b.convs[-1].out_channels for b in blocks] == [128, 128, 64, 64, 32, 32, 16, 16]
    assert model.decoder[-1].out_channels == 6
    assert model.grids == ((8, 8),)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(DeclarationError, match="halved 3 times"):
        build(ModelSpec(name="dvae:DVAE", args=SMALL), (3, 12, 12))
    with pytest.raises(DeclarationError, match="no images"):
        build(ModelSpec(name="dvae:DVAE", args=SMALL), (64,))


# ----------------------------------------------------------------- the loss


def test_schedules_at_their_ends_and_in_the_middle():
    for start, end, steps in [(0.0, 6.6, 5_000), (1.0, 1 / 16, 150_000)]:
        assert half_cosine(start, end, steps, 0) == start
        assert half_cosine(start, end, steps, steps // 2) == pytest.approx((start + end) / 2)
        assert half_cosine(start, end, steps, steps) == end
        assert half_cosine(start, end, steps, 10 * steps) == end
        quarter = end + (start - end) * (1 + math.sqrt(0.5)) / 2
        assert half_cosine(start, end, steps, steps // 4) == pytest.approx(quarter)


@pytest.mark.parametrize(
    ("step", "beta", "temperature"), [(0, 0, 1), (2, 3.3, 0.75), (9, 6.6, 0.5)]
)
def test_training_loss_weighs_the_divergence_by_the_step(step, beta, temperature):
    model, x = new().train(), pixels(4)
    args = {"kl_steps": 4, "temperature": 0.5, "temperature_steps": 4}
    objective = build_objective(ObjectiveSpec(name="dvae", args=args))
    loss = objective(model, x, step, torch.Generator().manual_seed(2))
    misfit, divergence = model.relaxed_terms(x, temperature, torch.Generator().manual_seed(2))
    dimensions = 3 * 8 * 8
    torch.testing.assert_close(loss.total, (misfit + beta * divergence).mean() / dimensions)
    torch.testing.assert_close(loss.terms["reconstruction"], misfit.mean() / dimensions)
    torch.testing.assert_close(loss.terms["divergence"], divergence.mean() / dimensions)


def test_weight_of_a_code_s_divergence_is_the_paper_s():
    """With 256 x 256 x 3 dimensions and 32 x 32 codes: beta / 192 for the mean over codes."""
    model, x = new(poolings=3, side=16).train(), pixels(2, side=16)
    objective = build_objective(ObjectiveSpec(name="dvae"))
    loss = objective(model, x, 5_000, torch.Generator().manual_seed(2))
    _, divergence = model.relaxed_terms(x, 1.0, torch.Generator())
    weighted = (loss.total - loss.terms["reconstruction"]).detach()
    torch.testing.assert_close(weighted, 6.6 / 192 * divergence.mean().detach() / 4)


def test_evaluation_depends_on_neither_step_nor_noise():
    model, x = new().eval(), pixels(4)
    objective = build_objective(ObjectiveSpec(name="dvae"))
    first = objective(model, x, 0, torch.Generator().manual_seed(2)).total
    last = objective(model, x, 10**6, torch.Generator().manual_seed(3)).total
    assert torch.equal(first, last)
    torch.testing.assert_close(first, model.negative_elbo(x).mean() / (3 * 8 * 8))


def test_noise_moves_pixels_within_its_width_and_decoded_ones_back():
    """In training it is uniform, otherwise its middle; the range stays that of pixels."""
    model, x, seen = new(noise=0.25), pixels(64).round(), []
    plain = model.posterior_logits
    model.posterior_logits = lambda x: (seen.append(x), plain(x))[1]
    model.relaxed_terms(x, 1.0, torch.Generator().manual_seed(2))
    model.encode(x)
    trained, encoded = seen
    u = (trained * 1.25 - x) / 0.25
    assert u.min() >= -1e-9
    assert u.max() <= 1 + 1e-9
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert u.var() == pytest.approx(1 / 12, abs=0.005)
    torch.testing.assert_close(encoded, (x + 0.125) / 1.25)
    same = new()
    same.load_state_dict(model.state_dict())
    bound = same.negative_elbo((x + 0.125) / 1.25)
    torch.testing.assert_close(model.negative_elbo(x), bound)
    codes = model.encode(x)
    raw = (same.decode(codes) * 1.25 - 0.125).clamp(0, 1)
    torch.testing.assert_close(model.decode(codes), raw)
    with pytest.raises(DeclarationError, match=r"noise -0.1: is negative"):
        new(noise=-0.1)


@pytest.mark.parametrize(
    "args", [{"kl_weight": -1.0}, {"kl_steps": 0}, {"temperature": 0.0}, {"temperature_steps": 0}]
)
def test_numbers_that_make_no_sense_are_refused(args):
    with pytest.raises(DeclarationError, match=r"kl_weight|kl_steps|temperature"):
        build_objective(ObjectiveSpec(name="dvae", args=args))


def test_loss_asks_for_a_discrete_vae_of_images():
    gaussian = build(ModelSpec(name="gaussian:Gaussian"), (3,))
    with pytest.raises(DeclarationError, match="relaxation"):
        require_fit(ObjectiveSpec(name="dvae"), gaussian)
    require_fit(ObjectiveSpec(name="dvae"), new())


def test_mixed_precision_leaves_codes_and_loss_in_single(generator):
    torch.set_default_dtype(torch.float32)
    model = new().train()
    objective = build_objective(ObjectiveSpec(name="dvae"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, pixels(4), 10, generator)
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_digits_are_learned(generator):
    from sklearn.datasets import load_digits

    torch.set_default_dtype(torch.float32)
    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None]
    # Noise keeps the density of pixels that are always 0 from growing without end.
    x = (x + torch.rand(x.shape, generator=generator)) / 17
    train, held_out = x[:1500], x[1500:]
    model = DVAE((1, 8, 8), codes=32, hidden=16, blocks=1, poolings=1, dim=64).train()
    args = {"kl_weight": 0.3, "kl_steps": 100, "temperature_steps": 200}
    objective = build_objective(ObjectiveSpec(name="dvae", args=args))
    optimizer = build_optimizer(OptimizerSpec(name="adamw", lr=1e-2), model)
    with torch.no_grad():
        before = model.negative_elbo(held_out).mean()
    train_briefly(model, objective, optimizer, train, 200, generator)
    with torch.no_grad():
        error = (model.reconstruct(held_out) - held_out).square().mean()
        assert model.negative_elbo(held_out).mean() < before - 60
    # The mean image has an error of 1 on this scale.
    assert error < 0.55 * held_out.var(0).mean()
