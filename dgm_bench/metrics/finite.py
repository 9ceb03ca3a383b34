"""Values that are not finite end a run: no number is made of them."""

from __future__ import annotations

from jaxtyping import Num
from torch import Tensor

from dgm_bench.errors import RunFailure


def require_finite(values: Num[Tensor, "n *numbers"], what: str, of: str) -> None:
    """Refuse values that are not finite.

    Args:
        values: One or more for each of what is counted, which the first dimension numbers.
        what: The value, in words, such as ``the bound``.
        of: What is counted, in words, such as ``test examples``.

    Raises:
        RunFailure: One of them is infinite or no number.
    """
    if not values.is_floating_point():
        return
    finite = values.isfinite()
    if not bool(finite.all()):
        broken = int((~finite.reshape(len(values), -1).all(1)).sum())
        reason = f"{what} of {broken} of {len(values)} {of} is not finite"
        remedy = "train longer, or lower the learning rate (--set optimizer.lr=...)"
        raise RunFailure("diverged", reason, remedy)
