"""Recipes of the table of priors: one fully connected VAE, six priors, and ResNet VAEs.

Sources: the VampPrior code (``experiment.py``, ``models/VAE.py``, ``utils/load_data.py``) for the
model and its training, the VLAE paper (appendix A) for the autoregressive prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN, SMALL_BATCH, small_vae_stage, vampprior_stage
from dgm_bench.spec import (
    Cost,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    Stage,
    StoppingSpec,
)

from .hierarchical import vamp_hvae as vamp_hvae
from .resnet import vlae as vlae
from .resnet import xu as xu

SMALL = "digits-binary"
SOURCE = "VampPrior code, experiment.py and models/VAE.py"
METRICS = ("elbo", "importance", "surgery")
SAMPLES = 5_000
#: Of digits-binary.
EPOCHS = 100
#: Examples of the test set that the importance-weighted bound is taken of.
EXAMPLES: Mapping[str, int] = {"digits-binary": 100, "caltech": 500, "mnist-static": 100}
#: What pseudo-inputs begin at (``utils/load_data.py``, whatever the option on the command line).
PSEUDO_INPUT: Mapping[str, float] = {"mnist-static": 0.05, "caltech": 0.8}

MODEL_NOTE = (
    "Adam instead of the code's AdamNormGrad, which divides each parameter's gradient by its norm; "
    "PyTorch's initial weights instead of He's; the posterior's variance is a softplus, where the "
    "code's log-variance is linear and kept in [-6, 2]"
)
PRIOR_NOTES: Mapping[str, str] = {
    "vamp": (
        "pseudo-inputs begin at the constants of utils/load_data.py, which overwrites the option "
        "of experiment.py (-0.05, where all of them would be clipped to zero and stay there)"
    ),
    "mixture": "500 Gaussians, as many as there are pseudo-inputs",
    "real-nvp": "6 couplings with one hidden layer: no paper has this row",
    "maf": (
        "4 steps of MADE with two hidden layers of 640 units that shift and scale; the steps of "
        "the VLAE paper only shift"
    ),
    "aggregated": (
        "trained with the standard prior; validated and tested with the posteriors of the whole "
        "training set as the prior"
    ),
}
ARGS: Mapping[str, dict[str, Any]] = {
    "mixture": {"components": 500},
    "vamp": {"components": 500, "init_std": 0.01},
    "real-nvp": {"layers": 6, "hidden": [128]},
    "maf": {"layers": 4, "hidden": [640, 640]},
}
SMALL_ARGS: Mapping[str, dict[str, Any]] = {
    "mixture": {"components": 50},
    "vamp": {"components": 50, "init_mean": 0.5, "init_std": 0.1},
    "real-nvp": {"layers": 4, "hidden": [32]},
    "maf": {"layers": 2, "hidden": [64]},
}


def standard(data: str) -> Recipe:
    """The standard normal."""
    return _recipe(data, "standard")


def mixture(data: str) -> Recipe:
    """Diagonal Gaussians, learnt."""
    return _recipe(data, "mixture")


def vamp(data: str) -> Recipe:
    """The posteriors of learnt pseudo-inputs."""
    return _recipe(data, "vamp")


def real_nvp(data: str) -> Recipe:
    """A coupling flow."""
    return _recipe(data, "real-nvp")


def autoregressive(data: str) -> Recipe:
    """A masked autoregressive flow."""
    return _recipe(data, "maf")


def aggregated(data: str) -> Recipe:
    """The posteriors of the training set."""
    return _recipe(data, "aggregated")


# ----------------------------------------------------------------------------- recipes


def _recipe(data: str, prior: str) -> Recipe:
    small = data == SMALL
    stage = _small_stage(data, prior) if small else _stage(data, prior)
    notes = () if small else (MODEL_NOTE, *_note(prior))
    return Recipe(
        name=f"prior-{prior}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=METRICS,
            batch_size=100,
            importance_samples=SAMPLES,
            importance_examples=EXAMPLES[data],
        ),
        cost=_cost(data, stage, prior),
        source=OWN_COLUMN if small else SOURCE,
        notes=notes,
    )


def _note(prior: str) -> tuple[str, ...]:
    return (PRIOR_NOTES[prior],) if prior in PRIOR_NOTES else ()


def _stage(data: str, prior: str) -> Stage:
    """Return the training of the VampPrior code, with Adam."""
    args = dict(ARGS.get(prior, {}))
    if prior == "vamp":
        args["init_mean"] = PSEUDO_INPUT[data]
    model = _model(prior, args, latent=40, hidden=300)
    return vampprior_stage(
        data, model, OptimizerSpec(name="adam", lr=5e-4), patience=50, validation_batch=1_000
    )


def _small_stage(data: str, prior: str) -> Stage:
    """Return what converges within half a minute on one core."""
    return small_vae_stage(
        data,
        _model(prior, SMALL_ARGS.get(prior, {}), latent=8, hidden=64),
        lr=2e-2,
        stopping=StoppingSpec(max_epochs=EPOCHS),
        # Equally many steps, ever smaller, leave less noise than there is between priors.
        schedule=ScheduleSpec(cosine_steps=EPOCHS * (card(data).sizes["train"] // SMALL_BATCH)),
    )


def _model(prior: str, args: Mapping[str, Any], latent: int, hidden: int) -> ModelSpec:
    return ModelSpec(
        name="gated_vae:DenseVAE",
        args={
            "latent": latent,
            "hidden": hidden,
            "posterior": "no-flow",
            "posterior_args": {},
            "prior": prior,
            "prior_args": dict(args),
        },
    )


# ----------------------------------------------------------------------------- cost

#: Operations for one density of one component: an exponential counts as 20.
COMPONENT = 25
#: Epochs until patience is over, outside of digits.
EXPECTED_EPOCHS = 400
#: Tensor operations of a training step, with a fixed prior and with one that learns.
LAUNCHES, PRIOR_LAUNCHES = 200, 300
#: Of ELBO surgery: passes over the training set, and draws that are compared with all of it.
SURGERY_PASSES, SURGERY_DRAWS = 6, 10_000.0
#: What mixtures take in the evaluation.
MIXTURE_BYTES = 300_000_000


def _cost(data: str, stage: Stage, prior: str) -> Cost:
    """Count the networks; a prior of all training examples is compared with each of them."""
    sizes, latent = card(data).sizes, stage.model.args["latent"]
    products = _products(stage)
    seen = sizes["val"] + (sizes["train"] if prior == "aggregated" else 0)
    steps_per_epoch = sizes["train"] // stage.batch_size
    pairs = sizes["train"] * (4 * latent + COMPONENT)
    looks = costs.PASS * products * seen + (pairs * sizes["val"] if prior == "aggregated" else 0)
    draws = SAMPLES * min(EXAMPLES[data], sizes["test"])
    passes = draws + SURGERY_PASSES * sizes["train"]
    evaluation = costs.PASS * products * passes + SURGERY_DRAWS * pairs
    return Cost(
        steps=(EPOCHS if data == SMALL else EXPECTED_EPOCHS) * steps_per_epoch,
        flops_per_step=costs.TRAINING * products * stage.batch_size + looks / steps_per_epoch,
        launches_per_step=LAUNCHES if prior in ("standard", "aggregated") else PRIOR_LAUNCHES,
        evaluation_flops=evaluation + (draws * pairs if prior == "aggregated" else 0),
        memory_bytes=costs.memory(data, products, extra_bytes=MIXTURE_BYTES),
    )


def _products(stage: Stage) -> int:
    """Return the multiplications of one pass of one example, those of its prior included."""
    args, dim = stage.model.args, card(stage.data.name).dim
    hidden, latent = int(args["hidden"]), int(args["latent"])
    network = 3 * dim * hidden + 4 * hidden**2 + 4 * hidden * latent
    prior, given = args["prior"], args["prior_args"]
    if prior in ("mixture", "vamp"):
        components = int(given["components"])
        # The posteriors of all pseudo-inputs serve a whole batch.
        encoder = 2 * hidden * (dim + hidden) * components // stage.batch_size
        return network + 2 * latent * components + (encoder if prior == "vamp" else 0)
    if prior in ("real-nvp", "maf"):
        widths: list[int] = [latent, *given["hidden"], 2 * latent]
        return network + int(given["layers"]) * costs.weights(widths)
    return network
