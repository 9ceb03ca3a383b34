"""The rows of the FFJORD paper's Table 3: variational autoencoders and their posteriors.

Sources: the Sylvester code (``main_experiment.py``, ``models/VAE.py``) for the model and the four
rows that are not FFJORD's, the FFJORD paper's appendix B.2, and its code (``train_vae_flow.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN, VAMPPRIOR_BATCH, small_vae_stage, vampprior_stage
from dgm_bench.spec import (
    Cost,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
)

#: Of all training, validation and evaluation.
BATCH = VAMPPRIOR_BATCH
#: Importance samples, and of how many test images. The Sylvester paper takes 5,000 of all (2,000
#: on Caltech), which are 5e7 passes through the decoder; FFJORD reports none.
SAMPLES, EXAMPLES = 500, 100
#: On 8x8 digits, of all test images.
SMALL_SAMPLES = 5_000

Rules = Literal["sylvester", "ffjord-code", "ffjord-paper"]


class Learning(NamedTuple):
    """What the sources disagree on: the optimiser, and epochs without improvement."""

    optimizer: str
    lr: float
    eps: float
    patience: int
    source: str


LEARNING: Mapping[Rules, Learning] = {
    "sylvester": Learning("adamax", 5e-4, 1e-7, 100, "Sylvester code, main_experiment.py"),
    "ffjord-code": Learning("adamax", 5e-4, 1e-7, 35, "FFJORD code, train_vae_flow.py"),
    "ffjord-paper": Learning("adam", 1e-3, 1e-8, 100, "FFJORD appendix B.2"),
}


def _flow_args(
    flows: int, *, width: int, vectors: int, reflections: int
) -> Mapping[str, dict[str, Any]]:
    """Return the arguments of each row's posterior: equally many flows in all of them."""
    sylvester = {"flows": flows, "vectors": vectors, "reflections": reflections}
    return {
        "no-flow": {},
        "planar": {"flows": flows},
        "iaf": {"flows": flows, "width": width},
        "sylvester-orthogonal": sylvester,
        "sylvester-householder": sylvester,
        "sylvester-triangular": sylvester,
    }


#: Rows of the Sylvester paper. Its code's defaults are 4 flows, 8 vectors and a width of 320.
SYLVESTER_ARGS = _flow_args(16, width=1280, vectors=32, reflections=8)
#: For the 8 latent variables of the small model.
SMALL_ARGS = _flow_args(4, width=64, vectors=4, reflections=4)


class Dynamics(NamedTuple):
    """The continuous flows of a posterior (FFJORD Table 5)."""

    activation: str
    hidden: tuple[int, ...]
    flows: int
    rank: int


DYNAMICS: Mapping[str, Dynamics] = {
    "mnist-static": Dynamics("softplus", (1024, 1024), 2, 64),
    "omniglot": Dynamics("softplus", (512, 512), 5, 20),
    "omniglot-resized28": Dynamics("softplus", (512, 512), 5, 20),
    "freyfaces": Dynamics("softplus", (512, 512), 2, 20),
    "caltech": Dynamics("tanh", (2048,), 1, 20),
    "digits-binary": Dynamics("softplus", (32, 32), 1, 4),
}
#: The code solves at 1e-5; a small model's flow is easier to solve.
TOLERANCE, SMALL_TOLERANCE = 1e-5, 1e-3

FLOWS_NOTE = (
    "16 flows, 32 orthonormal vectors, 8 reflections and, for IAF, a width of 1,280 are recalled "
    "from the Sylvester paper; the defaults of its code are 4, 8, 8 and 320"
)
VALIDATION_NOTE = (
    "validation draws the same noise each time, where the codes draw anew, and is a mean over "
    "images, where theirs is over batches; the last batch of an epoch is left out where it is not "
    "full (Frey Faces)"
)
FFJORD_NOTES = (
    "the amortised weights are constants of the solve and not part of its state, and gradients are "
    "those of the computed solution, step by step; the published runs have the adjoint's, which "
    "differ by the solver's tolerance",
    "in training traces are estimated with Gaussian noise; in validation and test they are exact, "
    "where the code validates on estimates too",
)
PRECISION_NOTE = (
    "convolutions compute in bfloat16 in training and validation, not in the evaluation; the "
    "published runs have float32"
)

# ----------------------------------------------------------------------------- recipes


def vae(data: str, posterior: str, rules: Rules = "sylvester") -> Recipe:
    """A VAE with a posterior of the Sylvester paper, under the rules of one of the sources."""
    if data == "digits-binary":
        return _small_recipe(data, posterior, SMALL_ARGS[posterior])
    return _recipe(data, posterior, SYLVESTER_ARGS[posterior], rules)


def ffjord_vae(data: str, kind: str = "rank", rules: Rules = "ffjord-code") -> Recipe:
    """A VAE with continuous flows as posterior.

    Args:
        data: The column's data set.
        kind: What of the dynamics depends on the example: ``rank`` in the paper; ``none``,
            ``bias``, ``hyper`` and ``last`` are the other models of its code (``CNFVAE.py``).
        rules: Text and code disagree; see :data:`LEARNING`.
    """
    small, size = data == "digits-binary", DYNAMICS[data]
    tolerance = SMALL_TOLERANCE if small else TOLERANCE
    args: dict[str, Any] = {
        "flows": size.flows,
        "hidden": list(size.hidden),
        "rank": size.rank,
        "activation": size.activation,
        "kind": kind,
        "rtol": tolerance,
        "atol": tolerance,
        "solver": "dopri5",
        "step_size": None,
        # All steps of a small model fit into memory at once.
        "gradient": "solver" if small else "steps",
    }
    return _small_recipe(data, "ffjord", args) if small else _recipe(data, "ffjord", args, rules)


def _recipe(data: str, posterior: str, args: dict[str, Any], rules: Rules) -> Recipe:
    learning = LEARNING[rules]
    levels = data == "freyfaces"
    stage = vampprior_stage(
        data,
        ModelSpec(
            name=_model("Conv", posterior),
            args={"latent": 64, "levels": levels, **_parts(posterior, args)},
        ),
        OptimizerSpec(name=learning.optimizer, lr=learning.lr, eps=learning.eps),
        patience=learning.patience,
        validation_batch=BATCH,
        precision="bfloat16",
    )
    return Recipe(
        name=f"vae-{_label(posterior, args)}-{rules}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=("elbo", "importance"),
            batch_size=BATCH,
            importance_samples=SAMPLES,
            importance_examples=EXAMPLES,
        ),
        cost=_cost(data, stage, SAMPLES, EXAMPLES, epochs=300),
        source=f"Sylvester code, models/VAE.py; {learning.source}",
        notes=(
            *(FFJORD_NOTES if posterior == "ffjord" else (FLOWS_NOTE,)),
            VALIDATION_NOTE,
            PRECISION_NOTE,
        ),
    )


def _parts(posterior: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that name a posterior, over a standard normal prior."""
    prior = {"prior": "standard", "prior_args": {}}
    named = {} if posterior == "ffjord" else {"posterior": posterior}
    return {**named, "posterior_args": args, **prior}


def _label(posterior: str, args: Mapping[str, Any]) -> str:
    kind = args.get("kind", "rank")
    return posterior if kind == "rank" else f"{posterior}-{kind}"


def _model(kind: str, posterior: str) -> str:
    """Return the name of the model; one that solves equations says so."""
    return f"gated_vae:{'Continuous' if posterior == 'ffjord' else ''}{kind}VAE"


def _small_recipe(data: str, posterior: str, args: dict[str, Any]) -> Recipe:
    """Return what converges within half a minute on one core: 8x8 digits, 8 latent variables."""
    stage = small_vae_stage(
        data,
        ModelSpec(
            name=_model("Dense", posterior),
            args={"latent": 8, "hidden": 64, **_parts(posterior, args)},
        ),
        lr=5e-3,
        stopping=StoppingSpec(patience=20, patience_from=20, max_epochs=150),
    )
    return Recipe(
        name=f"vae-{_label(posterior, args)}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=("elbo", "importance"), batch_size=BATCH, importance_samples=SMALL_SAMPLES
        ),
        cost=_cost(data, stage, SMALL_SAMPLES, card(data).sizes["test"], epochs=100),
        source=OWN_COLUMN,
    )


# ----------------------------------------------------------------------------- cost

#: Multiplications of one pass of a 28x28 image through the gated convolutions and back, and what
#: 256 levels a pixel add at 28x20.
CONV_PRODUCTS, LEVELS_PRODUCTS = 130_000_000, 150_000_000
SMALL_PRODUCTS = 40_000
#: Weights, and numbers that training keeps for an image.
WEIGHTS, KEPT = 4_000_000, 2_000_000
#: Tensor operations of a training step, without a solver and with one.
LAUNCHES, SOLVED_LAUNCHES = 400, 4_000
#: How much faster than the planner's matrices these convolutions are, as measured on a CPU.
CONV_SPEED = 4

#: Evaluations of a posterior's dynamics in one pass, as seen at the start of training.
EVALUATIONS = 20


def _cost(data: str, stage: Stage, samples: int, examples: int, epochs: int) -> Cost:
    """Count the convolutions or layers of the autoencoder, and its posterior's flow."""
    known, small = card(data), not stage.model.name.endswith("ConvVAE")
    products, features, latent = SMALL_PRODUCTS, 64, 8
    if not small:
        levels = LEVELS_PRODUCTS if data == "freyfaces" else 0
        products = (CONV_PRODUCTS * known.dim // 784 + levels) // CONV_SPEED
        features, latent = 256, 64
    flows = stage.model.args["posterior_args"]
    once, each = _flow_products(
        stage.model.args.get("posterior", "ffjord"), flows, features, latent
    )
    sizes = known.sizes
    # A pass over the validation set takes a third of what as many examples take in training.
    per_step = costs.TRAINING * stage.batch_size * (1 + sizes["val"] / (3 * sizes["train"]))
    evaluated = (products + each) * (2 * sizes["test"] + samples * examples)
    return Cost(
        steps=epochs * (sizes["train"] // stage.batch_size),
        flops_per_step=(products + once + each) * per_step,
        launches_per_step=SOLVED_LAUNCHES if "kind" in flows else LAUNCHES,
        evaluation_flops=1.0 * evaluated,
        memory_bytes=costs.memory(data, WEIGHTS + once, stage.batch_size * KEPT),
        weights=int(WEIGHTS + once),
    )


def _flow_products(
    posterior: str, args: Mapping[str, Any], features: int, latent: int
) -> tuple[int, int]:
    """Return multiplications of a posterior's flow: once for each example, and for each draw."""
    flows = args.get("flows", 0)
    if posterior == "planar":
        return 2 * flows * features * latent, 2 * flows * latent
    if posterior == "iaf":
        width = args["width"]
        return features * width, flows * width * (3 * latent + width)
    if posterior.startswith("sylvester"):
        width = args["vectors"] if posterior.endswith("orthogonal") else latent
        return flows * features * width * (width + 3), 2 * flows * width * (width + latent)
    if posterior == "ffjord":
        widths = (latent, *args["hidden"], latent)
        numbers = args["rank"] * (sum(widths[:-1]) + sum(widths[1:])) + sum(widths[1:])
        dynamics = 2 * flows * EVALUATIONS * (costs.weights(widths) + numbers)
        return flows * features * numbers, dynamics
    return 0, 0
