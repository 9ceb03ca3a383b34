"""Apple's GPUs, ``mps``: runs train there, and are evaluated on the CPU, in double precision.

Nothing of a paper was computed on them, and torch has no test of a whole model there. So the log
density of a few examples is computed on both before a stage begins, and has to be the same.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import UsageError
from dgm_bench.models.capabilities import CalibratesOnData, HasLogProb

#: Of a log density in nats, relative where it is above one nat.
TOLERANCE = 1e-4
#: How many examples are compared.
EXAMPLES = 64
_REMEDY = "use --device cpu"
CPU = torch.device("cpu")


def is_apple(device: torch.device) -> bool:
    """Say whether a device is one of Apple's GPUs."""
    return device.type == "mps"


def home_of(device: torch.device) -> torch.device:
    """Return the device that a run is evaluated on."""
    return CPU if is_apple(device) else device


def require_same(model: nn.Module, x: Float[Tensor, "n *event"], device: torch.device) -> None:
    """Refuse a device that gives a model another log density than the CPU does.

    Args:
        model: On the CPU; it stays as it is.
        x: Examples, as the model sees them.
        device: The other one.

    Raises:
        UsageError: The model has no log density, it cannot be computed there, or it is another.
    """
    thing, name = f"--device {device.type}", type(model).__name__
    if not isinstance(model, HasLogProb):
        reason = f"{name} has no log density to compare with the CPU's"
        raise UsageError(thing, reason, _REMEDY)
    known = _log_prob(model, x, CPU)
    try:
        found = _log_prob(model, x, device)
    except (RuntimeError, TypeError) as error:
        reason = f"cannot compute {name} ({str(error).splitlines()[0]})"
        raise UsageError(thing, reason, _REMEDY) from error
    worst = float(((found - known).abs() / known.abs().clamp(min=1)).max())
    if not worst <= TOLERANCE:
        reason = f"the log density of {name} is off by {worst:.1e}, and {TOLERANCE:.0e} is allowed"
        raise UsageError(thing, reason, _REMEDY)


@torch.no_grad()
def _log_prob(model: nn.Module, x: Tensor, device: torch.device) -> Float[Tensor, " n"]:
    there, own = copy.deepcopy(model).to(device).eval(), x.to(device)
    if isinstance(there, CalibratesOnData):
        there.calibrate(own)
    assert isinstance(there, HasLogProb)
    return there.log_prob(own).cpu().double()
