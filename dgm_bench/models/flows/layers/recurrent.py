"""Gated recurrent units over the dimensions of a vector, for TAN."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import require_choice

Cell = Literal["reset-before", "reset-after"]

#: Input of the first step, which has no dimension before it (released TAN code).
FIRST_INPUT = -1.0


class Recurrence(nn.Module):
    """State of a GRU before each dimension of a vector: ``h_d = g(x_{d-1}, h_{d-1})``.

    The two cells differ in where the reset gate ``r`` enters the candidate state.

    Args:
        units: Size of the state.
        cell: ``"reset-before"`` has ``tanh(w x + U (r * h))``: Cho et al.
            (2014, https://arxiv.org/abs/1406.1078, equation 8), and
            TensorFlow 1, in which the released TAN code is written. ``"reset-after"`` has
            ``tanh(w x + r * (U h))``: cuDNN, which runs all steps in a few kernels on a GPU.

    Raises:
        DeclarationError: There is no such cell.
    """

    def __init__(self, units: int, cell: Cell = "reset-before") -> None:
        super().__init__()
        require_choice("cell", cell, get_args(Cell))
        before = cell == "reset-before"
        self.cell: ResetBefore | ResetAfter = ResetBefore(units) if before else ResetAfter(units)
        self.units = units

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "dim batch units"]:
        """Return the state before each dimension, which depends on the dimensions before it."""
        previous = F.pad(x[:, :-1], (1, 0), value=FIRST_INPUT).T.contiguous()
        states: Tensor = self.cell(previous)
        return states

    def start(
        self, like: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch units"]]:
        """Return the first input and the initial state."""
        return like.new_full((len(like),), FIRST_INPUT), like.new_zeros(len(like), self.units)

    def step(
        self, previous: Float[Tensor, " batch"], state: Float[Tensor, "batch units"]
    ) -> Float[Tensor, "batch units"]:
        """Return the state after ``previous``."""
        return self.cell.step(previous, state)


class ResetBefore(nn.Module):
    """The cell of Cho et al. (2014), initialised as TensorFlow 1 does.

    Args:
        units: Size of the state.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.gates = nn.Linear(1 + units, 2 * units)
        self.proposal = nn.Linear(1 + units, units)
        init_glorot(self.gates, bias=1.0)
        init_glorot(self.proposal)

    def forward(self, inputs: Float[Tensor, "dim batch"]) -> Float[Tensor, "dim batch units"]:
        """Return the state after each input. All inputs are projected at once."""
        gates, candidates = (self._project(m, inputs) for m in (self.gates, self.proposal))
        recurrent = self._recurrent()
        states = [inputs.new_zeros(inputs.shape[1], self.units)]
        for gate, proposal in zip(gates, candidates, strict=True):
            states.append(_update(gate, proposal, states[-1], *recurrent))
        return torch.stack(states[1:])

    def step(
        self, previous: Float[Tensor, " batch"], state: Float[Tensor, "batch units"]
    ) -> Float[Tensor, "batch units"]:
        """Return the state after one input."""
        gate, proposal = (self._project(m, previous[None])[0] for m in (self.gates, self.proposal))
        return _update(gate, proposal, state, *self._recurrent())

    def _project(
        self, linear: nn.Linear, inputs: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "batch outputs"], ...]:
        return F.linear(inputs[..., None], linear.weight[:, :1], linear.bias).unbind()

    def _recurrent(self) -> tuple[Float[Tensor, "units 2*units"], Float[Tensor, "units units"]]:
        # Their rows are aligned again, without the column of the input.
        return self.gates.weight[:, 1:].T.contiguous(), self.proposal.weight[:, 1:].T.contiguous()


class ResetAfter(nn.Module):
    """The cell of cuDNN and of ``torch.nn.GRU``, initialised as :class:`ResetBefore`.

    Args:
        units: Size of the state.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(1, units)
        *weights, bias, recurrent_bias = self.gru.all_weights[0]
        for weight in weights:
            gates, proposal = weight.data.split([2 * units, units])
            for block in (gates, proposal):
                bound = (6 / (1 + units + len(block))) ** 0.5
                nn.init.uniform_(block, -bound, bound)
        nn.init.zeros_(recurrent_bias)
        nn.init.zeros_(bias)
        nn.init.ones_(bias.data[: 2 * units])

    def forward(self, inputs: Float[Tensor, "dim batch"]) -> Float[Tensor, "dim batch units"]:
        """Return the state after each input."""
        states: Tensor = self.gru(inputs[..., None])[0]
        return states

    def step(
        self, previous: Float[Tensor, " batch"], state: Float[Tensor, "batch units"]
    ) -> Float[Tensor, "batch units"]:
        """Return the state after one input."""
        return torch.gru_cell(previous[:, None], state, *self.gru.all_weights[0])


def init_glorot(linear: nn.Linear, bias: float = 0.0) -> None:
    """Draw weights as Glorot and Bengio (2010) do and set all biases to one number."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.constant_(linear.bias, bias)


def _update(
    gate: Float[Tensor, "batch two_units"],
    proposal: Float[Tensor, "batch units"],
    state: Float[Tensor, "batch units"],
    to_gate: Float[Tensor, "units 2*units"],
    to_proposal: Float[Tensor, "units units"],
) -> Float[Tensor, "batch units"]:
    """Return the next state, from the input's terms of the gates and of the candidate state."""
    reset, update = torch.addmm(gate, state, to_gate).sigmoid().chunk(2, dim=1)
    return torch.lerp(torch.addmm(proposal, reset * state, to_proposal).tanh(), state, update)
