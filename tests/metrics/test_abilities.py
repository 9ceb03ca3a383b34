"""The columns of FFJORD's Table 1 as experiments: each finds what is so, and what is not."""

from pathlib import Path

import pytest
import torch
from factories import make_context, make_stage
from torch import nn

from dgm_bench.data import load
from dgm_bench.data.toys import eight_gaussians_log_density
from dgm_bench.errors import DataUnavailable, DeclarationError
from dgm_bench.metrics.abilities import exactness
from dgm_bench.metrics.abilities.abilities import EXPERIMENTS
from dgm_bench.metrics.abilities.depth import depth_of, growth
from dgm_bench.metrics.abilities.jacobians import jacobians, roughen, span
from dgm_bench.metrics.evaluate import evaluate, prepare, require_fit
from dgm_bench.metrics.quadrature import log_marginal
from dgm_bench.models.build import build, build_like
from dgm_bench.models.flows.gaussian import Gaussian
from dgm_bench.models.flows.made import GaussianMADE
from dgm_bench.models.flows.realnvp import AffineCoupling
from dgm_bench.models.latent.vae import GaussianVAE
from dgm_bench.spec import (
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import build_objective

# --------------------------------------------------------------------------- sequential cost


def test_a_chain_is_counted_and_views_are_free():
    x = torch.randn(4, 4)
    assert depth_of(lambda: x.T.reshape(4, 4)[0]) <= 1
    assert depth_of(lambda: ((x + 1) * 2).exp().T) == 3
    assert depth_of(lambda: torch.stack([x + 1, x + 2, x + 3]).sum(0)) == 3


def test_writing_into_a_part_makes_the_whole_wait():
    def running_product():
        x = torch.ones(6)
        for i in range(1, 6):
            x[i] = 2 * x[i - 1]
        return x

    assert depth_of(running_product) >= 10


def test_depth_tells_a_loop_over_dimensions_from_a_network():
    def depths(name, **args):
        found = {}
        for dim in (4, 8, 16):
            model = build(ModelSpec(name=name, args={"hidden": [32], **args}), (dim,))
            found[dim] = depth_of(lambda m=model: m.sample(2, torch.Generator()))
        return found

    assert growth(depths("maf:MAF", layers=2)) > 0.8
    assert growth(depths("realnvp:RealNVP", layers=2)) == 0
    assert growth(depths("gan:GAN")) == 0


# ------------------------------------------------------------------------------- Jacobians


def perceptron(inputs, width, outputs):
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


def test_jacobians_are_those_of_each_example():
    network, x = perceptron(3, 5, 2), torch.randn(4, 3)
    expected = torch.stack([torch.autograd.functional.jacobian(network, row) for row in x])
    torch.testing.assert_close(jacobians(network, x), expected)


def layer(module):
    roughen(module, torch.Generator().manual_seed(0))
    return lambda x: module.forward_and_log_det(x)[0]


SPANS = {
    "linear: one matrix": (nn.Linear(6, 6), 1),
    "planar: identity and a rank-one matrix": (
        lambda z: z + torch.tanh(z.sum(1, keepdim=True)) * torch.arange(1.0, 7.0),
        2,
    ),
    "three planar dynamics: three rank-one matrices": (perceptron(6, 3, 6), 3),
    "autoregressive: a triangle": (lambda x: layer(GaussianMADE(6, [32]))(x), 21),
    "two hidden layers: everything": (
        nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 6)),
        36,
    ),
}


@pytest.mark.parametrize("name", SPANS)
def test_jacobians_span_what_the_architecture_allows(name):
    function, rank = SPANS[name]
    if isinstance(function, nn.Module):
        roughen(function.double(), torch.Generator().manual_seed(0))
    found = span(function, 2 * torch.randn(150, 6))
    assert found.entries == 36
    assert found.rank == rank
    assert found.free == (rank == 36)


def test_a_coupling_spans_its_triangle_only():
    found = span(layer(AffineCoupling(6, [32], keep_even=True)), 2 * torch.randn(150, 6))
    # Nine entries of the moved by the kept, three of their scales, and the identity of the kept.
    assert found.rank == 13


# ---------------------------------------------------------------------------- exactness


def fitted_gaussian():
    model = Gaussian((2,))
    model.calibrate(torch.randn(1000, 2) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]]))
    return model


def test_a_density_agrees_with_its_samples(generator):
    found = exactness.by_quadrature(fitted_gaussian(), generator)
    assert found.exact
    assert found.mass == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("mistake", ["not normalised", "elsewhere"])
def test_a_wrong_density_is_found_out(mistake, generator):
    model = fitted_gaussian()
    right = model.log_prob
    if mistake == "not normalised":
        model.log_prob = lambda x: right(x) + 0.03
    else:
        model.log_prob = lambda x: right(x + 0.1)
    assert not exactness.by_quadrature(model, generator).exact


def test_the_gap_of_a_bound_is_the_divergence_of_its_posterior(generator):
    """A decoder that ignores the latent variables has the prior as its posterior."""
    model = GaussianVAE((2,), hidden=[4])
    for linear in (model.encoder[-1], model.decoder[-1]):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    x = torch.randn(50, 2)
    assert exactness.of_bound(model, x, generator).tight
    with torch.no_grad():
        model.encoder[-1].bias[0] = 0.3
    found = exactness.of_bound(model, x, generator)
    assert not found.tight
    assert found.gap == pytest.approx(0.5 * 0.3**2, abs=1e-4)


def test_log_likelihood_of_a_linear_decoder_is_gaussian():
    """Two latent variables through ``x = A z + b + noise`` make N(b, A A' + diag(s^2))."""
    model = GaussianVAE((2,), hidden=[])
    mix, shift, log_scale = torch.randn(2, 2), torch.randn(2), torch.tensor([-0.3, 0.2])
    with torch.no_grad():
        model.decoder[0].weight.copy_(torch.cat([mix, torch.zeros(2, 2)]))
        model.decoder[0].bias.copy_(torch.cat([shift, log_scale]))
        x = torch.randn(10, 2)
        covariance = mix @ mix.T + (2 * log_scale).exp().diag()
        expected = torch.distributions.MultivariateNormal(shift, covariance).log_prob(x)
        found = log_marginal(model, x, 200, exactness.REACH)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------- objectives


def objective(name, **args):
    return build_objective(ObjectiveSpec(name=name, args=args), Path("no data"))


def test_reverse_kl_is_zero_at_the_target_and_the_divergence_elsewhere(data, generator):
    class Known(nn.Module):
        def sample_with_log_prob(self, n, generator):
            x = data.splits["test"][:n].double()
            return x, eight_gaussians_log_density(x) + 0.25

    loss = objective("reverse-kl", target="8gaussians")(Known(), torch.empty(9, 2), 0, generator)
    assert loss.total.item() == pytest.approx(0.25)


def test_reverse_kl_loads_its_target_from_the_data_root():
    spec = ObjectiveSpec(name="reverse-kl", args={"target": "8gaussians"})
    with pytest.raises(DeclarationError, match="no data root"):
        build_objective(spec)
    spec = ObjectiveSpec(name="reverse-kl", args={"target": "mnist"})
    with pytest.raises(DataUnavailable, match="below no data"):
        build_objective(spec, Path("no data"))


def test_reverse_kl_needs_a_known_density():
    with pytest.raises(DeclarationError, match="no known density"):
        objective("reverse-kl", target="moons")


# ------------------------------------------------------------------------- whole rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load("8gaussians", tmp_path_factory.mktemp("data"), offline=True)


def trained(data, model, objective="nll", steps=150):
    stage = make_stage(
        model,
        objective=ObjectiveSpec(
            name=objective, args={"target": data.name} if objective == "reverse-kl" else {}
        ),
        optimizer=OptimizerSpec(name="adam", lr=5e-3),
        batch_size=128,
        validation=ValidationSpec(every=steps, unit="steps"),
        stopping=StoppingSpec(max_steps=steps),
    )
    model = build(stage.model, data.event_shape).float()
    trainer = Trainer(stage, model, data.to("cpu", torch.float32), make_context(), seed=0)
    trainer.run()
    return trainer


#: Answers as published: trains on data, one-pass sampling, exact log-likelihood, free-form.
RK4 = {"solver": "rk4", "step_size": 0.1, "adjoint": False}
ROWS = {
    "vae": ("vae:GaussianVAE", {}, "elbo", "yyny"),
    "gan": ("gan:GAN", {}, "adversarial", "yyny"),
    "made": ("made:MADE", {"hidden": [64]}, "nll", "ynyn"),
    "maf": ("maf:MAF", {"layers": 2, "hidden": [32]}, "nll", "ynyn"),
    "tan": ("tan:TAN", {"groups": 2, "units": 16, "components": 4}, "nll", "ynyn"),
    "planar": ("planar:PlanarFlow", {"layers": 4}, "reverse-kl", "nyyn"),
    "nice": ("nice:NICE", {"hidden": [32]}, "nll", "yyyn"),
    "realnvp": ("realnvp:RealNVP", {"layers": 3, "hidden": [32]}, "nll", "yyyn"),
    "planar-cnf": ("planar:PlanarCNF", {"width": 32, **RK4}, "nll", "yyyn"),
    "ffjord": ("ffjord:FFJORD", {"hidden": [32, 32], **RK4}, "nll", "yyyy"),
}


@pytest.mark.usefixtures("unchecked")  # long trainings
@pytest.mark.parametrize("row", ROWS)
def test_small_models_have_the_published_abilities(row, data, monkeypatch):
    monkeypatch.setattr(exactness, "CELLS", 30)
    name, args, objective, expected = ROWS[row]
    steps = 300 if row in ("vae", "gan") else 60
    model = trained(data, ModelSpec(name=name, args=args), objective, steps).model
    spec = EvaluationSpec(metrics=("abilities",), checkpoint="last")
    prepare(model, data, spec)
    metrics = evaluate(model, data, spec, 0, Path())
    assert [metric.name for metric in metrics] == list(EXPERIMENTS)
    said = {metric.name: metric.protocol for metric in metrics}
    assert "".join("ny"[int(metric.value)] for metric in metrics) == expected, said


def test_an_untrained_model_has_not_been_trained_on_data(data):
    model = build(ModelSpec(name="realnvp:RealNVP", args={"hidden": [8]}), (2,)).float()
    data = data.to("cpu", torch.float32)
    torch.manual_seed(0)
    model.load_state_dict(build_like(model, (2,)).state_dict())
    model.float().calibrate(data.splits["train"])
    experiment = EXPERIMENTS["trains-on-data"]
    assert not experiment(model.eval(), data, data.splits["test"], torch.Generator()).holds


def test_other_dimensions_than_two_are_refused():
    data = load("digits", Path(), offline=True)
    spec = EvaluationSpec(metrics=("abilities",))
    with pytest.raises(DeclarationError, match="use two dimensions"):
        require_fit(spec, Gaussian((64,)), data, Path())


def test_validation_without_a_density_is_the_objective_with_the_same_noise(data):
    trainer = trained(data, ModelSpec(name="vae:GaussianVAE"), "elbo", steps=5)
    before = trainer.state.noise.get_state()
    values = [trainer.validation.measure() for _ in range(2)]
    assert values[0] == values[1]
    assert torch.equal(before, trainer.state.noise.get_state())
    x = data.splits["val"].float()
    expected = -trainer.model.elbo(x, torch.Generator().manual_seed(0)).mean()
    assert values[0] == pytest.approx(expected.item(), rel=1e-3)
