"""The rows of the FFJORD paper's Table 1: one small model of each approach, and its checks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from dgm_bench import costs
from dgm_bench.spec import EvaluationSpec, ModelSpec, ObjectiveSpec, OptimizerSpec, Recipe

from .protocols import brief_stage


class Approach(NamedTuple):
    """A model that stands for an approach, in a size that two dimensions need."""

    model: str
    args: dict[str, Any]
    objective: ObjectiveSpec = ObjectiveSpec()
    steps: int = 1_500
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    checkpoint: Literal["best", "last"] = "best"


HIDDEN = [64, 64]
#: Tensor operations of a training step, without a solver and with one.
LAUNCHES, SOLVED_LAUNCHES = 1_000, 10_000
SOLVER = {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4, "step_size": None, "adjoint": False}
MADE_ARGS = {"hidden": HIDDEN, "activation": "relu", "degrees": "sequential", "components": None}

APPROACHES = {
    "vae": Approach("vae:GaussianVAE", {"latent": 2, "hidden": HIDDEN}, ObjectiveSpec(name="elbo")),
    "gan": Approach(
        "gan:GAN",
        {"latent": 2, "hidden": HIDDEN},
        ObjectiveSpec(name="adversarial"),
        steps=3_000,
        lr=1e-3,
        betas=(0.5, 0.9),
        checkpoint="last",
    ),
    "made": Approach("made:MADE", MADE_ARGS),
    "planar": Approach(
        "planar:PlanarFlow",
        {"layers": 16},
        ObjectiveSpec(name="reverse-kl", args={"target": "8gaussians"}),
        lr=5e-3,
        checkpoint="last",
    ),
    "maf": Approach("maf:MAF", {**MADE_ARGS, "layers": 5, "batch_norm": False}),
    "tan": Approach(
        "tan:TAN",
        {
            "groups": 3,
            "units": 32,
            "components": 8,
            "parameter_layers": 2,
            "cell": "reset-before",
        },
        steps=300,
    ),
    "nice": Approach("nice:NICE", {"layers": 5, "hidden": HIDDEN, "base": "normal"}),
    "real-nvp": Approach("realnvp:RealNVP", {"layers": 5, "hidden": HIDDEN, "batch_norm": False}),
    "glow": Approach("glow:TabularGlow", {"layers": 5, "hidden": HIDDEN}),
    "planar-cnf": Approach(
        "planar:PlanarCNF", {"width": 64, "gate_hidden": 16, **SOLVER}, steps=200, lr=5e-3
    ),
    "ffjord": Approach(
        "ffjord:FFJORD",
        {
            "flows": 1,
            "hidden": HIDDEN,
            "layer": "concatsquash",
            "activation": "tanh",
            "noise": "gaussian",
            **SOLVER,
        },
        steps=200,
        lr=5e-3,
    ),
}


def approach(data: str, name: str) -> Recipe:
    """Train the model of an approach on a 2-D density, then check what it can do."""
    chosen = APPROACHES[name]
    model = ModelSpec(name=chosen.model, args=chosen.args)
    optimizer = OptimizerSpec(lr=chosen.lr, betas=chosen.betas)
    stage = brief_stage(data, model, optimizer, chosen.steps, chosen.objective)
    return Recipe(
        name=f"approach-{name}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=("abilities",), checkpoint=chosen.checkpoint),
        cost=costs.small_cost(
            data, chosen.steps, SOLVED_LAUNCHES if "solver" in chosen.args else LAUNCHES
        ),
        source="FFJORD Table 1; sizes chosen for this project",
    )
