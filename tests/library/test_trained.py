"""A trained model in its data's own units: what it says is what its cell's metrics measure."""

import math
from functools import cache

import pytest
import torch
from kept_models import keep

import dgm_bench
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.images import dequantise
from dgm_bench.errors import UsageError
from dgm_bench.library.abilities import ABILITIES
from dgm_bench.library.rebuilt import _untrained
from dgm_bench.library.trained import TrainedModel
from dgm_bench.metrics.bounds.likelihood import likelihood_metrics
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.models.flows.realnvp import RealNVP

TOY, IMAGES = "ffjord/density/maf-5/8gaussians", "ffjord/density/made/digits"
CONTINUOUS, VAE = "ffjord/density/ffjord/8gaussians", "ffjord/vi/no-flow/digits-binary"
CODES = "vqvae2/diversity/vqvae-2-pixelcnn/digits-precision"


METRICS = {VAE: ("elbo",), CODES: ()}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads each model once: its class tells what it has of its own."""
    folder = tmp_path_factory.mktemp("results")

    @cache
    def loaded(cell):
        keep(folder, cell, metrics=METRICS.get(cell, ("nll",)))
        return dgm_bench.load(cell, results=folder, stored="none", data_root=folder)

    return loaded


def nll_of(model, x):
    """In the unit of the cell."""
    nats = -model.log_prob(x).mean().item()
    bits = model.data.unit == "bits/dim"
    return nats / (model.data.dim * math.log(2)) if bits else nats


@pytest.mark.parametrize("cell", [TOY, IMAGES, CONTINUOUS, "ffjord/density/gaussian/digits"])
def test_log_prob_is_what_the_metric_measures(load, cell):
    model = load(cell)
    assert nll_of(model, model.examples()) == pytest.approx(
        model.record.metric("nll").value, rel=1e-6
    )


def test_log_prob_of_images_is_of_grey_levels_by_the_change_of_variables(load):
    model = load(IMAGES)
    pixels = model.examples(n=3)
    assert pixels.shape == (3, 1, 8, 8)
    assert 0 <= pixels.min() < pixels.max() <= 1
    flat = pixels.flatten(1).requires_grad_()
    inputs = model.data.from_pixels(flat)
    (slopes,) = torch.autograd.grad(inputs.sum(), flat)
    of_inputs = model.module.log_prob(inputs.float()).double()
    expected = of_inputs.detach() + slopes.log().sum(1) - 64 * math.log(17)
    torch.testing.assert_close(model.log_prob(pixels), expected, rtol=1e-6, atol=1e-4)


def test_examples_of_sets_that_are_dequantised_are_those_of_the_metric(load, tmp_path):
    recipe = load(TOY).recipe
    stored = torch.randint(0, 256, (40, 1, 2, 2), dtype=torch.uint8)
    data = Dataset(
        "levels",
        "1",
        {"train": stored, "test": stored},
        dequantise=dequantise,
        image_shape=(1, 2, 2),
        to_pixels=lambda x: x,
    )
    short = recipe.evaluation.model_copy(update={"batch_size": 16})
    recipe = recipe.model_copy(update={"evaluation": short})
    module = RealNVP((1, 2, 2), layers=2).float().eval()
    model = TrainedModel("a cell", recipe, 5, None, module, data, tmp_path)
    (measured,) = likelihood_metrics(Evaluation(module, data, short, 5, tmp_path))
    assert nll_of(model, model.examples()) == pytest.approx(measured.value, rel=1e-7)
    assert nll_of(model, model.examples(seed=6)) != pytest.approx(measured.value, rel=1e-7)


def test_flows_are_undone_by_their_noise(load):
    model = load(IMAGES)
    x = model.examples("val", n=20)
    noise = model.encode(x)
    assert noise.shape == (20, 64)
    torch.testing.assert_close(model.decode(noise), x, rtol=0, atol=1e-5)
    assert model.sample(3).shape == (3, 1, 8, 8)


def test_a_seed_decides_the_noise_and_nothing_else_is_drawn(load):
    model = load(VAE)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    _untrained(model.recipe, 0, model.data.event_shape)
    x = model.examples(n=5)
    for drawn in (
        model.sample,
        lambda n, seed: model.elbo(x, seed),
        lambda n, seed: model.encode(x, seed),
    ):
        assert torch.equal(drawn(4, seed=1), drawn(4, seed=1))
        assert not torch.equal(drawn(4, seed=1), drawn(4, seed=2))
    assert torch.equal(state, torch.get_rng_state())


def test_the_bound_is_what_the_metric_measures_and_more_draws_make_it_tighter(load):
    model = load(VAE)
    x = model.examples()
    measured = model.record.metric("negative-elbo-exact").value
    assert -model.elbo(x, seed=model.seed).mean().item() == pytest.approx(measured, rel=1e-6)
    few, many = (model.elbo(x[:50], samples=samples).mean() for samples in (2, 64))
    assert model.elbo(x[:50]).mean() < few < many
    assert model.encode(x[:3]).shape == (3, 8)
    again = model.reconstruct(x[:3])
    torch.testing.assert_close(again, model.decode(model.encode(x[:3])))
    assert again.shape == x[:3].shape


def test_codes_stand_for_images(load):
    model = load(CODES)
    x = model.examples(n=4)
    codes = model.encode(x)
    assert [len(level) for level in codes] == [4, 4]
    torch.testing.assert_close(model.decode(codes), model.reconstruct(x))
    assert model.reconstruct(x).shape == x.shape
    noise = torch.Generator().manual_seed(4)
    expected = model.module.draw_images(torch.tensor([1, 2, 9]), noise)
    assert torch.equal(model.sample(3, seed=4, labels=[1, 2, 9]), expected)
    with pytest.raises(UsageError, match="3 below 10 are needed; give others, or none"):
        model.sample(3, labels=[10, 0, 0])


def test_what_a_model_cannot_do_is_told_with_what_it_can(load):
    model = load(VAE)
    with pytest.raises(UsageError) as told:
        model.log_prob(model.examples(n=1))
    what = "has no log density; it can sample, elbo, reconstruct, encode, decode"
    assert str(told.value) == f"{VAE}: DenseVAE {what}"
    flow = load(TOY)
    assert flow.can == ("sample", "log_prob", "encode", "decode")
    for name in ABILITIES.keys() - set(flow.can):
        with pytest.raises(UsageError, match="it can sample, log_prob, encode, decode"):
            getattr(flow, name)(flow.examples(n=1))
    with pytest.raises(UsageError, match="there are no classes"):
        flow.sample(1, labels=[1])


@pytest.mark.parametrize("x", [[1.0, 2.0], torch.zeros(3, 4), torch.zeros(2, 3, 1)])
def test_examples_of_another_shape_are_refused(load, x):
    model = load(TOY)
    with pytest.raises(UsageError, match=r"shape \(2\); give \(n, 2\)"):
        model.log_prob(x)


def test_arrays_and_lists_are_examples_too(load):
    model = load(TOY)
    x = model.examples(n=3)
    for same in (x.numpy(), x.tolist(), x.double()):
        torch.testing.assert_close(model.log_prob(same), model.log_prob(x))


def test_a_split_that_is_not_there_is_told(load):
    model = load(TOY)
    with pytest.raises(UsageError, match="no such split of 8gaussians; use one of"):
        model.examples("tests")
