"""Products with masked weights as a few dense blocks, for units that are sorted by degree.

A unit is connected to all units below of degrees up to its own (MADE paper, eqs. 12 and 13). With
the units of both layers sorted by degree the mask is a staircase, and a few blocks of rows, each of
the columns that its rows have, are little more than half of the dense product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx


class Block(NamedTuple):
    """Some rows of a mask. Between ``seen`` and beyond its ends they have no connection.

    Attributes:
        rows: The rows, units of the layer.
        seen: Columns that one of the rows has, and those between.
        full: Those at one end of ``seen`` that every row has.
        edge: The rest of ``seen``: here the mask decides.
    """

    rows: slice
    seen: slice
    full: slice
    edge: slice


def blocks_of(mask: Bool[Tensor, "units inputs"], count: int) -> tuple[Block, ...]:
    """Return a mask, of whatever form, as ``count`` blocks of rows; few connections make it fast.

    Args:
        mask: True where a connection exists.
        count: Number of blocks.
    """
    size = -(-len(mask) // count)
    return tuple(
        _block(mask[start : start + size], slice(start, min(start + size, len(mask))))
        for start in range(0, len(mask), size)
    )


def _block(part: Bool[Tensor, "units inputs"], rows: slice) -> Block:
    columns = part.any(0).nonzero().flatten().tolist() or [0, -1]
    start, end = columns[0], columns[-1] + 1
    partial = (~part.all(0))[start:end].nonzero().flatten().tolist() or [end - start, -1]
    first, last = start + partial[0], start + partial[-1] + 1
    if first - start >= end - last:
        full, edge = slice(start, first), slice(first, end)
    else:
        full, edge = slice(last, end), slice(start, last)
    return Block(rows, slice(start, end), full, edge)


def masked_product(
    x: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "units inputs"],
    bias: Float[Tensor, " units"],
    mask: Float[Tensor, "units inputs"],
    blocks: Sequence[Block],
) -> Float[Tensor, "batch units"]:
    """Return ``(weight * mask) x + bias``, with gradients, also of gradients.

    Args:
        x: Inputs.
        weight: What it has where the mask is zero has no effect, and gets a gradient of zero.
        bias: Added to each unit.
        mask: One where a connection exists, else zero.
        blocks: Of the mask.
    """
    result: Tensor = _MaskedProduct.apply(x, weight, bias, mask, blocks)
    return result


class _Context(FunctionCtx):
    """What the backward pass is left: ``edges`` are weights times mask, block by block."""

    blocks: Sequence[Block]
    edges: list[Tensor]
    saved_tensors: tuple[Tensor, Tensor, Tensor]
    needs_input_grad: tuple[bool, ...]


class _MaskedProduct(torch.autograd.Function):
    """Gradients of blocks are written where they belong: slicing would add up whole matrices."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor,
        blocks: Sequence[Block],
    ) -> Tensor:
        result, edges = x.new_empty(len(x), len(weight)), []
        for rows, _, full, edge in blocks:
            units = result[:, rows]
            torch.addmm(bias[rows], x[:, full], weight[rows, full].T, out=units)
            edges.append(weight[rows, edge] * mask[rows, edge])
            units.addmm_(x[:, edge], edges[-1].T)
        ctx.save_for_backward(x, weight, mask)
        ctx = cast(_Context, ctx)
        ctx.blocks, ctx.edges = blocks, edges
        return result

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx = cast(_Context, ctx)
        x, weight, mask = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        of_biases = gradient.sum(0) if of_bias else None
        if torch.is_grad_enabled():  # Gradients of these gradients are wanted.
            return gradient @ (weight * mask), (gradient.T @ x) * mask, of_biases, None, None
        of_inputs = _input_gradient(gradient, weight, ctx.blocks, ctx.edges) if of_x else None
        of_weights = _weight_gradient(gradient, x, mask, ctx.blocks) if of_weight else None
        return of_inputs, of_weights, of_biases, None, None


def _input_gradient(
    gradient: Float[Tensor, "batch units"],
    weight: Float[Tensor, "units inputs"],
    blocks: Sequence[Block],
    edges: Sequence[Tensor],
) -> Float[Tensor, "batch inputs"]:
    result = gradient.new_zeros(len(gradient), weight.shape[1])
    for (rows, _, full, edge), edge_weight in zip(blocks, edges, strict=True):
        result[:, full].addmm_(gradient[:, rows], weight[rows, full])
        result[:, edge].addmm_(gradient[:, rows], edge_weight)
    return result


def _weight_gradient(
    gradient: Float[Tensor, "batch units"],
    x: Float[Tensor, "batch inputs"],
    mask: Float[Tensor, "units inputs"],
    blocks: Sequence[Block],
) -> Float[Tensor, "units inputs"]:
    result = torch.empty_like(mask)
    for rows, seen, _, edge in blocks:
        units = result[rows]
        torch.mm(gradient[:, rows].T, x[:, seen], out=units[:, seen])
        units[:, edge].mul_(mask[rows, edge])
        units[:, : seen.start].zero_()
        units[:, seen.stop :].zero_()
    return result
