"""Masked networks, whose outputs are autoregressive (MADE paper, section 4).

The paper is https://arxiv.org/abs/1502.03509.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from dgm_bench.models.flows.layers.staircase import Block, blocks_of, masked_product

Activation = Literal["relu", "tanh", "softplus", "elu"]
Degrees = Literal["sequential", "random", "shuffled"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}

#: Blocks of a layer whose units are sorted. More of them are smaller than products are fast with.
BLOCKS = 8
#: Networks with as many units in each hidden layer are computed by blocks. On a CPU (AVX-512, batch
#: 100) forward and backward passes take 0.65 of the time at width 1,024, and no less at 512.
FEWEST_UNITS = 768


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

    Masked weights have no effect, whatever an optimiser or a state dict sets them to: the mask
    multiplies them in each forward pass, or they are left out of the products.

    Units may be sorted (:meth:`sort`); a state dict has them in their old order.

    Args:
        mask: True where a connection exists.
    """

    mask: Float[Tensor, "outputs inputs"]
    rows: Int[Tensor, " outputs"] | None
    columns: Int[Tensor, " inputs"] | None

    def __init__(self, mask: Bool[Tensor, "outputs inputs"]) -> None:
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs)
        init_normal(self, inputs)
        self.register_buffer("mask", mask.to(self.weight.dtype))
        self.register_buffer("rows", None, persistent=False)
        self.register_buffer("columns", None, persistent=False)
        self.blocks: tuple[Block, ...] = ()

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return ``(W * mask) x + b``."""
        if self.blocks and _blocks_serve(x):
            return masked_product(x, self.weight, self.bias, self.mask, self.blocks)
        return F.linear(x, self.masked_weight(), self.bias)

    def masked_weight(self) -> Float[Tensor, "outputs inputs"]:
        """Return the matrix that multiplies the inputs."""
        return self.weight * self.mask

    def places(self) -> Int[Tensor, " outputs"]:
        """Return the row that each unit, in the order of a state dict, has here."""
        if self.rows is None:
            return torch.arange(len(self.bias), device=self.bias.device)
        return self.rows.argsort()

    @torch.no_grad()
    def set_bias(self, bias: Float[Tensor, " outputs"]) -> None:
        """Set the biases of the units, in the order of a state dict."""
        self.bias.copy_(_picked(bias, self.rows, None))

    @torch.no_grad()
    def sort(
        self, rows: Int[Tensor, " outputs"] | None, columns: Int[Tensor, " inputs"] | None
    ) -> None:
        """Put units and inputs in another order, and compute by blocks from now on.

        Args:
            rows: Which unit comes first, second and so on; None to leave them as they are.
            columns: The same of the inputs.
        """
        self.rows, self.columns = rows, columns
        for tensor in (self.weight, self.bias, self.mask):
            tensor.copy_(_picked(tensor, rows, columns))
        self.blocks = blocks_of(self.mask > 0, BLOCKS)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        rows, columns = (None if o is None else o.argsort() for o in (self.rows, self.columns))
        for name in (prefix + name for name in ("weight", "bias", "mask")):
            destination[name] = _picked(destination[name], rows, columns)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: object
    ) -> None:
        for name in ("weight", "bias", "mask"):
            value = state_dict.get(prefix + name)
            if value is not None and value.shape == getattr(self, name).shape:
                state_dict[prefix + name] = _picked(value, self.rows, self.columns)
        super()._load_from_state_dict(state_dict, prefix, *others)
        if self.blocks:
            self.blocks = blocks_of(self.mask > 0, BLOCKS)


def _picked(
    tensor: Shaped[Tensor, " outputs *inputs"],
    rows: Int[Tensor, " outputs"] | None,
    columns: Int[Tensor, " inputs"] | None,
) -> Shaped[Tensor, " outputs *inputs"]:
    """Return rows, and columns if there are, in another order."""
    picked = tensor if rows is None else tensor[rows.to(tensor.device)]
    if columns is None or tensor.ndim == 1:
        return picked
    return picked[:, columns.to(tensor.device)]


def _blocks_serve(x: Float[Tensor, "*batch inputs"]) -> bool:
    """Say whether inputs can be multiplied by blocks: on a CPU, and not under transforms."""
    transformed = torch.is_autocast_enabled("cpu") or torch._C._are_functorch_transforms_active()
    return x.device.type == "cpu" and x.ndim == 2 and not transformed


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
        if linear is MaskedLinear and min(hidden, default=0) >= FEWEST_UNITS and not order.is_meta:
            self._sort_units()

    def forward(self, input: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs; output ``k * dim + d`` belongs to dimension ``d``."""
        outputs: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        if self.last.rows is None:
            return outputs
        of_dimension: Tensor = outputs.unflatten(1, (len(self.order), -1))
        return of_dimension.mT.flatten(1)

    @property
    def last(self) -> MaskedLinear:
        """The output layer."""
        return cast(MaskedLinear, self[-1])

    def _sort_units(self) -> None:
        """Sort hidden units by degree, and outputs by dimension."""
        degrees, columns = self.order, None
        *inner, last = (layer.linear for layer in self.masked_layers())
        for linear in inner:
            degrees = (linear.mask * degrees).amax(1).long()
            rows = degrees.argsort(stable=True)
            linear.sort(rows, columns)
            columns = rows
        outputs = torch.arange(len(last.mask), device=degrees.device)
        last.sort(outputs.view(-1, len(self.order)).T.flatten(), columns)

    def masked_layers(self) -> list[MaskedLayer]:
        """Return the layers, each with the nonlinearity before it."""
        layers = list(self)
        linears = cast(list[MaskedLinear], layers[::2])
        return [MaskedLayer(linears[0]), *map(MaskedLayer, linears[1:], layers[1::2])]
