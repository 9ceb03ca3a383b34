"""A network whose parameters are held while gradients pass through it to its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def frozen(network: nn.Module) -> Callable[..., Tensor]:
    """Return the network as a function through which gradients reach its inputs only.

    An adversarial game needs it for the discriminator in the loss of the other player.
    """
    fixed = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def function(*inputs: Tensor | None) -> Tensor:
        outputs: Tensor = torch.func.functional_call(network, fixed, inputs)
        return outputs

    return function
