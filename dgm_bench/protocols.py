"""Training protocols that recipes of several papers share.

Recipes import them; a protocol that only one paper has stays beside its recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dgm_bench.data import card
from dgm_bench.spec import (
    DataSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)


class SmallDVAE(NamedTuple):
    """A discrete VAE of DALL-E's kind for small images.

    Attributes:
        args: Of the model.
        kl_weight: Of the divergence in its loss.
    """

    args: Mapping[str, Any]
    kl_weight: float = 0.3

    def trained_for(self, steps: int) -> tuple[ModelSpec, ObjectiveSpec]:
        """Return the model, and its loss in a training of so many steps."""
        loss = {
            "kl_weight": self.kl_weight,
            "kl_steps": 1,
            "temperature": 1 / 16,
            "temperature_steps": 2 * steps // 3,
        }
        model = ModelSpec(name="dvae:DVAE", args=dict(self.args))
        return model, ObjectiveSpec(name="dvae", args=loss)


DVAE_OF_DIGITS = SmallDVAE({"codes": 64, "hidden": 32, "blocks": 1, "poolings": 1, "dim": 32})
#: The divergence's weight is the paper's for each code: beta / 192 of the loss of a dimension
#: (Ramesh et al., 2021, section A.2). What the noise is for, the model says.
DVAE_OF_MNIST = SmallDVAE(
    {"codes": 128, "hidden": 16, "blocks": 1, "poolings": 2, "dim": 32, "noise": 1 / 16}, 0.55
)

#: Source of a recipe whose column no paper has.
OWN_COLUMN = "chosen for this project: no paper has this column"

#: Of the VampPrior code.
VAMPPRIOR_BATCH, VAMPPRIOR_WARMUP = 100, 100
#: Of small VAEs on 8x8 digits.
SMALL_BATCH, SMALL_WARMUP = 64, 20


def vampprior_stage(
    data: str,
    model: ModelSpec,
    optimizer: OptimizerSpec,
    *,
    patience: int,
    validation_batch: int,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Stage:
    """Return the protocol of the VampPrior code, which the Sylvester and FFJORD codes took over.

    Batches of 100; the weight of the divergence grows over 100 epochs; a validation each epoch,
    whose patience begins after those; at most 2,000 epochs (``experiment.py``,
    ``main_experiment.py``, ``train_vae_flow.py``).

    Args:
        data: The column's data set.
        model: A variational autoencoder.
        optimizer: The codes differ in it.
        patience: Epochs without a better validation bound; the codes differ in it.
        validation_batch: Images at a time in validations.
        precision: Of training.
    """
    return Stage(
        data=DataSpec(name=data),
        model=model,
        objective=_warmed_elbo(data, VAMPPRIOR_WARMUP, VAMPPRIOR_BATCH),
        optimizer=optimizer,
        batch_size=VAMPPRIOR_BATCH,
        validation=ValidationSpec(every=1, unit="epochs", batch_size=validation_batch),
        stopping=StoppingSpec(patience=patience, patience_from=VAMPPRIOR_WARMUP, max_epochs=2_000),
        precision=precision,
    )


def small_vae_stage(
    data: str,
    model: ModelSpec,
    lr: float,
    stopping: StoppingSpec,
    schedule: ScheduleSpec | None = None,
) -> Stage:
    """Return what trains a small VAE on 8x8 digits in half a minute; no paper's protocol.

    Batches of 64, Adamax with epsilon 1e-7, and 20 epochs over which the weight of the divergence
    grows.
    """
    return Stage(
        data=DataSpec(name=data),
        model=model,
        objective=_warmed_elbo(data, SMALL_WARMUP, SMALL_BATCH),
        optimizer=OptimizerSpec(name="adamax", lr=lr, eps=1e-7),
        schedule=schedule or ScheduleSpec(),
        batch_size=SMALL_BATCH,
        validation=ValidationSpec(every=1, unit="epochs"),
        stopping=stopping,
    )


def _warmed_elbo(data: str, epochs: int, batch_size: int) -> ObjectiveSpec:
    steps = card(data).sizes["train"] // batch_size
    return ObjectiveSpec(
        name="warmed-elbo", args={"warmup_epochs": epochs, "steps_per_epoch": steps}
    )
