"""The rows of continuous flows on vectors: FFJORD, its variants, and what came after it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN
from dgm_bench.spec import (
    Cost,
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

from .protocols import ffjord_stage, small_stage
from .shared import SmallSetting, flat_data, required_setting, small_setting

#: Most rows train on estimates of the trace.
ESTIMATED = ObjectiveSpec(args={"trace": "estimate"})
EXACT = ObjectiveSpec(args={"trace": "exact"})
#: Solver of ``ffjord-fast``, and its evaluations in one pass.
FAST = {"solver": "rk5", "step_size": 0.5, "adjoint": False}
FAST_EVALUATIONS = 12


class FfjordSetting(NamedTuple):
    """One line of FFJORD Table 4."""

    activation: str
    hidden_layers: int
    multiplier: int
    flows: int
    batch_size: int

    def hidden(self, data: str) -> tuple[int, ...]:
        """Return the widths of the hidden layers on a data set."""
        return self.hidden_layers * (self.multiplier * card(data).dim,)


FFJORD_TABLE_4 = {
    "power": FfjordSetting("tanh", 3, 10, 5, 10_000),
    "gas": FfjordSetting("tanh", 3, 20, 5, 1_000),
    "hepmass": FfjordSetting("softplus", 2, 10, 10, 10_000),
    "miniboone": FfjordSetting("softplus", 2, 20, 1, 1_000),
    "bsds300": FfjordSetting("softplus", 3, 20, 2, 10_000),
    "bsds300-patches": FfjordSetting("softplus", 3, 20, 2, 10_000),
}

FFJORD_SOURCE = "FFJORD Table 4, section 4 and appendix C; released FFJORD code (train_tabular.py)"
LAYER_NOTES = {
    "concatsquash": "concatsquash layers, the released code's default; the paper says concat",
    "concat": "concat layers, as the paper says; the released code's default is concatsquash",
}
DECAY_NOTE = "weight decay 1e-6 asked for and never applied (lib/custom_optimizers.py, line 103)"
DECAY_APPLIED_NOTE = "weight decay 1e-6 applied, as the paper says; the released code drops it"
FFJORD_NOTES = (
    "end time T = 1: the released code is meant to train it, but no gradient reaches it",
    "validation by an estimate of the trace, test by the exact trace",
)
# No number of function evaluations was published for tables: 100 is that of the 2-D toys
# (FFJORD section 4.1). 20,000 steps are 100 validations, the last 30 without improvement.
EVALUATIONS, STEPS = 100, 20_000
# Of a small model, by dopri5 at tolerances of 1e-6, as seen.
SMALL_TESTED = 60

# --------------------------------------------------------------------------- FFJORD


def ffjord(data: str, layer: str = "concatsquash", weight_decay: float = 0.0) -> Recipe:
    """FFJORD on vectors; as released, or with what the paper's text says instead."""
    variant = ("" if layer == "concatsquash" else f"-{layer}") + ("-decay" if weight_decay else "")
    if small := small_setting(data):
        return _small_ffjord(data, small.continuous(), f"ffjord{variant}", layer, weight_decay)
    setting = FFJORD_TABLE_4[data]
    asked = None if weight_decay else 1e-6
    stage = _published_stage(
        data,
        _args(data, setting, layer=layer),
        OptimizerSpec(lr=1e-3, weight_decay=weight_decay, requested_weight_decay=asked),
    )
    notes = (LAYER_NOTES[layer], DECAY_APPLIED_NOTE if weight_decay else DECAY_NOTE, *FFJORD_NOTES)
    return Recipe(
        name=f"ffjord{variant}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(trace="exact", batch_size=1_000),
        cost=_cost(data, stage, EVALUATIONS * setting.flows, STEPS),
        source=FFJORD_SOURCE,
        notes=notes,
    )


def ffjord_adjoint(data: str) -> Recipe:
    """FFJORD on one of our columns, solved as published: dopri5, its tolerances, the adjoint."""
    small = required_setting(data).continuous()
    model = ModelSpec(name="ffjord:FFJORD", args=_small_args(small) | _published_solver())
    stage = small_stage(data, model, small, objective=ESTIMATED)
    return Recipe(
        name=f"ffjord-adjoint/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000),
        # About 40 evaluations forward and, in the adjoint, as many again at twice the cost.
        cost=_cost(data, stage, evaluations=80, steps=small.steps),
        source=OWN_COLUMN,
        notes=("solver, tolerances and gradients as published for tables (FFJORD appendix C)",),
    )


def ffjord_fast(data: str) -> Recipe:
    """FFJORD solved in less time: fixed steps, gradients through them, traces exact if cheap.

    With two hidden layers the exact trace takes no more products than an estimate, and training
    has none of its noise. Tests have the published solver.
    """
    if small := small_setting(data):
        small = small.continuous()
        model = ModelSpec(name="ffjord:FFJORD", args=_small_args(small) | FAST)
        stage = small_stage(data, model, small, objective=EXACT)
        note = "trained through two steps of order 5 on exact traces, tested with dopri5"
        return _small_recipe(data, stage, "ffjord-fast", note, evaluations=FAST_EVALUATIONS)
    setting = FFJORD_TABLE_4[data]
    exact = setting.hidden_layers == 2
    stage = _published_stage(
        data,
        _args(data, setting) | FAST,
        OptimizerSpec(lr=1e-3),
        EXACT if exact else ESTIMATED,
        trace="exact" if exact else "estimate",
    )
    return Recipe(
        name=f"ffjord-fast/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000, model_overrides={"solver": "dopri5"}),
        cost=_cost(
            data,
            stage,
            evaluations=FAST_EVALUATIONS * setting.flows,
            steps=STEPS,
            tested=EVALUATIONS * setting.flows,
        ),
        source=FFJORD_SOURCE,
        notes=(
            "trained through two steps of order 5, tested with dopri5 at the published tolerances",
            "exact trace in training" if exact else "estimated trace in training, as published",
        ),
    )


def _args(data: str, setting: FfjordSetting, layer: str = "concatsquash") -> dict[str, Any]:
    """Return the model of FFJORD Table 4 with the solver of its appendix C."""
    return {
        "flows": setting.flows,
        "hidden": list(setting.hidden(data)),
        "layer": layer,
        "activation": setting.activation,
        **_published_solver(),
        "noise": "gaussian",
    }


def _published_solver() -> dict[str, Any]:
    return {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-8, "step_size": None, "adjoint": True}


def _published_stage(
    data: str,
    args: dict[str, Any],
    optimizer: OptimizerSpec,
    objective: ObjectiveSpec = ESTIMATED,
    trace: Literal["exact", "estimate"] = "estimate",
) -> Stage:
    """Return FFJORD's protocol with the batches of its Table 4, in validations too."""
    batch_size = FFJORD_TABLE_4[data].batch_size
    return ffjord_stage(
        data,
        ModelSpec(name="ffjord:FFJORD", args=args),
        optimizer,
        batch_size,
        objective=objective,
        trace=trace,
        validation_batch=batch_size,
    )


# --------------------------------------------------------------------------- our columns


def _small_ffjord(
    data: str, small: SmallSetting, label: str, layer: str, weight_decay: float
) -> Recipe:
    model = ModelSpec(name="ffjord:FFJORD", args=_small_args(small) | {"layer": layer})
    stage = small_stage(data, model, small, objective=ESTIMATED, weight_decay=weight_decay)
    return _small_recipe(
        data,
        stage,
        label,
        "trained through four rk4 steps, tested with dopri5 at tolerances of 1e-6",
    )


def _small_args(small: SmallSetting) -> dict[str, Any]:
    return {
        "flows": 1,
        "hidden": list(small.hidden),
        "layer": "concatsquash",
        "activation": "tanh",
        "solver": "rk4",
        "rtol": 1e-6,
        "atol": 1e-6,
        "step_size": 0.25,
        "adjoint": False,
        "noise": "gaussian",
    }


def _small_recipe(data: str, stage: Stage, label: str, note: str, evaluations: int = 16) -> Recipe:
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(model_overrides={"solver": "dopri5"}),
        cost=_cost(
            data,
            stage,
            evaluations=evaluations,
            steps=required_setting(data).ffjord_steps,
            tested=SMALL_TESTED,
        ),
        source=OWN_COLUMN,
        notes=(note,),
    )


# --------------------------------------------------------------------------- cheaper training


def ffjord_dto(data: str) -> Recipe:
    """FFJORD's network, discretised, then optimised: gradients through fixed steps.

    Onken and Ruthotto's setting for MINIBOONE (released code, README): rk4 with step 0.25 in
    training and 0.10 in tests, batch 5,000, rate 1e-3, until 20 validations bring no improvement,
    at most 2,000 epochs. Other tables have FFJORD's batch.
    """
    setting = FFJORD_TABLE_4[data]
    args = _args(data, setting) | {"solver": "rk4", "step_size": 0.25, "adjoint": False}
    stage = Stage(
        data=flat_data(data),
        model=ModelSpec(name="ffjord:FFJORD", args=args),
        objective=ESTIMATED,
        optimizer=OptimizerSpec(lr=1e-3),
        batch_size=5_000 if data == "miniboone" else setting.batch_size,
        validation=ValidationSpec(every=1, unit="epochs", trace="estimate", batch_size=5_000),
        stopping=StoppingSpec(patience=20, max_epochs=2_000),
    )
    return Recipe(
        name=f"ffjord-dto/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000, model_overrides={"step_size": 0.1}),
        cost=_cost(
            data,
            stage,
            evaluations=16 * setting.flows,
            steps=min(STEPS, 2_000 * card(data).sizes["train"] // stage.batch_size),
            tested=40 * setting.flows,
        ),
        source="released code of Onken and Ruthotto 2020, README (MINIBOONE)",
        notes=(
            "settings of other tables than MINIBOONE: FFJORD Table 4's batch",
            "how often the released code validates, and whether its rate drops, was not found",
        ),
    )


def rnode(data: str) -> Recipe:
    """FFJORD with kinetic and Jacobian regularisation and a fixed-step solver (RNODE).

    Finlay et al. 2020: both coefficients 0.01, rk4 with step 0.25 (released code, MNIST script).
    The released code has no tables; there, the rest is FFJORD's.
    """
    objective = ObjectiveSpec(name="rnode", args={"kinetic": 0.01, "jacobian": 0.01})
    if small := small_setting(data):
        small = small.continuous()
        model = ModelSpec(name="ffjord:FFJORD", args=_small_args(small))
        stage = small_stage(data, model, small, objective=objective)
        note = "four rk4 steps and both regularisers in training, dopri5 in tests"
        return _small_recipe(data, stage, "rnode", note)
    setting = FFJORD_TABLE_4[data]
    args = _args(data, setting) | {"solver": "rk4", "step_size": 0.25, "adjoint": False}
    stage = _published_stage(data, args, OptimizerSpec(lr=1e-3), objective)
    tested = {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5}
    return Recipe(
        name=f"rnode/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=1_000, model_overrides=tested),
        cost=_cost(
            data,
            stage,
            evaluations=16 * setting.flows,
            steps=STEPS,
            tested=EVALUATIONS * setting.flows,
        ),
        source="released RNODE code (example-scripts), on the networks of FFJORD Table 4",
        notes=("RNODE published no tables: its coefficients and solver, FFJORD's everything else",),
    )


def flow_matching(data: str) -> Recipe:
    """A continuous flow trained by flow matching, without a solver, and scored exactly.

    Lipman et al. 2023, section 4, the optimal-transport path. Network and steps are ours.
    """
    small = small_setting(data)
    # Two hidden layers: the exact trace then costs no more than the network.
    hidden = (512, 512) if small is None else (128, 128)
    args: dict[str, Any] = {
        "flows": 1,
        "hidden": list(hidden),
        "layer": "concatsquash",
        "activation": "tanh",
        "solver": "rk4",
        "rtol": 1e-5,
        "atol": 1e-5,
        "step_size": 0.1,
        "adjoint": False,
        "noise": "gaussian",
    }
    steps = 20_000 if small else 100_000
    stage = Stage(
        data=flat_data(data),
        model=ModelSpec(name="ffjord:FFJORD", args=args),
        objective=ObjectiveSpec(name="flow-matching", args={"sigma": 0.0}),
        optimizer=OptimizerSpec(lr=2e-3 if small else 1e-3),
        schedule=ScheduleSpec(cosine_steps=steps),
        batch_size=512 if small else 2_048,
        validation=ValidationSpec(every=steps // 20, unit="steps", trace="estimate"),
        stopping=StoppingSpec(max_steps=steps),
        average_decay=0.999,
    )
    return Recipe(
        name=f"flow-matching/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            batch_size=1_000 if small is None else 10_000, model_overrides={"solver": "dopri5"}
        ),
        # A step evaluates the network once; only validations and the test solve equations.
        cost=_cost(data, stage, evaluations=1, steps=steps, tested=SMALL_TESTED),
        source=OWN_COLUMN if small else "Lipman et al. 2023, section 4; settings of this project",
        notes=("exact likelihood of the learned flow, by dopri5 at tolerances of 1e-5",),
    )


def planar_cnf(data: str) -> Recipe:
    """Planar continuous flow (Chen et al. 2018, section 4), solved as FFJORD is here."""
    small = small_setting(data)
    args: dict[str, Any] = {
        "width": 64 if small else 512,
        "gate_hidden": 16,
        "solver": "rk4",
        "rtol": 1e-6,
        "atol": 1e-6,
        "step_size": 0.25,
        "adjoint": False,
    }
    model = ModelSpec(name="planar:PlanarCNF", args=args)
    objective = ObjectiveSpec(args={"trace": "exact"})
    optimizer = OptimizerSpec(lr=1e-3)
    stage = (
        small_stage(data, model, small.continuous(), objective=objective)
        if small
        else ffjord_stage(data, model, optimizer, batch_size=1_000, objective=objective)
    )
    dim = card(data).dim
    return Recipe(
        name=f"planar-cnf/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(model_overrides={"solver": "dopri5"}),
        cost=costs.ode_cost(
            data,
            stage,
            products=costs.weights((dim, args["width"], dim)),
            evaluations=16,
            steps=small.ffjord_steps if small else STEPS,
            kept=20 * args["width"],
            tested=SMALL_TESTED,
        ),
        source=OWN_COLUMN if small else "neural ODEs, section 4; size chosen for this project",
        notes=("trained through four rk4 steps, tested with dopri5 at tolerances of 1e-6",),
    )


# --------------------------------------------------------------------------- cost


def _cost(data: str, stage: Stage, evaluations: int, steps: int, tested: int | None = None) -> Cost:
    dim, args = card(data).dim, stage.model.args
    return costs.ode_cost(
        data,
        stage,
        products=costs.weights((dim, *args["hidden"], dim)),
        evaluations=evaluations,
        steps=steps,
        kept=20 * sum(args["hidden"]),
        weights=args["flows"] * costs.weights((dim, *args["hidden"], dim)),
        tested=tested,
    )
