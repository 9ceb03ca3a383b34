"""Masked networks, whose outputs are autoregressive (MADE paper, section 4).

The paper is https://arxiv.org/abs/1502.03509.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "softplus", "elu"]
Degrees = Literal["sequential", "random", "shuffled"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}


def activation_module(name: Activation) -> nn.Module:
    """Return the elementwise nonlinearity called ``name``.

    Raises:
        KeyError: There is no nonlinearity of this name.
    """
    return _ACTIVATIONS[name]()


def init_normal(linear: nn.Linear, fan_in: int) -> None:
    """Draw weights from N(0, 1/(fan_in + 1)) and set biases to zero, as the released MAF code."""
    nn.init.normal_(linear.weight, std=(fan_in + 1) ** -0.5)
    nn.init.zeros_(linear.bias)


def input_degrees(dim: int, *, reverse: bool = False) -> Int[Tensor, " dim"]:
    """Return the degrees of the inputs, their order in the factorisation: 1 to dim, or reversed."""
    degrees = torch.arange(1, dim + 1)
    return degrees.flip(0) if reverse else degrees


def hidden_degrees(
    previous: Int[Tensor, " inputs"], width: int, dim: int, kind: Degrees
) -> Int[Tensor, " width"]:
    """Return the degree of each hidden unit: the number of inputs, in order, that it depends on.

    Args:
        previous: Degrees of the layer below.
        width: Number of hidden units.
        dim: Number of inputs of the whole network.
        kind: ``"sequential"`` cycles through 1 ... dim-1; ``"random"`` draws uniformly from the
            smallest degree below to dim-1 (MADE paper, section 4.1); ``"shuffled"`` has each of
            1 ... dim-1 equally often, as far as that goes, in random order (CW-Huang/torchkit,
            iaf_modules.py, ``get_rank``).
    """
    if kind == "sequential":
        return torch.arange(width) % max(1, dim - 1) + min(1, dim - 1)
    if kind == "shuffled":
        count = max(1, dim - 1)
        ranks = torch.cat([torch.randperm(count) for _ in range(-(-width // count))])
        return ranks[:width] + min(1, dim - 1)
    lowest = 1 if previous.is_meta else min(int(previous.min()), dim - 1)
    return torch.randint(lowest, max(dim, lowest + 1), (width,))


def made_masks(
    order: Int[Tensor, " dim"], hidden: Sequence[int], outputs: int, kind: Degrees
) -> list[Bool[Tensor, "units inputs"]]:
    """Return one mask per layer: True where a connection exists (MADE paper, eqs. 12 and 13).

    Args:
        order: Degree of each input, a permutation of 1 ... dim.
        hidden: Widths of the hidden layers.
        outputs: Outputs per input dimension; output ``k * dim + d`` belongs to dimension ``d``.
        kind: How degrees are assigned to hidden units.
    """
    degrees, masks = order, []
    for width in hidden:
        above = hidden_degrees(degrees, width, len(order), kind)
        masks.append(above[:, None] >= degrees[None, :])
        degrees = above
    masks.append(order.repeat(outputs)[:, None] > degrees[None, :])
    return masks


class MaskedLinear(nn.Linear):
    """A linear layer with some of its connections masked.

    The mask multiplies the weight in each forward pass, so that masked weights have no effect,
    whatever an optimiser or a state dict sets them to. At the sizes of the MAF paper this costs
    about 5 % of a training step, no more than masking gradients instead.

    Args:
        mask: True where a connection exists.
    """

    mask: Float[Tensor, "outputs inputs"]

    def __init__(self, mask: Bool[Tensor, "outputs inputs"]) -> None:
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs)
        init_normal(self, inputs)
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return ``(W * mask) x + b``."""
        return F.linear(x, self.masked_weight(), self.bias)

    def masked_weight(self) -> Float[Tensor, "outputs inputs"]:
        """Return the matrix that multiplies the inputs."""
        return self.weight * self.mask


class MaskedLayer(NamedTuple):
    """A layer of an autoregressive network, as its inverse computes it: unit by unit.

    Attributes:
        linear: The layer.
        activation: Elementwise nonlinearity of its inputs, or None.
        skip_from: Index of the earlier layer, of the same width and degrees, whose units (before
            their nonlinearity) are added to those of this one, as in a residual block, or None.
    """

    linear: MaskedLinear
    activation: nn.Module | None = None
    skip_from: int | None = None


class MaskedNetwork(nn.Sequential):
    """A fully connected network whose outputs for dimension d depend on those before d alone.

    Args:
        order: Degree of each input, a permutation of 1 ... dim.
        hidden: Widths of the hidden layers.
        outputs: Outputs per input dimension.
        activation: Nonlinearity of the hidden layers.
        degrees: How degrees are assigned to hidden units.
        linear: Constructor of a layer from its mask.
    """

    order: Int[Tensor, " dim"]

    def __init__(
        self,
        order: Int[Tensor, " dim"],
        hidden: Sequence[int],
        outputs: int,
        activation: Activation = "relu",
        degrees: Degrees = "sequential",
        linear: Callable[[Bool[Tensor, "units inputs"]], MaskedLinear] = MaskedLinear,
    ) -> None:
        *inner, last = (linear(m) for m in made_masks(order, hidden, outputs, degrees))
        layers = [module for layer in inner for module in (layer, activation_module(activation))]
        super().__init__(*layers, last)
        self.register_buffer("order", order, persistent=False)

    @property
    def last(self) -> MaskedLinear:
        """The output layer."""
        return cast(MaskedLinear, self[-1])

    def masked_layers(self) -> list[MaskedLayer]:
        """Return the layers, each with the nonlinearity before it."""
        layers = list(self)
        linears = cast(list[MaskedLinear], layers[::2])
        return [MaskedLayer(linears[0]), *map(MaskedLayer, linears[1:], layers[1::2])]
