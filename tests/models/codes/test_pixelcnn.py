"""What is PixelCNN's own: what it sees of the codes before a position, and its gates."""

import pytest
import torch
from code_models import positions_seen

from dgm_bench.models.codes.priors.pixelcnn import PixelCNN, gate


def new(grid, layers, kernel, **args):
    size = grid[0] * grid[1] + 1
    shape = {"hidden": 6, "residual": 5, "layers": layers, "kernel": kernel}
    return PixelCNN((size,), grids=[grid], level=0, codes=4, **shape, **args)


def within(grid, layers, kernel):
    """The whole causal neighbourhood as far as the convolutions reach together."""
    reach = layers * (kernel // 2)
    rows, columns = (x.flatten() for x in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    up, right = rows[:, None] - rows, columns - columns[:, None]
    same_row = (up == 0) & (right < 0) & (right >= -1 - reach)
    above = (up >= 1) & (up <= 1 + reach) & (right.abs() <= reach)
    return same_row | above


@pytest.mark.parametrize(
    ("layers", "kernel"), [(1, 3), (2, 3), (3, 3), (1, 5), (2, 5), (1, 7), (6, 3)]
)
def test_it_sees_all_within_its_reach_and_nothing_later(layers, kernel):
    grid = (6, 7)
    model = new(grid, layers, kernel, output_layers=1)
    assert torch.equal(positions_seen(model), within(grid, layers, kernel))


def test_deep_enough_it_has_no_blind_spot():
    positions = 5 * 5
    strictly_before = torch.ones(positions, positions).tril(-1) > 0
    assert torch.equal(positions_seen(new((5, 5), 5, 3)), strictly_before)


def test_gate_is_equation_two():
    a, b = torch.randn(2, 7, 3)
    torch.testing.assert_close(gate(torch.cat([a, b], 1)), a.tanh() / (1 + (-b).exp()))


def test_vertical_stack_alone_would_not_see_the_row():
    """With the horizontal stack cut off, what remains depends on rows above alone."""
    model = new((4, 4), 3, 3)
    for layer in model.layers:
        layer.horizontal.weight.data.zero_()
    model.network = cut(model)
    rows = torch.arange(16) // 4
    assert not (positions_seen(model) & (rows[:, None] == rows)).any()
    assert (positions_seen(model) & (rows[:, None] > rows)).any()


def cut(model):
    def network(embedded, context):
        v, h = torch.nn.functional.pad(embedded, (0, 0, 0, 0, 1, 0))[:, :-1], 0 * embedded
        for layer in model.layers:
            v, h = layer(v, h, context)
        return model.head(h)

    return network


def test_size_of_the_published_bottom_prior():
    """ImageNet's: 512 hidden, 1024 residual units, 20 layers, filter 5, 20 conditioning blocks."""
    grids = [[32, 32], [64, 64]]
    with torch.device("meta"):
        model = PixelCNN(
            (32 * 32 + 64 * 64 + 1,),
            grids=grids,
            level=1,
            codes=512,
            classes=1000,
            hidden=512,
            residual=1024,
            layers=20,
            dropout=0.1,
        )
    layer = 512 * 1024 * 15 + 1024 + 1024 * 2048 + 2048 + 512 * 2048 * 3 + 1024 * 512 + 512
    layer += 512 * 1024
    assert sum(p.numel() for p in model.layers.parameters()) == 20 * layer
    assert len(model.conditioning.blocks) == 20
