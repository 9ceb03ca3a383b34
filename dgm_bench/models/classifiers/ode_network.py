"""A residual network and the neural ODE that takes the place of its blocks.

Chen, Rubanova, Bettencourt and Duvenaud (2018), https://arxiv.org/abs/1806.07366, section 3; the
layers are those of the released code (torchdiffeq, ``examples/odenet_mnist.py``), whose networks
have 232,970 and, with six residual blocks, 601,482 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Positive
from dgm_bench.errors import require_choice
from dgm_bench.models.classifiers.image_classifier import CLASSES, ImageClassifier
from dgm_bench.models.continuous.conv_dynamics import ConcatConv
from dgm_bench.models.continuous.solver import Solver, SolverName, SolverUser, gradient_of

Downsampling = Literal["residual", "convolution"]
#: Groups of a normalisation that has as many channels or more.
GROUPS = 32

Activations = Float[Tensor, "batch channels height width"]


def normalisation(channels: int) -> nn.GroupNorm:
    """Return group normalisation in 32 groups, or as many as there are channels."""
    return nn.GroupNorm(min(GROUPS, channels), channels)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, with normalisation and activation before each.

    He, Zhang, Ren and Sun (2016), https://arxiv.org/abs/1603.05027, figure 1b.

    Args:
        channels: Of input and output.
        stride: 2 halves height and width; the shortcut is a 1x1 convolution then, of the
            normalised input.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norms = nn.ModuleList(normalisation(channels) for _ in range(2))
        self.first = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Activations) -> Float[Tensor, "batch channels rows columns"]:
        """Return the block's output."""
        before, between = self.norms
        ready = before(x).relu()
        beside = x if self.shortcut is None else self.shortcut(ready)
        residual: Tensor = self.second(between(self.first(ready)).relu())
        return residual + beside


class BlockDynamics(nn.Module):
    """``f(t, h)``: a residual block's convolutions with the time as a further channel of each.

    Args:
        channels: Of ``h``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(normalisation(channels) for _ in range(3))
        self.first, self.second = (ConcatConv(channels, channels) for _ in range(2))

    def forward(self, t: Float[Tensor, ""], h: Activations) -> Activations:
        """Return ``dh/dt``."""
        before, between, after = self.norms
        inner = self.first(t, before(h).relu())
        derivative: Tensor = after(self.second(t, between(inner).relu()))
        return derivative


class ODEBlock(nn.Module):
    """``h(1)`` of ``dh/dt = f(t, h)`` (equation 2), in place of a sequence of residual blocks.

    Args:
        dynamics: ``f``.
        solver: How it is solved, and how gradients are taken.
    """

    span: Float[Tensor, "2"]

    def __init__(self, dynamics: BlockDynamics, solver: Solver) -> None:
        super().__init__()
        self.dynamics, self.solver = dynamics, solver
        self.register_buffer("span", torch.tensor([0.0, 1.0]), persistent=False)

    def forward(self, h: Activations) -> Activations:
        """Return the solution at the end."""
        (end,) = self.solver.solve(self.dynamics, (h,), self.span)
        return end


class ResidualNetwork(ImageClassifier):
    """The table's ResNet: downsampling by 4 in both directions, six blocks, a linear layer.

    Chen et al. (2018), https://arxiv.org/abs/1806.07366, Table 1.

    Args:
        event_shape: Shape of one example, an image and its class in one row.
        image_shape: Channels, height and width.
        channels: Of all layers.
        blocks: Residual blocks after downsampling.
        downsampling: ``residual``, two blocks of stride 2, with the paper's number of parameters;
            or ``convolution``, the released code's default.

    Example:
        >>> model = ResidualNetwork((65,), image_shape=[1, 8, 8], channels=4, blocks=1)
        >>> model.class_logits(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: Sequence[Count] = (1, 28, 28),
        channels: Count = 64,
        blocks: Count = 6,
        downsampling: Downsampling = "residual",
    ) -> None:
        super().__init__(event_shape, image_shape)
        self.down = _downsampling(image_shape[0], channels, downsampling)
        self.body = self._body(channels, blocks)
        self.norm, self.linear = normalisation(channels), nn.Linear(channels, CLASSES)

    def _body(self, channels: int, blocks: int) -> nn.Module:
        return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def class_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return unnormalised log probabilities of the classes."""
        features = self.norm(self.body(self.down(images))).relu().mean((2, 3))
        logits: Tensor = self.linear(features)
        return logits


class ODENetwork(SolverUser, ResidualNetwork):
    """The table's ODE-Net, and its RK-Net: one ordinary differential equation for the six blocks.

    Chen et al. (2018), https://arxiv.org/abs/1806.07366, section 3 and Table 1.

    Args:
        event_shape, image_shape, channels, downsampling: As for :class:`ResidualNetwork`.
        solver, rtol, atol, step_size: Of the solver; the paper's tolerance for classification is
            1e-3.
        adjoint: Gradients by the adjoint equation (section 2), the ODE-Net; or through the
            solver's own steps, the RK-Net.

    Example:
        >>> model = ODENetwork((65,), image_shape=[1, 8, 8], channels=4)
        >>> model.class_logits(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: Sequence[Count] = (1, 28, 28),
        channels: Count = 64,
        downsampling: Downsampling = "residual",
        solver: SolverName = "dopri5",
        rtol: Positive = 1e-3,
        atol: Positive = 1e-3,
        step_size: Positive | None = None,
        adjoint: bool = True,
    ) -> None:
        self.solver = Solver(solver, rtol, atol, step_size, gradient_of(adjoint))
        super().__init__(event_shape, image_shape, channels, 1, downsampling)

    def _body(self, channels: int, blocks: int) -> nn.Module:
        return ODEBlock(BlockDynamics(channels), self.solver)


def _downsampling(channels_in: int, channels: int, kind: Downsampling) -> nn.Sequential:
    """Return layers that halve height and width twice (``odenet_mnist.py``, lines "res", "conv").

    The first convolution is not padded and takes two pixels of each side first.
    """
    require_choice("downsampling", kind, ("residual", "convolution"))
    first = nn.Conv2d(channels_in, channels, 3)
    if kind == "residual":
        return nn.Sequential(first, ResidualBlock(channels, 2), ResidualBlock(channels, 2))
    halves = (
        (normalisation(channels), nn.ReLU(), nn.Conv2d(channels, channels, 4, 2, padding=1))
        for _ in range(2)
    )
    return nn.Sequential(first, *(layer for half in halves for layer in half))
