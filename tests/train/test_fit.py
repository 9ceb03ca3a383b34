"""What does not fit together is refused before anything is trained."""

from pathlib import Path

import pytest
import torch
from factories import make_dataset

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics import evaluate
from dgm_bench.models.build import build
from dgm_bench.spec import EvaluationSpec, ModelSpec, ObjectiveSpec
from dgm_bench.train import objectives

MODELS = {
    "nice": ModelSpec(name="nice:NICE", args={"hidden": [4]}),
    "gan": ModelSpec(name="gan:GAN"),
    "vae": ModelSpec(name="vae:GaussianVAE", args={"latent": 3}),
    "ffjord": ModelSpec(name="ffjord:FFJORD"),
    "vae-of-two": ModelSpec(name="vae:GaussianVAE", args={"latent": 2}),
    "gated": ModelSpec(name="gated_vae:DenseVAE", args={"latent": 3, "hidden": 4}),
    "moved": ModelSpec(
        name="gated_vae:DenseVAE", args={"latent": 2, "hidden": 4, "posterior": "planar"}
    ),
    "mixture": ModelSpec(
        name="gated_vae:DenseVAE", args={"latent": 2, "hidden": 4, "prior": "mixture"}
    ),
    "avb": ModelSpec(name="avb:AVB", args={"latent": 3}),
    "discrete": ModelSpec(name="discrete:DiscreteVAE", args={"variables": 2, "classes": 2}),
}


def data(dim):
    return make_dataset(torch.randn(20, dim), 10)


@pytest.mark.parametrize(
    ("model", "objective", "told"),
    [
        ("gan", "nll", "use adversarial"),
        ("vae", "nll", "use elbo"),
        ("nice", "elbo", "use nll"),
        ("nice", "rnode", "continuous flows"),
        ("nice", "flow-matching", "a velocity"),
        ("ffjord", "adversarial", "use nll or rnode or flow-matching"),
        ("ffjord", "nl", "did you mean 'nll'"),
    ],
)
def test_an_objective_that_a_model_cannot_serve_is_refused(model, objective, told):
    with pytest.raises(DeclarationError, match=told):
        objectives.require_fit(ObjectiveSpec(name=objective), build(MODELS[model], (2,)))


def test_several_samples_of_the_bound_need_draws():
    spec, model = ObjectiveSpec(name="elbo", args={"samples": 5}), build(MODELS["vae"], (2,))
    with pytest.raises(DeclarationError, match="leave samples at 1"):
        objectives.require_fit(spec, model)
    objectives.require_fit(spec, build(MODELS["gated"], (2,)))
    for name in ("elbo", "iwae"):
        with pytest.raises(DeclarationError, match="samples 0: is not positive"):
            objectives.build_objective(ObjectiveSpec(name=name, args={"samples": 0}))


@pytest.mark.parametrize(
    ("model", "dim", "metric", "told"),
    [
        ("gan", 2, "nll", "needs a log density"),
        ("nice", 3, "abilities", "toy has 3 dimensions"),
        ("vae", 2, "abilities", "the latent space has 3 dimensions"),
        ("nice", 2, "nl", "did you mean 'nll'"),
        ("gated", 2, "importance", r"set evaluation\.importance_samples"),
        ("moved", 2, "surgery", "metric 'surgery': needs a Gaussian posterior"),
        ("vae", 2, "surgery", "needs latent variables"),
        ("gan", 2, "avb", "needs a decoder"),
        ("vae-of-two", 2, "avb", "needs draws from a posterior, which GaussianVAE lacks"),
        ("gated", 2, "avb", "the latent space has 3 dimensions"),
        ("avb", 2, "avb", "the latent space has 3 dimensions"),
        ("mixture", 2, "avb", "needs a standard normal prior, not MixturePrior"),
        ("mixture", 2, "abilities", "needs a standard normal prior, not MixturePrior"),
    ],
)
def test_a_metric_that_cannot_be_taken_is_refused(model, dim, metric, told):
    spec = EvaluationSpec(metrics=(metric,))
    with pytest.raises(DeclarationError, match=told) as refused:
        evaluate.require_fit(spec, build(MODELS[model], (dim,)), data(dim), Path())
    assert "\n" not in str(refused.value)


def test_settings_of_a_solver_are_refused_where_there_is_none():
    spec = EvaluationSpec(model_overrides={"rtol": 1e-3})
    with pytest.raises(DeclarationError, match=r"model_overrides: NICE has no solver; leave"):
        evaluate.require_fit(spec, build(MODELS["nice"], (2,)), data(2), Path())
    evaluate.require_fit(spec, build(ModelSpec(name="ffjord:FFJORD"), (2,)), data(2), Path())


def test_what_fits_is_not_refused():
    fitting = [("moved", "avb"), ("mixture", "surgery"), ("vae-of-two", "abilities")]
    for model, metric in fitting:
        spec = EvaluationSpec(metrics=(metric,))
        evaluate.require_fit(spec, build(MODELS[model], (2,)), data(2), Path())


def test_the_score_function_needs_a_baseline_before_the_first_step():
    spec = ObjectiveSpec(name="discrete-elbo", args={"estimator": "sf"})
    with pytest.raises(DeclarationError, match="give baseline_hidden"):
        objectives.require_fit(spec, build(MODELS["discrete"], (2,)))
    args = {"variables": 2, "classes": 2, "baseline_hidden": [3]}
    objectives.require_fit(spec, build(ModelSpec(name="discrete:DiscreteVAE", args=args), (2,)))


def test_a_trace_that_is_misspelt_is_refused(unchecked):
    with pytest.raises(DeclarationError, match="did you mean 'estimate'"):
        objectives.build_objective(ObjectiveSpec(args={"trace": "estimated"}))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("naf:MAFDDSF", {"hidden": []}),
        ("nsf:NSFCoupling", {"hidden": 0}),
        ("nice:NICE", {"hidden": [-3]}),
        ("nsf:NSFAutoregressive", {"dropout": 2.0}),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_line(name, args):
    with pytest.raises(DeclarationError) as refused:
        build(ModelSpec(name=name, args=args), (4,))
    assert "\n" not in str(refused.value)
