"""Recipes of the rows of FFJORD Tables 2 and 3, as published.

Each public function takes a column's data set and the row's arguments and returns a recipe, or
None where there is none. What the papers leave open is said in the recipe's notes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from dgm_bench.data import card
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

IMAGES = ("mnist", "cifar10")

# --------------------------------------------------------------------------- as published


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


class FfjordSetting(NamedTuple):
    """One line of FFJORD Table 4."""

    activation: str
    hidden_layers: int
    multiplier: int
    flows: int
    batch_size: int


FFJORD_TABLE_4 = {
    "power": FfjordSetting("tanh", 3, 10, 5, 10_000),
    "gas": FfjordSetting("tanh", 3, 20, 5, 1_000),
    "hepmass": FfjordSetting("softplus", 2, 10, 10, 10_000),
    "miniboone": FfjordSetting("softplus", 2, 20, 1, 1_000),
    "bsds300": FfjordSetting("softplus", 3, 20, 2, 10_000),
    "bsds300-patches": FfjordSetting("softplus", 3, 20, 2, 10_000),
}

FFJORD_SOURCE = "FFJORD Table 4, section 4 and appendix C; released FFJORD code (train_tabular.py)"
FFJORD_NOTES = (
    "concatsquash layers, the released code's default; the paper says concat",
    "weight decay 1e-6 was asked for and never applied (lib/custom_optimizers.py, line 103)",
    "end time T = 1: the released code means to train it and cuts its gradient",
    "validation by an estimate of the trace, test by the exact trace",
)

# --------------------------------------------------------------------------- our columns


class SmallSetting(NamedTuple):
    """What converges within about a minute on one core, for a column that no paper has.

    ``steps`` and ``ffjord_steps`` are what the stopping rule was seen to take, for the cost;
    ``max_steps`` only guards against a run that never stops improving.
    """

    hidden: tuple[int, ...]
    batch_size: int
    lr: float
    every: int
    steps: int
    ffjord_hidden: tuple[int, ...]
    ffjord_steps: int
    ffjord_lr: float = 5e-3
    ffjord_every: int = 50
    patience: int = 4
    drops: tuple[int, ...] = (1, 2)
    max_steps: int = 20_000
    ffjord_max_steps: int = 4_000


def small_setting(data: str) -> SmallSetting | None:
    """Return the setting of one of our columns; None for a column of the papers."""
    if data == "digits":
        return SmallSetting((128,), 128, 1e-3, 50, 1_000, (128, 128), 2_200)
    if data.startswith("oracle-"):
        return SmallSetting((128,), 256, 2e-3, 200, 7_000, (64, 64), 2_800)
    if card(data).dim == 2:
        return SmallSetting((64, 64), 256, 2e-3, 100, 3_000, (64, 64), 2_000)
    return None


SMALL_SOURCE = "chosen for this project: no paper has this column"

# --------------------------------------------------------------------------- rows


def gaussian(data: str) -> Recipe:
    """Full-covariance Gaussian, fitted to the training set in closed form."""
    dim, examples = card(data).dim, _examples(data)
    stage = Stage(
        data=_data(data),
        model=ModelSpec(name="gaussian:Gaussian"),
        optimizer=OptimizerSpec(lr=0.0),
        batch_size=100,
        stopping=StoppingSpec(max_steps=0),
    )
    cost = Cost(
        steps=0,
        flops_per_step=0.0,
        launches_per_step=0.0,
        evaluation_flops=4.0 * examples * dim**2,
        memory_bytes=_memory(data, weights=dim**2, batch_numbers=20_000 * dim),
    )
    name = f"gaussian/{data}"
    return Recipe(name=name, stages=(stage,), cost=cost, source="MAF paper, Table 1")


def made(data: str, components: int | None = None) -> Recipe:
    """MADE with Gaussian conditionals, or with mixtures of ``components`` Gaussians."""
    args = {"components": components}
    network = _network(data, outputs=3 * components if components else 2)
    label = "made-mog" if components else "made"
    return _feed_forward(data, label, "made:MADE", args, weights=[network], lr=1e-3)


def maf(data: str, layers: int, components: int | None = None) -> Recipe:
    """MAF with ``layers`` MADEs; with ``components``, on the base of a MADE MoG."""
    args = {"layers": layers, "batch_norm": True, "components": components}
    weights = layers * [_network(data, outputs=2)]
    if components:
        weights.append(_network(data, outputs=3 * components))
    label = f"maf-mog-{layers}" if components else f"maf-{layers}"
    return _feed_forward(data, label, "maf:MAF", args, weights=weights, lr=1e-4)


def real_nvp(data: str, layers: int) -> Recipe:
    """Fully connected Real NVP with ``layers`` couplings, as run by the MAF paper's authors."""
    # Each coupling has two networks, from half of the dimensions to the other half.
    weights = 2 * layers * [_network(data, outputs=1)]
    args = {"layers": layers, "batch_norm": True}
    return _feed_forward(data, f"real-nvp-{layers}", "realnvp:RealNVP", args, weights, lr=1e-4)


def ffjord(data: str) -> Recipe | None:
    """FFJORD; None for images, whose convolutional model is another."""
    if small := small_setting(data):
        return _small_ffjord(data, small)
    setting = FFJORD_TABLE_4.get(data)
    return _published_ffjord(data, setting) if setting else None


# --------------------------------------------------------------------------- feed-forward rows


def _feed_forward(
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
    args = {**_network_args(data, model), **args}
    small = small_setting(data)
    stage = _small_stage(data, model, args, small) if small else _maf_stage(data, model, args, lr)
    notes = () if small else (*MAF_NOTES, *_width_notes(data))
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000 if data in IMAGES else 10_000),
        cost=_feed_forward_cost(data, stage, weights),
        source=SMALL_SOURCE if small else MAF_SOURCE,
        notes=notes,
    )


def _maf_stage(data: str, model: str, args: dict[str, Any], lr: float) -> Stage:
    """Return the protocol of the released MAF code (trainers.py, step_strategies.py)."""
    return Stage(
        data=_data(data),
        model=ModelSpec(name=model, args=args),
        optimizer=OptimizerSpec(name="adam-maf", lr=lr, weight_decay=1e-6),
        batch_size=100,
        validation=ValidationSpec(
            every=1, unit="epochs", batch_size=1_000 if data in IMAGES else 10_000
        ),
        stopping=StoppingSpec(patience=30),
    )


def _small_stage(data: str, model: str, args: dict[str, Any], small: SmallSetting) -> Stage:
    return Stage(
        data=_data(data),
        model=ModelSpec(name=model, args=args),
        optimizer=OptimizerSpec(lr=small.lr),
        schedule=ScheduleSpec(drops=small.drops),
        batch_size=small.batch_size,
        validation=ValidationSpec(every=small.every, unit="steps"),
        stopping=StoppingSpec(patience=small.patience, max_steps=small.max_steps),
    )


def _network_args(data: str, model: str) -> dict[str, Any]:
    """Return the arguments that the released MAF code sets by data set."""
    setting = _maf_setting(data)
    args: dict[str, Any] = {"hidden": list(setting.hidden)}
    if model == "realnvp:RealNVP":
        return args
    return {**args, "activation": setting.activation, "degrees": setting.degrees}


def _maf_setting(data: str) -> MafSetting:
    small = small_setting(data)
    return MafSetting(small.hidden) if small else MAF_SETTINGS[data]


def _width_notes(data: str) -> list[str]:
    return [note for name, note in MAF_WIDTH_NOTES.items() if data.startswith(name)]


def _data(data: str) -> DataSpec:
    """Return the data set, images in the MAF paper's convention."""
    return DataSpec(name=data, args={"convention": "maf"} if data in IMAGES else {})


# --------------------------------------------------------------------------- FFJORD


def _published_ffjord(data: str, setting: FfjordSetting) -> Recipe:
    hidden = setting.hidden_layers * (setting.multiplier * card(data).dim,)
    args = {
        "flows": setting.flows,
        "hidden": list(hidden),
        "layer": "concatsquash",
        "activation": setting.activation,
        "solver": "dopri5",
        "rtol": 1e-6,
        "atol": 1e-8,
        "step_size": None,
        "adjoint": True,
        "noise": "gaussian",
    }
    stage = Stage(
        data=_data(data),
        model=ModelSpec(name="ffjord:FFJORD", args=args),
        objective=ObjectiveSpec(args={"trace": "estimate"}),
        optimizer=OptimizerSpec(lr=1e-3, requested_weight_decay=1e-6),
        schedule=ScheduleSpec(drops=(10, 20)),
        batch_size=setting.batch_size,
        validation=ValidationSpec(
            every=200, unit="steps", trace="estimate", batch_size=setting.batch_size
        ),
        stopping=StoppingSpec(patience=30),
    )
    # No number of function evaluations was published for tables: 100 is that of the 2-D toys
    # (FFJORD section 4.1). 20,000 steps are 100 validations, a third of them bad at the end.
    return Recipe(
        name=f"ffjord/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(trace="exact", batch_size=1_000),
        cost=_ode_cost(data, stage, hidden, evaluations=100 * setting.flows, steps=20_000),
        source=FFJORD_SOURCE,
        notes=FFJORD_NOTES,
    )


def _small_ffjord(data: str, small: SmallSetting) -> Recipe:
    args = {
        "flows": 1,
        "hidden": list(small.ffjord_hidden),
        "layer": "concatsquash",
        "activation": "tanh",
        "solver": "rk4",
        "rtol": 1e-6,
        "atol": 1e-6,
        "step_size": 0.25,
        "adjoint": False,
        "noise": "gaussian",
    }
    stage = Stage(
        data=_data(data),
        model=ModelSpec(name="ffjord:FFJORD", args=args),
        objective=ObjectiveSpec(args={"trace": "estimate"}),
        optimizer=OptimizerSpec(lr=small.ffjord_lr),
        schedule=ScheduleSpec(drops=small.drops),
        batch_size=small.batch_size,
        validation=ValidationSpec(every=small.ffjord_every, unit="steps"),
        stopping=StoppingSpec(patience=small.patience, max_steps=small.ffjord_max_steps),
    )
    return Recipe(
        name=f"ffjord/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(model_overrides={"solver": "dopri5"}),
        cost=_ode_cost(data, stage, small.ffjord_hidden, evaluations=16, steps=small.ffjord_steps),
        source=SMALL_SOURCE,
        notes=("trained through four rk4 steps, tested with dopri5 at tolerances of 1e-6",),
    )


# --------------------------------------------------------------------------- cost

# Epochs until patience is over, of which 30 are the patience itself: a guess for the planner.
MAF_EPOCHS = 100
# Tensor operations of a training step, counted by hand: a masked network with its affine map,
# batch normalisation, gradients and optimiser; one evaluation of a continuous flow's dynamics.
LAUNCHES_PER_NETWORK = 60
LAUNCHES_PER_EVALUATION = 100


def _network(data: str, outputs: int) -> int:
    """Return the number of weights of a network with ``outputs`` per dimension."""
    dim = card(data).dim
    return _weights((dim, *_maf_setting(data).hidden, outputs * dim))


def _weights(widths: tuple[int, ...]) -> int:
    return sum(inputs * outputs for inputs, outputs in pairwise(widths))


def _feed_forward_cost(data: str, stage: Stage, weights: list[int]) -> Cost:
    """Count 6 operations per weight and example in training, and 2 in each pass after it.

    Before each validation, batch normalisation looks at the whole training set.
    """
    sizes, total, small = card(data).sizes, sum(weights), small_setting(data)
    epoch = sizes["train"] / stage.batch_size
    looks = stage.validation.every * (epoch if stage.validation.unit == "epochs" else 1)
    seen = sizes["train"] + sizes["val"]
    return Cost(
        steps=small.steps if small else int(MAF_EPOCHS * epoch),
        flops_per_step=6.0 * total * stage.batch_size + 2.0 * total * seen / looks,
        launches_per_step=LAUNCHES_PER_NETWORK * len(weights),
        evaluation_flops=2.0 * total * (sizes["train"] + sizes["test"]),
        memory_bytes=_memory(data, total, stage.batch_size * _units(data, weights)),
    )


def _ode_cost(
    data: str, stage: Stage, hidden: tuple[int, ...], evaluations: int, steps: int
) -> Cost:
    """Count 4 operations per weight and example to evaluate dynamics and an estimated trace.

    The gradient takes 12 more. The exact trace takes 2 per dimension.

    Args:
        data: The data set.
        stage: The stage of training.
        hidden: Widths of the dynamics' hidden layers.
        evaluations: Of the dynamics in one pass through all flows.
        steps: Expected steps.
    """
    dim, sizes = card(data).dim, card(data).sizes
    weights = _weights((dim, *hidden, dim))
    validation = 4.0 * weights * evaluations * sizes["val"] / stage.validation.every
    flows = stage.model.args["flows"]
    return Cost(
        steps=steps,
        flops_per_step=16.0 * weights * evaluations * stage.batch_size + validation,
        launches_per_step=LAUNCHES_PER_EVALUATION * evaluations,
        evaluation_flops=(2.0 + 2.0 * dim) * weights * evaluations * sizes["test"],
        memory_bytes=_memory(data, flows * weights, 20 * stage.batch_size * sum(hidden)),
    )


def _examples(data: str) -> int:
    return sum(card(data).sizes.values())


def _units(data: str, weights: list[int]) -> int:
    """Return the numbers that training keeps for one example."""
    return len(weights) * (2 * sum(_maf_setting(data).hidden) + 8 * card(data).dim)


def _memory(data: str, weights: int, batch_numbers: int) -> int:
    """Return bytes: the process, the data, weights with gradient and moments, and a batch."""
    numbers = _examples(data) * card(data).dim + 6 * weights + batch_numbers
    return 500_000_000 + 4 * numbers
