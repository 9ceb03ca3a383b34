"""Noise and statistics of a whole batch, where this process computes a slice of it.

A batch may be divided among processes, or be computed in parts one after the other. Models are to
give each example what it would get in one piece. So they draw the noise of examples, take
statistics over the batch and drop units by what is here, with examples along the first axis (or,
flattened into it, several rows of each example in a row). Where nothing is divided, each of these
is torch's own operation. Noise that belongs to no example, and what is the same for the whole
batch, is drawn as usual: generators are in the same state everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Int, Num
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dgm_bench.errors import DeclarationError


@dataclass(frozen=True)
class Slice:
    """A part of a batch of ``total`` examples: of ``slices`` nearly equal ones the one ``number``.

    Attributes:
        add_up: Replaces a tensor by its sum over all slices, in place; None where they are
            computed one after the other and cannot know of each other.
    """

    number: int
    slices: int
    total: int
    add_up: Callable[[Tensor], None] | None = None

    @property
    def start(self) -> int:
        """The first of its examples."""
        return self.total * self.number // self.slices

    @property
    def stop(self) -> int:
        """The first example after it."""
        return self.total * (self.number + 1) // self.slices

    @property
    def share(self) -> float:
        """The part of the batch that it is."""
        return (self.stop - self.start) / self.total

    @property
    def shares(self) -> list[float]:
        """The parts of the batch that all slices are."""
        return [replace(self, number=number).share for number in range(self.slices)]

    def rows(self, rows: int) -> tuple[int, int]:
        """Return rows of the whole batch, and the first that is ours, where ours are ``rows``.

        Raises:
            DeclarationError: They are not as many for each example.
        """
        each, rest = divmod(rows, self.stop - self.start)
        if rest:
            thing, reason = f"noise of {rows} rows", f"is not of {self.stop - self.start} examples"
            raise DeclarationError(thing, reason, "use one device, and no --accumulate")
        return each * self.total, each * self.start

    def sum(self, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Return the sum over all slices, for a tensor without gradient.

        Raises:
            DeclarationError: Slices are computed one after the other.
        """
        if self.add_up is None:
            reason = "are of the whole batch, which is computed in parts"
            raise DeclarationError("statistics of a batch", reason, "leave out --accumulate")
        total = x.clone(memory_format=torch.contiguous_format)
        self.add_up(total)
        return total


_active: Slice | None = None


@contextmanager
def sharing(part: Slice | None) -> Iterator[None]:
    """Compute a slice of a batch until the block ends; gradients of it belong into the block."""
    global _active
    before, _active = _active, part
    try:
        yield
    finally:
        _active = before


def is_shared() -> bool:
    """Say whether what is computed is a slice of a batch."""
    return _active is not None


@runtime_checkable
class Divider(Protocol):
    """The processes that a batch is divided among."""

    def slice_of(self, total: int) -> Slice | None:
        """Return this process's part of a batch; None where it is not divided."""
        ...

    def gathered(self, rows: Num[Tensor, "n *rest"]) -> list[Num[Tensor, "_n *rest"]]:
        """Return the rows of each process."""
        ...

    def call(self, method: str, x: Num[Tensor, "n *event"], noise: torch.Generator | None) -> None:
        """Tell the others what of the model is called, where they do not know it themselves."""
        ...


_divider: Divider | None = None


@contextmanager
def divided(divider: Divider) -> Iterator[None]:
    """Let :func:`by_slices` divide its batches, until the block ends."""
    global _divider
    before, _divider = _divider, divider
    try:
        yield
    finally:
        _divider = before


def by_slices(
    function: Callable[[Num[Tensor, "n *event"]], Num[Tensor, "n_found *rest"]],
    x: Num[Tensor, "n_whole *event"],
) -> Num[Tensor, "n_all *rest"]:
    """Return ``function(x)``, of which each process may compute its rows."""
    part = None if _divider is None else _divider.slice_of(len(x))
    if part is None or _divider is None:
        return function(x)
    with sharing(part):
        own = function(x[part.start : part.stop])
    return torch.cat(_divider.gathered(own))


def rows_of(
    model: object, method: str, x: Num[Tensor, "n *event"], noise: torch.Generator | None = None
) -> Num[Tensor, "n *rest"]:
    """Return what a method of a model gives each example, of which each process may do a slice.

    Args:
        model: With this method.
        method: Its name. It takes examples, and the source of noise where one is given.
        x: The examples.
        noise: Source of noise.
    """
    if _divider is not None:
        _divider.call(method, x, noise)
    more = () if noise is None else (noise,)
    return by_slices(lambda own: getattr(model, method)(own, *more), x)


def share() -> float:
    """Return the part of the batch that is computed here."""
    return 1.0 if _active is None else _active.share


# ----------------------------------------------------------------------------- noise


def normal_(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill ``x`` with standard normal noise of its examples, and return it."""
    return _fill(x, lambda whole: whole.normal_(generator=generator))


def uniform_(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill ``x`` with noise of its examples, uniform in [0, 1), and return it."""
    return _fill(x, lambda whole: whole.uniform_(generator=generator))


def exponential_(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill ``x`` with standard exponential noise of its examples, and return it."""
    return _fill(x, lambda whole: whole.exponential_(generator=generator))


def coins_(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill ``x`` with zeros and ones that are as likely, of its examples, and return it."""
    return _fill(x, lambda whole: whole.bernoulli_(0.5, generator=generator))


def integers_(x: Tensor, high: int, generator: torch.Generator | None) -> Tensor:
    """Fill ``x`` with integers from 0 to ``high``, exclusive, of its examples, and return it."""
    return _fill(x, lambda whole: whole.random_(0, high, generator=generator))


class Dropout(nn.Dropout):
    """Torch's own, of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with units dropped in training mode."""
        if _active is None or not self.training or not self.p:
            return super().forward(x)
        ones = torch.ones_like(x)
        return x * _fill(ones, lambda whole: F.dropout(whole.fill_(1), self.p))


def _fill(x: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
    if _active is None:
        return fill(x)
    rows, first = _active.rows(len(x))
    # Noise is drawn in the order of memory, which is that of one process then.
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    whole = torch.empty_permuted((rows, *x.shape[1:]), order, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        return x.copy_(fill(whole)[first : first + len(x)])


# ----------------------------------------------------------------------------- statistics


def summed(x: Tensor) -> Tensor:
    """Return the sum of what each slice has of a batch; gradients of all slices come back."""
    return x if _active is None else _Sum.apply(_active, x)


def mean(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return the mean over the batch, and over all other axes or those of ``axes``.

    Args:
        x: With rows of examples first.
        axes: With the first one; None for all.
    """
    if _active is None:
        return x.mean() if axes is None else x.mean(tuple(axes))
    over = tuple(range(x.dim()) if axes is None else axes)
    return summed(x.sum(over)) / count(x, over)


def var_mean(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the biased variance and the mean over ``axes``, the first one among them."""
    if _active is None:
        return torch.var_mean(x, dim=tuple(axes), correction=0)
    # Each slice's own in a row of its own, so that one sum tells all of them.
    own = torch.stack(torch.var_mean(x, dim=tuple(axes), correction=0))
    table = F.pad(
        own[None], [0, 0] * own.dim() + [_active.number, _active.slices - _active.number - 1]
    )
    variances, centres = summed(table).unbind(1)
    shares = torch.tensor(_active.shares, dtype=own.dtype, device=own.device)
    centre = torch.tensordot(shares, centres, 1)
    return torch.tensordot(shares, variances + (centres - centre).square(), 1), centre


def count(x: Tensor, axes: Sequence[int]) -> int:
    """Return how many numbers of the whole batch there are along these axes."""
    rows = len(x) if _active is None else _active.rows(len(x))[0]
    return rows * math.prod(x.shape[axis] for axis in axes if axis)


def picked(rows: Num[Tensor, "n *rest"], index: Int[Tensor, " k"]) -> Num[Tensor, "k *rest"]:
    """Return rows by their numbers in the whole batch, without gradient."""
    if _active is None:
        return rows[index]
    own = index - _active.rows(len(rows))[1]
    here = (own >= 0) & (own < len(rows))
    found = rows[own.clamp(0, len(rows) - 1)]
    return _active.sum(found * here.view(-1, *[1] * (rows.dim() - 1)).to(found))


def with_whole_gradients(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return tensors that are the same for all slices, whose gradients are summed over them."""
    return tuple(tensors) if _active is None else _Same.apply(_active, *tensors)


class _Context(FunctionCtx):
    part: Slice


class _Sum(torch.autograd.Function):
    """The sum over all slices, of which each slice's loss depends on all."""

    @staticmethod
    def forward(ctx: FunctionCtx, part: Slice, x: Tensor) -> Tensor:
        cast(_Context, ctx).part = part
        return part.sum(x)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[None, Tensor]:
        # Itself a function, for losses that have gradients in them.
        return None, _Sum.apply(cast(_Context, ctx).part, gradient)


class _Same(torch.autograd.Function):
    """Tensors as they are; what they get back is the sum over all slices."""

    @staticmethod
    def forward(ctx: FunctionCtx, part: Slice, *tensors: Tensor) -> tuple[Tensor, ...]:
        cast(_Context, ctx).part = part
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Any, ...]:
        flat = cast(_Context, ctx).part.sum(
            torch.cat([gradient.flatten() for gradient in gradients])
        )
        parts = flat.split([gradient.numel() for gradient in gradients])
        shaped = (own.view_as(part) for own, part in zip(parts, gradients, strict=True))
        return None, *shaped
