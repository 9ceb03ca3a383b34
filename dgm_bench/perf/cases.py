"""What is counted and timed: a training step of each kind of model, in a small size.

All are declared as in a recipe, by the names that outlive the classes behind them, so that the
same case can be built from an older state of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dgm_bench.errors import require_choice
from dgm_bench.spec import ModelSpec, ObjectiveSpec

#: How a batch is drawn: real numbers, pixels in [0, 1], bits, or codes below :data:`CODES`.
Values = Literal["normal", "uniform", "bits", "codes"]
CODES = 32
_LIKELIHOOD, _ELBO, _VQ = (ObjectiveSpec(name=name) for name in ("nll", "elbo", "vq"))


@dataclass(frozen=True)
class Case:
    """A training step: forward, backward, optimiser.

    Attributes:
        model: As in a recipe.
        shape: Of an example.
        batch: How many examples.
        values: How they are drawn.
        objective: As in a recipe.
        timed: Whether the step is also timed, base against head; it takes 3 to 30 ms.
        kernel: The plain network that the history measures its time by.
        loop: Whether the step is one of the training loop, with all that this does around it.
    """

    model: ModelSpec
    shape: tuple[int, ...]
    batch: int = 100
    values: Values = "normal"
    objective: ObjectiveSpec = _LIKELIHOOD
    timed: bool = False
    kernel: Literal["kernel-64", "kernel-256"] = "kernel-64"
    loop: bool = False


def _model(name: str, **args: object) -> ModelSpec:
    return ModelSpec(name=name, args=args)


_MADE = _model("made:MADE", hidden=[64, 64])
_MAF = _model("maf:MAF", layers=5, hidden=[64, 64])
_WIDE_MAF = _model("maf:MAF", layers=5, hidden=[256, 256])
_FFJORD = {"hidden": [64, 64], "activation": "tanh"}
_PIXELCNN = _model(
    "pixelcnn:PixelCNN", grids=[[8, 8]], level=0, codes=CODES, hidden=32, residual=16, layers=3
)

CASES: dict[str, Case] = {
    "made": Case(_MADE, (8,)),
    "maf": Case(_MAF, (8,), timed=True),
    "maf-wide": Case(_WIDE_MAF, (63,), timed=True, kernel="kernel-256"),
    "realnvp": Case(_model("realnvp:RealNVP", layers=5, hidden=[64, 64]), (8,)),
    "nsf-coupling": Case(_model("nsf:NSFCoupling", layers=3, hidden=32, blocks=2, bins=8), (8,)),
    "nsf-autoregressive": Case(
        _model("nsf:NSFAutoregressive", layers=3, hidden=32, blocks=2, bins=8), (8,), timed=True
    ),
    "maf-ddsf": Case(_model("naf:MAFDDSF", layers=2, hidden=[32], sigmoid_dim=8), (8,), timed=True),
    "ffjord-fixed": Case(
        _model("ffjord:FFJORD", solver="rk4", step_size=0.25, **_FFJORD), (6,), timed=True
    ),
    "ffjord-adaptive": Case(
        _model("ffjord:FFJORD", solver="dopri5", rtol=1e-4, atol=1e-4, **_FFJORD), (6,)
    ),
    "vae": Case(_model("vae:GaussianVAE", hidden=[64]), (64,), values="bits", objective=_ELBO),
    "conv-vae": Case(
        _model("gated_vae:ConvVAE", latent=16),
        (1, 28, 28),
        batch=4,
        values="bits",
        objective=_ELBO,
    ),
    "vqvae": Case(
        _model("vqvae:VQVAE", hidden=16, residual_units=16, codes=CODES, dim=8),
        (3, 16, 16),
        batch=8,
        values="uniform",
        objective=_VQ,
        timed=True,
    ),
    "pixelcnn": Case(_PIXELCNN, (65,), batch=8, values="codes", timed=True, kernel="kernel-256"),
    "loop": Case(_MADE, (8,), timed=True, loop=True),
}


def case_named(name: str) -> Case:
    """Return a case.

    Raises:
        DeclarationError: No case has that name.
    """
    require_choice("case", name, CASES)
    return CASES[name]
