"""What is PixelSNAIL's own: attention to everything before a position."""

import pytest
import torch
from code_models import positions_seen

from dgm_bench.errors import DeclarationError
from dgm_bench.models.codes.priors.causal import CausalAttention, CausalConv
from dgm_bench.models.codes.priors.pixelsnail import PixelSNAIL, coordinates_of, group_sizes


def new(grid, **args):
    size = grid[0] * grid[1] + 1
    shape = {"hidden": 6, "residual": 5, "layers": 2, "attention_layers": 1, "kernel": 3}
    shape.update(heads=2, head_width=3, output_layers=1, **args)
    return PixelSNAIL((size,), grids=[grid], level=0, codes=4, **shape)


@pytest.mark.parametrize("grid", [(5, 6), (1, 7), (7, 1), (9, 9)])
def test_it_sees_all_that_comes_before_and_nothing_else(grid):
    positions = grid[0] * grid[1]
    strictly_before = torch.ones(positions, positions).tril(-1) > 0
    assert torch.equal(positions_seen(new(grid)), strictly_before)


def test_without_attention_there_would_be_blind_spots():
    model = new((9, 9))
    for group in model.groups:
        group.merge.side.weight.data.zero_()
    strictly_before = torch.ones(81, 81).tril(-1) > 0
    assert (strictly_before & ~positions_seen(model)).any()
    assert not (positions_seen(model) & ~strictly_before).any()


def test_a_strict_convolution_sees_the_whole_neighbourhood_but_not_itself():
    conv, x = CausalConv(2, 3, 3, strict=True), torch.randn(1, 5, 6, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(conv(x)[0, 2, 3].square().sum(), x)
    expected = {(1, 2), (1, 3), (1, 4), (2, 1), (2, 2)}
    assert {tuple(p) for p in gradient[0].abs().sum(-1).nonzero().tolist()} == expected


def test_attention_is_that_of_the_formula():
    """Softmax over a zero logit and those of all earlier positions, in each head."""
    attention = CausalAttention(5, 6, heads=2, width=3)
    x, memory = torch.randn(2, 2, 3, 5), torch.randn(2, 2, 3, 6)
    y = attention(x, memory).view(2, 6, 2, 3)
    query = attention.query(x).view(2, 6, 2, 3)
    key, value = attention.memory(memory).view(2, 6, 2, 2, 3).unbind(2)
    for i in range(6):
        logits = torch.einsum("nhd,njhd->njh", query[:, i], key[:, :i]) / 3**0.5
        weights = logits.exp() / (1 + logits.exp().sum(1, keepdim=True))
        expected = torch.einsum("njh,njhd->nhd", weights, value[:, :i])
        torch.testing.assert_close(y[:, i], expected)


def test_it_copies_from_afar():
    """The last code repeats the first, which the convolutions alone do not reach."""
    torch.set_default_dtype(torch.float32)
    grid, k = (6, 6), 4
    model = new(grid)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -last_code(model, copies(64, grid, k))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert -last_code(model, copies(500, grid, k)) < 0.2


def copies(n, grid, k):
    codes = torch.randint(k, (n, *grid))
    codes[:, -1, -1] = codes[:, 0, 0]
    return codes


def last_code(model, codes):
    log_prob = model.logits(codes, None)[:, -1, -1].log_softmax(-1)
    return log_prob.gather(1, codes[:, -1, -1:]).mean()


@pytest.mark.parametrize(
    ("layers", "groups", "sizes"),
    [(20, 4, [5, 5, 5, 5]), (20, 1, [20]), (5, 2, [2, 3]), (3, 3, [1, 1, 1])],
)
def test_attention_is_spread_evenly(layers, groups, sizes):
    assert group_sizes(layers, groups) == sizes


@pytest.mark.parametrize("groups", [0, 3])
def test_too_many_or_no_attention_layers_are_refused(groups):
    with pytest.raises(DeclarationError, match="attention layers"):
        group_sizes(2, groups)


def test_coordinates_tell_positions_apart():
    coordinates = coordinates_of((3, 4))
    assert coordinates.shape == (3, 4, 2)
    assert len(coordinates.view(12, 2).unique(dim=0)) == 12
    assert coordinates.abs().max() <= 0.5
