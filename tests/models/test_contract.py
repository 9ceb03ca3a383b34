"""The contract of models, checked for all of them in small configurations."""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch
from torch import nn

import dgm_bench.models
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasInverse, HasLogProb, HasSample, InitialisesOnData
from dgm_bench.models.flows.layers.actnorm import EdgeMap, ZeroConv
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.naf import DenseSigmoidalFlow
from dgm_bench.models.flows.nice import Scaling
from dgm_bench.models.flows.realnvp_images import CheckerboardCoupling, MultiScaleRealNVP
from dgm_bench.models.flows.tan import TAN
from dgm_bench.models.names import MODELS
from dgm_bench.spec import ModelSpec

SMALL_FLOW = {"flows": 1, "hidden": [6], "rank": 2}
ODE = {"rtol": 1e-10, "atol": 1e-10, "flows": 2}
SMALL_HVAE = {"latents": [3, 2], "filters": 4, "hidden": 8, "maps": 4, "components": 3}
SMALL_HVAE |= {"init_mean": 0.5, "init_std": 0.3}
CASES = {
    "gaussian": ("gaussian:Gaussian", {}),
    "made": ("made:MADE", {"hidden": [24, 24]}),
    "made-random": ("made:MADE", {"hidden": [24], "degrees": "random", "activation": "tanh"}),
    "made-mog": ("made:MADE", {"hidden": [24], "components": 3}),
    "maf": ("maf:MAF", {"layers": 3, "hidden": [24, 24]}),
    "maf-plain": ("maf:MAF", {"layers": 2, "hidden": [24], "batch_norm": False}),
    "maf-mog": ("maf:MAF", {"layers": 2, "hidden": [24], "components": 3}),
    "glow": ("glow:TabularGlow", {"layers": 3, "hidden": [16, 16]}),
    "nsf-coupling": ("nsf:NSFCoupling", {"layers": 2, "hidden": 16, "blocks": 1, "bins": 4}),
    "nsf-autoregressive": (
        "nsf:NSFAutoregressive",
        {"layers": 2, "hidden": 16, "blocks": 2, "bins": 4},
    ),
    "realnvp": ("realnvp:RealNVP", {"layers": 3, "hidden": [24, 24]}),
    "maf-ddsf": ("naf:MAFDDSF", {"layers": 2, "hidden": [24], "sigmoid_dim": 5}),
    "maf-ddsf-deep": (
        "naf:MAFDDSF",
        {"layers": 2, "hidden": [24, 20], "sigmoid_dim": 4, "sigmoid_layers": 2},
    ),
    "ffjord-1": ("ffjord:FFJORD", {"hidden": [12], "layer": "concat", **ODE}),
    "ffjord-2": ("ffjord:FFJORD", {"hidden": [12, 10], "activation": "softplus", **ODE}),
    "ffjord-3": ("ffjord:FFJORD", {"hidden": [12, 10, 8], **ODE}),
    "tan": ("tan:TAN", {"groups": 3, "units": 12, "components": 3}),
    "tan-after": (
        "tan:TAN",
        {"groups": 2, "units": 12, "components": 3, "parameter_layers": 1, "cell": "reset-after"},
    ),
    "nice": ("nice:NICE", {"layers": 3, "hidden": [24, 24]}),
    "nice-logistic": ("nice:NICE", {"layers": 2, "hidden": [24], "base": "logistic"}),
    "planar": ("planar:PlanarFlow", {"layers": 6}),
    "cnf-planar": (
        "planar:PlanarCNF",
        {"width": 10, "gate_hidden": 6, "rtol": 1e-10, "atol": 1e-10},
    ),
    "glow-images": ("glow_images:Glow", {"levels": 2, "depth": 2, "width": 8}),
    "realnvp-images": (
        "realnvp_images:MultiScaleRealNVP",
        {"features": 6, "blocks": 1, "alpha": None},
    ),
    "vae": ("vae:GaussianVAE", {"hidden": [8]}),
    "gan": ("gan:GAN", {"hidden": [8]}),
    "gated-vae": ("gated_vae:DenseVAE", {"latent": 3, "hidden": 8}),
    "gated-vae-images": ("gated_vae:ConvVAE", {"latent": 3}),
    "resnet-vae-images": (
        "resnet_vae:ResNetVAE",
        {"latent": 3, "channels": [4, 6], "strides": [2, 1], "hidden": 8},
    ),
    "conv-hvae-images": ("vamp_hvae:ConvHVAE", SMALL_HVAE),
    "pixel-hvae-images": ("vamp_hvae:PixelHVAE", SMALL_HVAE),
    "gated-vae-continuous": (
        "gated_vae:ContinuousDenseVAE",
        {"latent": 3, "hidden": 8, "posterior_args": SMALL_FLOW},
    ),
    "gated-vae-continuous-images": (
        "gated_vae:ContinuousConvVAE",
        {"latent": 3, "posterior_args": SMALL_FLOW},
    ),
    "avb": ("avb:AVB", {"hidden": [8]}),
    "avb-vae": ("avb:VAE", {"hidden": [8]}),
    "discrete-vae": (
        "discrete:DiscreteVAE",
        {"variables": 3, "classes": 4, "decoder_hidden": [8]},
    ),
    "discrete-vae-learnt-prior": (
        "discrete:LearntPriorDiscreteVAE",
        {"variables": 3, "classes": 4, "decoder_hidden": [8]},
    ),
    "structured-prediction": (
        "structured_prediction:StructuredPrediction",
        {"variables": 3, "classes": 4},
    ),
    "hierarchical-vae": (
        "hierarchical_vae:HierarchicalVAE",
        {"latents": [3, 2, 2], "hidden": [[8], [6], [5]]},
    ),
    "ffjord-images": (
        "ffjord_images:MultiScaleFFJORD",
        {"flows": 1, "filters": [4], "alpha": None, "rtol": 1e-9, "atol": 1e-9},
    ),
    "ffjord-images-single": (
        "ffjord_images:EncoderDecoderFFJORD",
        {"filters": [4, 4, 6, 6], "alpha": None, "rtol": 1e-9, "atol": 1e-9},
    ),
    "vqvae-images": ("vqvae:VQVAE", {"strides": [2], "hidden": 8, "codes": 8}),
    "vqvae2-images": ("vqvae:VQVAE2", {"strides": [2, 2], "hidden": 8, "codes": 8}),
    "dvae-images": ("dvae:DVAE", {"codes": 8, "hidden": 8, "blocks": 1, "poolings": 1}),
    "ffjord-rk4": (
        "ffjord:FFJORD",
        {"hidden": [12], "solver": "rk4", "step_size": 0.02, "adjoint": False},
    ),
}
SHAPES = [(2,), (3,), (6,), (1, 4, 4)]
#: Not square, so that height and width cannot be exchanged; the smallest that is for slow models.
IMAGE_SHAPES, SOLVED_IMAGE_SHAPE = [(1, 4, 8), (3, 8, 4)], (1, 4, 4)


def new(case, shape):
    name, args = CASES[case]
    return away_from_zero(build(ModelSpec(name=name, args=args), shape))


def away_from_zero(model):
    """Draw what begins as zero and so hides what comes before it."""
    for module in model.modules():
        if isinstance(module, ZeroConv | EdgeMap):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.05)
        if isinstance(module, CheckerboardCoupling):
            nn.init.normal_(module.scale)
    return model


def ready(case, shape):
    """A model as training leaves it: statistics set, batch norms away from the identity."""
    model = new(case, shape)
    for module in model.modules():
        if isinstance(module, FlowBatchNorm):
            nn.init.normal_(module.log_gamma, std=0.3)
            nn.init.normal_(module.beta, std=0.3)
        if isinstance(module, DenseSigmoidalFlow):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.1)
        if isinstance(module, TAN | Scaling):
            for parameter in module.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
    if isinstance(model, InitialisesOnData):
        model.initialise(torch.randn(50, *shape) * 1.5 + 0.3)
    if isinstance(model, MultiScaleRealNVP):
        model.log_prob(torch.randn(200, *shape) * 1.5 + 0.3)
    if hasattr(model, "calibrate"):
        model.calibrate(torch.randn(200, *shape) * 1.5 + 0.3, batch_size=64)
    return model.eval()


def solved_roughly(model, case):
    """Return a model whose solver, if it has one, is as exact as finite numbers need."""
    if is_ode(case):
        model.solve_with(rtol=1e-4, atol=1e-4, step_size=0.1)
    return model


def is_ode(case):
    return case.startswith(("ffjord", "cnf"))


def shapes_of(case, odes):
    """Shapes that a case is tested on; models of images take images alone."""
    if "images" in case:
        return [SOLVED_IMAGE_SHAPE] if is_ode(case) else IMAGE_SHAPES
    return odes if is_ode(case) else SHAPES


def any_shape(case):
    return shapes_of(case, [(3,)])[0] if "images" in case else (3,)


def combinations(cases, odes=((2,), (1, 4, 4))):
    """Every case with every shape, but the slower continuous flows with those of ``odes``."""
    pairs = [(case, shape) for case in cases for shape in shapes_of(case, odes)]
    return pytest.mark.parametrize(("case", "shape"), pairs, ids=lambda p: str(p).replace(" ", ""))


every_model = pytest.mark.parametrize("case", CASES)
#: Base classes of models.
BASES = ("Flow", "SolvedFlow", "LatentVariableModel", "ImageGame", "GrowingGame", "PixelModel")
BASES += ("ImageClassifier",)
#: Models with a density but without an invertible map.
NO_MAP = ("gaussian", "made-mog")
#: Models without a density.
NO_DENSITY = (
    "vae",
    "gan",
    "gated-vae",
    "gated-vae-images",
    "resnet-vae-images",
    "conv-hvae-images",
    "pixel-hvae-images",
    "gated-vae-continuous",
    "gated-vae-continuous-images",
    "avb",
    "avb-vae",
    "discrete-vae",
    "discrete-vae-learnt-prior",
    "hierarchical-vae",
    "structured-prediction",
    "vqvae-images",
    "vqvae2-images",
    "dvae-images",
)
#: Models of discrete codes, tested in test_code_priors.py and test_code_transformer.py, games of
#: images, tested in test_games.py, models of levels, tested in test_pixels.py, classifiers, tested
#: in classifiers/test_ode_network.py, and the identity, which has no parameters.
ELSEWHERE = {
    "pixelcnn:PixelCNN",
    "pixelcnnpp:PixelCNNPP",
    "pixelcnnpp_images:PixelCNNPP",
    "pixelsnail:PixelSNAIL",
    "pixelsnail_images:PixelSNAIL",
    "vqvae_levels:LevelVQVAE",
    "code_transformer:CodeTransformer",
    "joint_transformer:JointTransformer",
    "identity:Identity",
    "dcgan:DCGAN",
    "classifiers:ODENetwork",
    "classifiers:Perceptron",
    "classifiers:ResidualNetwork",
    "sagan:SAGAN",
    "biggan:BigGAN",
    "biggan_deep:BigGANDeep",
    "progan:ProGAN",
    "stylegan:StyleGAN",
}
#: First stages, which cannot be sampled without a prior, and what completes examples.
NO_SAMPLES = ("structured-prediction", "vqvae-images", "vqvae2-images", "dvae-images")
DENSITIES = [case for case in CASES if case not in NO_DENSITY]
FLOWS = [case for case in DENSITIES if case not in NO_MAP]
every_density = pytest.mark.parametrize("case", DENSITIES)


def test_every_model_is_under_contract():
    assert set(MODELS) == {name for name, _ in CASES.values()} | ELSEWHERE


def test_every_class_that_could_be_declared_has_a_name():
    """The table is written by hand: no model may be missing from it, and none stand in it twice."""
    found = set()
    for module in pkgutil.walk_packages(dgm_bench.models.__path__, "dgm_bench.models."):
        for name, cls in vars(importlib.import_module(module.name)).items():
            if (
                inspect.isclass(cls)
                and issubclass(cls, nn.Module)
                and cls.__module__ == module.name
            ):
                first = [*inspect.signature(cls).parameters, None][0]
                if first == "event_shape" and name not in BASES:
                    found.add(f"{module.name.removeprefix('dgm_bench.models.')}:{name}")
    assert sorted(MODELS.values()) == sorted(found)


@combinations(DENSITIES)
def test_shapes_and_capabilities(case, shape, generator):
    model = solved_roughly(ready(case, shape), case)
    assert isinstance(model, HasLogProb)
    assert isinstance(model, HasSample)
    x = model.sample(5, generator)
    assert x.shape == (5, *shape)
    assert model.log_prob(x).shape == (5,)
    assert torch.isfinite(model.log_prob(x)).all()


@combinations(DENSITIES, odes=[(3,), (1, 4, 4)])
def test_gradients_reach_every_parameter(case, shape):
    model = solved_roughly(new(case, shape), case)
    if case != "gaussian":
        model.log_prob(torch.randn(40, *shape)).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@combinations(FLOWS)
def test_inverse_undoes_forward(case, shape):
    model, x = ready(case, shape), torch.randn(7, *shape)
    assert isinstance(model, HasInverse)
    u, log_det = model.forward_and_log_det(x)
    assert u.shape == x.shape
    assert log_det.shape == (7,)
    tolerance = 1e-7 if is_ode(case) else 1e-9
    torch.testing.assert_close(model.inverse(u), x, rtol=0, atol=tolerance)


@combinations(FLOWS, odes=[(2,), (3,)])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_log_det_is_that_of_the_jacobian(case, shape):
    model, x = ready(case, shape), torch.randn(2, *shape)
    if is_ode(case):
        model.solve_with(adjoint=False)
    jacobian = torch.autograd.functional.jacobian(lambda z: model.forward_and_log_det(z)[0], x)
    square = jacobian.reshape(2, math.prod(shape), 2, math.prod(shape))
    expected = torch.stack([torch.linalg.slogdet(square[i, :, i]).logabsdet for i in range(2)])
    tolerance = 1e-7 if is_ode(case) else 1e-9
    _, log_det = model.forward_and_log_det(x)
    torch.testing.assert_close(log_det, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [case for case in DENSITIES if "images" not in case])
def test_two_dimensional_density_integrates_to_one(case):
    model = ready(case, (2,))
    if is_ode(case):
        model.solve_with(rtol=1e-3, atol=1e-3, step_size=0.1)
    x = model.sample(2000, torch.Generator().manual_seed(0))
    low, high = x.amin(0) - 3, x.amax(0) + 3
    n = 150
    axes = [low[d] + (high[d] - low[d]) * (torch.arange(n) + 0.5) / n for d in range(2)]
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(*axes)).exp()
    mass = density.sum() * (high - low).prod() / n**2
    assert abs(mass.item() - 1) < 0.01


@combinations(DENSITIES, odes=[(3,), (1, 4, 4)])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_state_dict_holds_everything(case, shape):
    model, x = solved_roughly(ready(case, shape), case), torch.randn(5, *shape)
    fresh = solved_roughly(new(case, shape).eval(), case)
    assert not torch.allclose(fresh.log_prob(x), model.log_prob(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize("case", [case for case in CASES if case not in NO_SAMPLES])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_sample_repeats_with_its_generator(case):
    model = solved_roughly(ready(case, any_shape(case)), case)
    first, again, other = (model.sample(4, torch.Generator().manual_seed(s)) for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_density
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_examples_do_not_touch_each_other_in_evaluation(case):
    shape = any_shape(case)
    model, x = ready(case, shape), torch.randn(6, *shape)
    alone = torch.cat([model.log_prob(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(model.log_prob(x), alone, rtol=0, atol=1e-7)


@every_model
def test_repr_names_the_class(case):
    model = new(case, any_shape(case))
    assert type(model).__name__ in repr(model)


@every_density
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_single_precision_agrees_with_double(case, generator):
    model = ready(case, any_shape(case))
    if is_ode(case):
        model.solve_with(rtol=1e-5, atol=1e-5)
    x = model.sample(10, generator)
    expected = model.log_prob(x)
    torch.testing.assert_close(
        model.float().log_prob(x.float()).double(), expected, rtol=1e-3, atol=1e-3
    )
    assert model.sample(2, generator).dtype == torch.float32


@pytest.mark.parametrize("case", ["gaussian", "made-mog", "maf-mog", "tan", "planar"])
def test_samples_follow_the_density(case):
    """The mean of ``q / p`` over draws from ``p`` is one, for a narrower density ``q``."""
    model = ready(case, (2,))
    x = model.sample(20_000, torch.Generator().manual_seed(3))
    centre, spread = x.mean(0), 0.4 * x.std(0)
    square = ((x - centre) / spread).square().sum(1)
    log_q = -0.5 * square - math.log(2 * math.pi) - spread.log().sum()
    ratio = (log_q - model.log_prob(x)).detach().exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(x))
