"""Fully connected networks without masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def fully_connected(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module],
    initialise: Callable[[int, nn.Linear], None] | None = None,
) -> nn.Sequential:
    """Return a network with linear output.

    Args:
        sizes: Number of inputs, widths of the hidden layers, number of outputs.
        activation: Constructor of the nonlinearity after each layer but the last.
        initialise: Called with the index of each new layer and the layer; None for torch's own
            initialisation.
    """
    modules: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        linear = nn.Linear(inputs, outputs)
        if initialise is not None:
            initialise(number, linear)
        modules += [linear, activation()]
    return nn.Sequential(*modules[:-1])
