"""What is PixelCNN++'s own: shifts, scales, weight normalisation and its start on data."""

import pytest
import torch
from code_models import positions_seen
from torch import nn

from dgm_bench.models.capabilities import InitialisesOnData
from dgm_bench.models.codes.priors.pixelcnnpp import LOGIT_SCALE, PixelCNNPP
from dgm_bench.models.codes.priors.two_streams import BRANCH_SCALE, ShiftedBlock, TwoStreams
from dgm_bench.models.codes.priors.weight_norm import (
    NormedLinear,
    ShiftedConv,
    ShiftedTransposedConv,
    WeightNormed,
    concat_elu,
)


def new(grid, blocks=1, scales=3):
    size = grid[0] * grid[1] + 1
    args = {"hidden": 6, "blocks": blocks, "scales": scales, "dropout": 0.0}
    model = PixelCNNPP((size,), grids=[grid], level=0, codes=4, **args)
    for layer in model.modules():
        if isinstance(layer, WeightNormed):
            nn.init.constant_(layer.length, 1.0)
    return model


@pytest.mark.parametrize("grid", [(4, 4), (5, 6)])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_it_sees_all_that_comes_before_and_nothing_else(grid):
    positions = grid[0] * grid[1]
    strictly_before = torch.ones(positions, positions).tril(-1) > 0
    assert torch.equal(positions_seen(new(grid)), strictly_before)


def test_one_scale_reaches_as_far_as_its_convolutions():
    """Rows up: two by the first layer, two by each of two blocks, one by the last convolution."""
    seen = positions_seen(new((9, 9), blocks=1, scales=1)).view(9, 9, 9, 9)
    assert seen[8, 4].any(1).nonzero().flatten().tolist() == list(range(8 - 7, 9))


def touched(layer, inputs, place):
    """Outputs that one input has to do with, or the inputs that one output has to do with."""
    x = torch.zeros(1, *inputs, 2)
    x[0, place[0], place[1]] = 1.0
    changed = (layer(x) - layer(torch.zeros_like(x))).abs().sum(-1)[0] > 0
    return {tuple(p) for p in changed.nonzero().tolist()}


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ((2, 3), {(r, c) for r in (2, 3) for c in (1, 2, 3)}),
        ((2, 2), {(r, c) for r in (2, 3) for c in (2, 3)}),
        ((1, 3), {(2, c) for c in (1, 2, 3)}),
        ((2, 1), {(2, 2), (3, 2)}),
    ],
)
def test_a_shifted_convolution_reaches_down_and_right(kernel, expected):
    assert touched(ShiftedConv(2, 3, kernel), (5, 5), (2, 2)) == expected


@pytest.mark.parametrize(("width", "columns"), [(3, (1, 2, 3)), (2, (2, 3))])
def test_transposed_convolutions_double_the_sides(width, columns):
    layer = ShiftedTransposedConv(2, 3, width)
    assert layer(torch.randn(1, 3, 4, 2)).shape == (1, 6, 8, 3)
    assert touched(layer, (3, 3), (1, 1)) == {(r, c) for r in (2, 3) for c in columns}


@pytest.mark.parametrize(("width", "columns"), [(3, (1, 2, 3)), (2, (1, 2))])
def test_strided_convolutions_end_at_every_other_position(width, columns):
    conv, x = ShiftedConv(2, 3, (2, width), stride=2), torch.randn(1, 5, 5, 2, requires_grad=True)
    y = conv(x)
    assert y.shape == (1, 3, 3, 3)
    (gradient,) = torch.autograd.grad(y[0, 1, 1].square().sum(), x)
    seen = {tuple(p) for p in gradient[0].abs().sum(-1).nonzero().tolist()}
    assert seen == {(r, c) for r in (1, 2) for c in columns}


def test_weights_are_normalised_as_torch_does():
    layer = NormedLinear(5, 3)
    nn.init.normal_(layer.length)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
    weight = theirs.parametrizations.weight
    weight.original0.data = layer.length[:, None].detach()
    weight.original1.data = layer.direction.detach()
    theirs.bias.data = layer.bias.detach()
    x = torch.randn(7, 5)
    torch.testing.assert_close(layer(x), theirs(x))


def test_a_block_is_that_of_the_formula():
    block = ShiftedBlock(3, (2, 2), 2, 0.0, conditional=True)
    x, side, context = torch.randn(2, 4, 5, 3), torch.randn(2, 4, 5, 2), torch.randn(2, 4, 5, 3)

    def both(z):
        return torch.cat([nn.functional.elu(z), nn.functional.elu(-z)], -1)

    h = block.inner(both(x)) + block.side(both(side))
    a, b = (block.outer(both(h)) + context @ block.condition.weight.T).chunk(2, -1)
    torch.testing.assert_close(block(x, context, side), x + a * b.sigmoid())
    torch.testing.assert_close(concat_elu(x), both(x))


def test_the_first_batch_sets_mean_and_deviation_of_every_layer():
    model, seen = PixelCNNPP((37,), grids=[(6, 6)], level=0, codes=7, hidden=6, blocks=2), {}
    assert isinstance(model, InitialisesOnData)
    model.initialise(torch.randint(7, (100, 37)))
    for layer in (m for m in model.modules() if isinstance(m, WeightNormed)):
        layer.register_forward_hook(lambda layer, x, y: seen.setdefault(layer, []).append(y))
    assert model.training
    model.eval()
    torch.manual_seed(0)
    x = torch.randint(7, (100, 37))
    model.initialise(x)
    first = {layer: outputs[-1] for layer, outputs in seen.items()}
    model.log_prob(x)
    for layer, outputs in seen.items():
        deviation, mean = torch.std_mean(outputs[-1].flatten(0, -2), 0, correction=0)
        torch.testing.assert_close(outputs[-1], first[layer])
        assert mean.abs().max() < 1e-9
        torch.testing.assert_close(deviation, torch.full_like(deviation, layer.scale))
    assert {layer.scale for layer in seen} == {1.0, BRANCH_SCALE, LOGIT_SCALE}


def test_what_does_not_vary_over_the_first_batch_keeps_its_length():
    """The only position of a 1 x 1 grid depends on nothing: nothing may become huge."""
    model = PixelCNNPP((2,), grids=[(1, 1)], level=0, codes=4, hidden=6, scales=1, blocks=1)
    model.initialise(torch.randint(4, (100, 2)))
    for block in (module for module in model.modules() if isinstance(module, ShiftedBlock)):
        for layer in (block.inner, block.outer):
            assert torch.equal(layer.length, torch.full_like(layer.length, layer.scale))


def test_layers_are_as_many_as_in_the_paper():
    """Figure 2 and the released code: 5, 5, 5 down, then 5, 6, 6 up."""
    network = TwoStreams(3, 4, 5, 3, 0.5, conditional=False)
    assert [len(layers) for layers in network.down] == [5, 5, 5]
    assert [len(layers) for layers in reversed(network.up)] == [5, 6, 6]
