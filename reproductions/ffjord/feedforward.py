"""The rows of the MAF paper: Gaussian, MADE, MAF, Real NVP, with and without mixtures."""

from __future__ import annotations

from typing import Any, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN
from dgm_bench.spec import (
    Cost,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
)

from .protocols import maf_stage, small_stage
from .shared import IMAGES, flat_data, small_setting


class MafSetting(NamedTuple):
    """Network of one data set in the released MAF code (run_experiments.py)."""

    hidden: tuple[int, ...]
    activation: str = "relu"
    degrees: str = "sequential"


MAF_SETTINGS = {
    "power": MafSetting((100, 100)),
    "gas": MafSetting((100, 100), activation="tanh"),
    "hepmass": MafSetting((512, 512)),
    "miniboone": MafSetting((512, 512)),
    "bsds300": MafSetting((512, 512)),
    "bsds300-patches": MafSetting((512, 512)),
    "mnist": MafSetting((1024, 1024)),
    "cifar10": MafSetting((1024, 1024), degrees="random"),
}

MAF_SOURCE = "MAF paper, section 4; released MAF code (run_experiments.py)"
MAF_NOTES = (
    "two hidden layers: one or two were chosen on validation, and which won was not published",
)
MAF_WIDTH_NOTES = {
    "bsds300": "width 512: 512 or 1024 was chosen on validation, and which won was not published",
    "cifar10": "width 1024: 1024 or 2048 was chosen on validation, and which won was not published",
}
# Epochs until patience is over, of which 30 are the patience itself: a guess for the planner.
MAF_EPOCHS = 100
# Numbers that a Gaussian's evaluation holds for each dimension.
GAUSSIAN_KEPT = 20_000

# --------------------------------------------------------------------------- rows


def gaussian(data: str) -> Recipe:
    """Full-covariance Gaussian, fitted to the training set in closed form."""
    dim = card(data).dim
    stage = Stage(
        data=flat_data(data),
        model=ModelSpec(name="gaussian:Gaussian"),
        optimizer=OptimizerSpec(lr=0.0),
        batch_size=100,
        stopping=StoppingSpec(max_steps=0),
    )
    cost = Cost(
        steps=0,
        flops_per_step=0.0,
        launches_per_step=0.0,
        # The covariance of all examples, and their densities.
        evaluation_flops=2 * costs.PASS * costs.examples(data) * dim**2,
        memory_bytes=costs.memory(data, weights=dim**2, batch_numbers=GAUSSIAN_KEPT * dim),
    )
    name = f"gaussian/{data}"
    return Recipe(name=name, stages=(stage,), cost=cost, source="MAF paper, Table 1")


def made(data: str, components: int | None = None) -> Recipe:
    """MADE with Gaussian conditionals, or with mixtures of ``components`` Gaussians."""
    args = {"components": components}
    network = _network(data, outputs=3 * components if components else 2)
    label = "made-mog" if components else "made"
    return _recipe(data, label, "made:MADE", args, weights=[network], lr=1e-3)


def maf(data: str, layers: int, components: int | None = None) -> Recipe:
    """MAF with ``layers`` MADEs; with ``components``, on the base of a MADE MoG."""
    args = {"layers": layers, "batch_norm": True, "components": components}
    weights = layers * [_network(data, outputs=2)]
    if components:
        weights.append(_network(data, outputs=3 * components))
    label = f"maf-mog-{layers}" if components else f"maf-{layers}"
    return _recipe(data, label, "maf:MAF", args, weights=weights, lr=1e-4)


def real_nvp(data: str, layers: int) -> Recipe:
    """Fully connected Real NVP with ``layers`` couplings, as run by the MAF paper's authors."""
    # Each coupling has two networks, from half of the dimensions to the other half.
    weights = 2 * layers * [_network(data, outputs=1)]
    args = {"layers": layers, "batch_norm": True}
    return _recipe(data, f"real-nvp-{layers}", "realnvp:RealNVP", args, weights, lr=1e-4)


# --------------------------------------------------------------------------- what rows share


def maf_setting(data: str) -> MafSetting:
    """Return the network of a data set: the MAF paper's, or a small one for our columns."""
    small = small_setting(data)
    return MafSetting(small.hidden) if small else MAF_SETTINGS[data]


def maf_steps(data: str, stage: Stage) -> int:
    """Return the expected steps: seen on our columns, guessed for the papers'."""
    small = small_setting(data)
    return small.steps if small else int(MAF_EPOCHS * card(data).sizes["train"] / stage.batch_size)


def _recipe(
    data: str, label: str, model: str, args: dict[str, Any], weights: list[int], lr: float
) -> Recipe:
    """Return a recipe of the MAF paper's protocol, or a small one for our columns.

    Args:
        data: The data set.
        label: The model's name with its depth.
        model: The model's class.
        args: The model's arguments without those that depend on the data.
        weights: Number of weights of each network in it, for the cost.
        lr: The published learning rate.
    """
    declared = ModelSpec(name=model, args={**_network_args(data, model), **args})
    small = small_setting(data)
    stage = small_stage(data, declared, small) if small else maf_stage(data, declared, lr)
    kept = len(weights) * (2 * sum(maf_setting(data).hidden) + 8 * card(data).dim)
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000 if data in IMAGES else 10_000),
        cost=costs.network_cost(
            data,
            stage,
            products=sum(weights),
            networks=len(weights),
            steps=maf_steps(data, stage),
            kept=kept,
            calibrates=True,
        ),
        source=OWN_COLUMN if small else MAF_SOURCE,
        notes=() if small else _notes(data),
    )


def _network_args(data: str, model: str) -> dict[str, Any]:
    """Return the arguments that the released MAF code sets by data set."""
    setting = maf_setting(data)
    args: dict[str, Any] = {"hidden": list(setting.hidden)}
    if model == "realnvp:RealNVP":
        return args
    return {**args, "activation": setting.activation, "degrees": setting.degrees}


def _notes(data: str) -> tuple[str, ...]:
    widths = [note for name, note in MAF_WIDTH_NOTES.items() if data.startswith(name)]
    return (*(() if data == "mnist" else MAF_NOTES), *widths)


def _network(data: str, outputs: int) -> int:
    """Return the number of weights of a network with ``outputs`` per dimension."""
    dim = card(data).dim
    return costs.weights((dim, *maf_setting(data).hidden, outputs * dim))
