"""Which tokens attend to which, against the paper's formula and by gradients."""

import pytest
import torch

from dgm_bench.models.codes.priors.attention import CausalTransformer
from dgm_bench.models.codes.priors.sparse_attention import (
    image_mask,
    joint_mask,
    layer_patterns,
)

PATTERNS = ("row", "column", "convolutional")


def by_row(q, k):
    """The rest of its own row, and the row above from the same column on."""
    return q[0] == k[0] or (q[0] - 1 == k[0] and k[1] >= q[1])


def by_column(q, k):
    return q[1] == k[1]


def by_neighbourhood(q, k, columns, reach):
    """Some place of the kernel, on rows that follow each other without an edge, is the key."""
    back = (q[0] - k[0]) * columns + q[1] - k[1]
    places = [(up, left) for up in range(reach + 1) for left in range(-reach, reach + 1)]
    return any(up * columns + left == back for up, left in places)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 2)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_are_the_papers(grid, pattern):
    rows, columns = grid
    places = [(row, column) for row in range(rows) for column in range(columns)]
    rule = {
        "row": by_row,
        "column": by_column,
        "convolutional": lambda q, k: by_neighbourhood(q, k, columns, 1),
    }[pattern]
    expected = [[k <= q and rule(q, k) for k in places] for q in places]
    assert image_mask(pattern, grid, 3).tolist() == expected


def test_places_of_the_papers_figure():
    """Figure 11: five places by row on a 4 x 4 grid, and a 3 x 3 kernel that wraps around."""
    assert (image_mask("row", (4, 4), 3).sum(1) == 5).tolist() == [False] * 4 + [True] * 12
    kernel = image_mask("convolutional", (4, 4), 3)
    assert kernel[5].nonzero()[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert kernel[8].nonzero()[:, 0].tolist() == [3, 4, 5, 7, 8]  # 3 and 7 are of rows above
    wide = image_mask("convolutional", (32, 32), 11)
    assert wide[16 * 32 + 16].sum() == 5 * 11 + 6


def test_text_is_causal_and_the_image_sees_all_of_it():
    mask = joint_mask("row", 3, (2, 2), 3)
    assert mask[:3].tolist() == [[k <= q for k in range(7)] for q in range(3)]
    assert mask[3:, :3].all()
    assert torch.equal(mask[3:, 3:], image_mask("row", (2, 2), 3))


def test_layers_of_the_paper():
    patterns = layer_patterns(64)
    assert patterns[:6] == ["row", "column", "row", "row", "row", "column"]
    columns = [i for i, pattern in enumerate(patterns, 1) if pattern == "column"]
    assert columns == list(range(2, 64, 4))
    assert patterns.index("convolutional") == 63
    assert layer_patterns(1) == ["convolutional"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_causal_by_autograd(pattern):
    """A token's features depend on what its mask says, and so on no later token."""
    model, mask = CausalTransformer(8, 1, 2).eval(), joint_mask(pattern, 2, (3, 3), 3)
    x = torch.randn(1, 11, 8, requires_grad=True)
    for token in range(11):
        features = model(x, masks=[mask])[:, token]
        (gradient,) = torch.autograd.grad(features.square().sum(), x)
        assert torch.equal(gradient.abs().sum((0, 2)) > 0, mask[token])


def test_deep_networks_reach_what_their_layers_reach_together():
    masks = [joint_mask(pattern, 2, (3, 4), 3) for pattern in layer_patterns(3)]
    model, x = CausalTransformer(8, 3, 2).eval(), torch.randn(1, 14, 8, requires_grad=True)
    reached = torch.eye(14)
    for mask in masks:
        reached = mask.double() @ reached
    for token in range(14):
        features = model(x, masks=masks)[:, token]
        (gradient,) = torch.autograd.grad(features.square().sum(), x)
        assert torch.equal(gradient.abs().sum((0, 2)) > 0, reached[token] > 0)


def test_a_mask_of_all_before_is_causal_attention():
    model, x = CausalTransformer(8, 2, 2).eval(), torch.randn(2, 6, 8)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    torch.testing.assert_close(model(x, masks=[mask, mask]), model(x), rtol=1e-12, atol=1e-12)
