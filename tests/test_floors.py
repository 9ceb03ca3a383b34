"""The floors of benchmarks: which products a step has, and that repeating them computes them."""

import pytest
import torch
from floors import Copies, Products
from torch import nn

BATCH, WIDTHS = 5, (4, 8, 3)


def step():
    """A training step of two layers."""
    inputs, hidden, outputs = WIDTHS
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    model(torch.randn(BATCH, inputs)).square().sum().backward()


def test_three_products_a_layer_but_for_the_inputs_gradient():
    floor = Products(step)
    (inputs, hidden, outputs), products = WIDTHS, len(floor.products)
    assert products == 5
    assert floor.flops == 2 * BATCH * (2 * inputs * hidden + 3 * hidden * outputs)


def test_repetition_computes_every_product_again():
    floor = Products(step)
    results = [product.result for product in floor.products]
    expected = [result.clone() for result in results]
    for result in results:
        result.zero_()
    floor()
    for result, first in zip(results, expected, strict=True):
        torch.testing.assert_close(result, first)


def test_convolutions_count():
    layer = nn.Conv2d(2, 3, kernel_size=3)
    floor = Products(lambda: layer(torch.randn(BATCH, 2, 6, 6)).sum().backward())
    forward = 2 * BATCH * 2 * 3 * 9 * 16
    assert floor.flops == 2 * forward


def test_no_products_no_floor_of_them():
    with pytest.raises(AssertionError, match="copies"):
        Products(lambda: torch.ones(3).exp())


def test_copies():
    floor = Copies([torch.arange(3.0), torch.ones(2, 2)])
    floor()
    for source, target in zip(floor.sources, floor.targets, strict=True):
        assert torch.equal(source, target)
