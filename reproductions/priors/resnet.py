"""Recipes of ResNet VAEs: the five published numbers of Xu et al. (2019) and of VLAE.

Sources: appendix A of VLAE; of Xu et al. and of the model, which is that of the IAF paper, what
others say of them, see the notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN, SMALL_BATCH, small_vae_stage, vampprior_stage
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

SMALL = "digits-binary"
#: Of digits-binary.
SMALL_EPOCHS, SMALL_LR, SMALL_SAMPLES = 100, 5e-3, 1_000
#: Examples of the test set that the importance-weighted bound is taken of.
EXAMPLES: Mapping[str, int] = {"digits-binary": 100, "mnist-static": 1_000}
VLAE_BATCH, VLAE_SAMPLES, XU_SAMPLES, FREE_NATS, AVERAGE = 100, 4_096, 1_000, 0.01, 0.998

#: Of the encoder, which the decoder mirrors.
NETWORK: dict[str, Any] = {
    "channels": [16, 16, 32, 32, 32],
    "strides": [2, 1, 2, 1, 2],
    "hidden": 450,
}
SMALL_NETWORK: dict[str, Any] = {"channels": [8, 8, 16], "strides": [2, 1, 2], "hidden": 64}


class Parts(NamedTuple):
    """Names and arguments of posterior and prior."""

    posterior: str = "no-flow"
    posterior_args: Mapping[str, Any] = {}
    prior: str = "standard"
    prior_args: Mapping[str, Any] = {}


GLOW, SMALL_GLOW = {"layers": 20, "hidden": [64, 64]}, {"layers": 4, "hidden": [32]}
XU = {
    "standard": (Parts(), Parts()),
    "flow-posterior": (Parts("glow", GLOW), Parts("glow", SMALL_GLOW)),
    "flow-prior": (
        Parts(prior="glow", prior_args=GLOW),
        Parts(prior="glow", prior_args=SMALL_GLOW),
    ),
}
VLAE = {
    "iaf": (
        Parts("iaf", {"flows": 4, "width": 640}),
        Parts("iaf", {"flows": 2, "width": 64}),
    ),
    "af-prior": (
        Parts(prior="maf-shift", prior_args={"layers": 4, "hidden": [640, 640]}),
        Parts(prior="maf-shift", prior_args={"layers": 2, "hidden": [64]}),
    ),
}

NETWORK_NOTE = (
    "the encoder's five residual blocks of 3 x 3 convolutions, with 16, 16, 32, 32 and 32 channels "
    "and stride 2 in the first, third and fifth, its 450 units and the decoder that mirrors them "
    "are those of a public re-implementation of the IAF paper's model of MNIST, not read in the "
    "papers; the posterior's variance is a softplus and its two layers have no weight normalisation"
)
LENGTH_NOTE = (
    "batches of 100, until 50 epochs bring no better validation bound, at most 2,000: the length "
    "is not known here"
)
PART_NOTE = "the importance-weighted bound is of the first 1,000 test images, the paper's of all"
XU_NOTES = (
    NETWORK_NOTE,
    "the paper was read in notes of others: 40 latent variables, 20 (or 50) blocks of actnorm, a "
    "full matrix and a coupling; that its ResNet VAE is the one here, the 64 units in two layers "
    "of couplings, Adam's rate of 1e-3 and the 100 epochs of warm-up are chosen here",
    "stopped by the validation bound, where the paper says the NLL",
    LENGTH_NOTE,
    PART_NOTE,
)
VLAE_NOTES = (
    NETWORK_NOTE,
    "trained on the 50,000 images of the training set, the paper's final run on training and "
    "validation data",
    "the autoregressive maps' order is reversed from each to the next, and they start as the "
    "released MAF code does: the paper's start from data is not known here",
    LENGTH_NOTE,
    PART_NOTE,
)
IAF_NOTE = (
    "the IAF paper's depth and width behind this number are not known here: 4 maps of two hidden "
    "layers of 640 units, as many as the autoregressive prior has, and 64 latent variables"
)


def xu(data: str, part: Literal["standard", "flow-posterior", "flow-prior"]) -> Recipe | None:
    """A ResNet VAE with a flow as posterior or as prior, or with neither (Xu et al., 2019).

    Args:
        data: The column's data set.
        part: Where the flow is.
    """
    if data not in EXAMPLES:
        return None
    small = data == SMALL
    full, reduced = XU[part]
    if small:
        stage = small_vae_stage(
            data,
            _model(reduced, latent=8, network=SMALL_NETWORK),
            lr=SMALL_LR,
            stopping=StoppingSpec(max_epochs=SMALL_EPOCHS),
            schedule=_falling(data),
        )
    else:
        stage = vampprior_stage(
            data,
            _model(full, latent=40, network=NETWORK),
            OptimizerSpec(name="adam", lr=1e-3),
            patience=50,
            validation_batch=1_000,
        )
    return _recipe(f"resnet-{part}/{data}", stage, XU_SAMPLES, XU_NOTES, "Xu et al., second-hand")


def vlae(data: str, part: Literal["iaf", "af-prior"]) -> Recipe | None:
    """A ResNet VAE with an autoregressive flow as posterior or as prior (VLAE, Table 1).

    Args:
        data: The column's data set.
        part: The IAF posterior of Kingma et al. (2016), or VLAE's own prior.
    """
    if data not in EXAMPLES:
        return None
    small = data == SMALL
    full, reduced = VLAE[part]
    model = (
        _model(reduced, latent=8, network=SMALL_NETWORK)
        if small
        else _model(full, latent=64, network=NETWORK)
    )
    stage = Stage(
        data=DataSpec(name=data),
        model=model,
        objective=ObjectiveSpec(name="free-bits", args={"nats": FREE_NATS}),
        optimizer=OptimizerSpec(name="adamax", lr=SMALL_LR if small else 2e-3),
        schedule=_falling(data) if small else ScheduleSpec(),
        batch_size=SMALL_BATCH if small else VLAE_BATCH,
        validation=ValidationSpec(every=1, unit="epochs", batch_size=1_000),
        stopping=StoppingSpec(max_epochs=SMALL_EPOCHS)
        if small
        else StoppingSpec(patience=50, max_epochs=2_000),
        average_decay=AVERAGE,
    )
    notes = (*VLAE_NOTES, IAF_NOTE) if part == "iaf" else VLAE_NOTES
    return _recipe(f"resnet-{part}/{data}", stage, VLAE_SAMPLES, notes, "VLAE, appendix A")


def _falling(data: str) -> ScheduleSpec:
    return ScheduleSpec(cosine_steps=SMALL_EPOCHS * (card(data).sizes["train"] // SMALL_BATCH))


def _model(parts: Parts, latent: int, network: Mapping[str, Any]) -> ModelSpec:
    args = {name: dict(value) if isinstance(value, Mapping) else value
            for name, value in parts._asdict().items()}  # fmt: skip
    return ModelSpec(name="resnet_vae:ResNetVAE", args={"latent": latent, **network, **args})


def _recipe(name: str, stage: Stage, samples: int, notes: tuple[str, ...], source: str) -> Recipe:
    """Return the recipe; ELBO surgery needs a Gaussian posterior."""
    data = stage.data.name
    small, gaussian = data == SMALL, stage.model.args["posterior"] == "no-flow"
    drawn = SMALL_SAMPLES if small else samples
    return Recipe(
        name=name,
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=("elbo", "importance", *(("surgery",) if gaussian else ())),
            batch_size=100,
            importance_samples=drawn,
            importance_examples=EXAMPLES[data],
        ),
        cost=_cost(data, stage, drawn),
        source=OWN_COLUMN if small else source,
        notes=() if small else notes,
    )


# ----------------------------------------------------------------------------- cost

#: Epochs until patience is over, outside of digits.
EXPECTED_EPOCHS = 300
#: Of ELBO surgery: passes over the training set, and draws that are compared with all of it.
SURGERY_PASSES, SURGERY_DRAWS, COMPONENT = 6, 10_000.0, 25
#: Tensor operations of a training step, and numbers that it keeps for each pixel of an example.
LAUNCHES, LAUNCHES_PER_MAP, KEPT = 500, 40, 60


def _cost(data: str, stage: Stage, samples: int) -> Cost:
    """Count the convolutions of both networks, which have as many products, and the flow."""
    sizes, args = card(data).sizes, stage.model.args
    network, flow = _products(data, args), _flow_products(args)
    steps = sizes["train"] // stage.batch_size
    looks = costs.PASS * (2 * network + flow) * sizes["val"] / steps
    passes = samples * min(EXAMPLES[data], sizes["test"]) + SURGERY_PASSES * sizes["train"]
    pairs = SURGERY_DRAWS * sizes["train"] * (4 * args["latent"] + COMPONENT)
    maps = sum(int(args[part].get(key, 0)) for part, key in _MAPS)
    kept = KEPT * stage.batch_size * card(data).dim
    return Cost(
        steps=(SMALL_EPOCHS if data == SMALL else EXPECTED_EPOCHS) * steps,
        flops_per_step=costs.TRAINING * (2 * network + flow) * stage.batch_size + looks,
        launches_per_step=LAUNCHES + LAUNCHES_PER_MAP * maps,
        evaluation_flops=costs.PASS * (network + flow) * passes + pairs,
        memory_bytes=costs.memory(data, 10 * args["hidden"] * args["latent"], kept),
    )


_MAPS = (("posterior_args", "flows"), ("posterior_args", "layers"), ("prior_args", "layers"))


def _products(data: str, args: Mapping[str, Any]) -> int:
    """Return the multiplications of one pass of the encoder, or of the decoder."""
    inputs, side = 1, round(card(data).dim ** 0.5)
    total = 0
    for outputs, stride in zip(args["channels"], args["strides"], strict=True):
        side = -(-side // stride)
        skip = 0 if inputs == outputs and stride == 1 else inputs
        total += 9 * side**2 * outputs * (inputs + outputs + skip)
        inputs = outputs
    widths = [inputs * side**2, args["hidden"], 2 * args["latent"]]
    return total + costs.weights(widths)


def _flow_products(args: Mapping[str, Any]) -> int:
    """Return the multiplications of one pass of the flow of posterior or prior."""
    latent, given = int(args["latent"]), {**args["posterior_args"], **args["prior_args"]}
    if "flows" in given:
        width = given["width"]
        return int(given["flows"]) * costs.weights([latent, width, width, 2 * latent])
    if "layers" not in given:
        return 0
    map_products = costs.weights([latent, *given["hidden"], latent])
    return int(given["layers"]) * (map_products + latent**2)
