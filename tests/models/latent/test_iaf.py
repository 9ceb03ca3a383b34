"""The inverse autoregressive posterior, as in the Sylvester code (``models/flows.py``)."""

import numpy as np
import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.models.latent.posteriors.iaf import GatedMADE, InverseAutoregressive

LATENT, WIDTH, FEATURES = 4, 12, 7


def masks_of(gated):
    return [layer.mask.bool().numpy() for layer in (gated.first, gated.hidden, gated.last)]


@pytest.mark.parametrize(("latent", "width"), [(64, 1280), (5, 5), (3, 12), (1, 4)])
def test_connections_are_counted_by_the_blocks(latent, width):
    """41,600, 819,840 and 80,640 for the published sizes: triangles of blocks, and of units."""
    gated = GatedMADE(latent, width)
    assert gated.last.mask.shape == (2 * latent, width)
    block, triangle = width // latent, latent * (latent + 1) // 2
    counts = [int(mask.sum()) for mask in masks_of(gated)]
    expected = [block * triangle, width * (width + 1) // 2, 2 * block * (triangle - latent)]
    assert counts == expected
    if latent == 64:
        assert counts == [41_600, 819_840, 80_640]


def test_connections_are_those_of_the_released_code():
    """Unit by unit, as its loops set them; there inputs are rows, here columns."""
    first, hidden, last = masks_of(GatedMADE(LATENT, WIDTH))
    block = WIDTH // LATENT
    for unit in range(WIDTH):
        for d in range(LATENT):
            assert first[unit, d] == (d <= unit // block)
            assert last[d, unit] == last[LATENT + d, unit] == (unit // block < d)
        assert hidden[unit].tolist() == [below <= unit for below in range(WIDTH)]


def jacobian(function):
    return torch.autograd.functional.jacobian(function, torch.randn(LATENT))


def test_a_map_depends_on_exactly_the_earlier_dimensions():
    gated, context = GatedMADE(LATENT, WIDTH), torch.randn(1, 1, WIDTH)
    slopes = jacobian(lambda z: gated(z.view(1, 1, -1), context)[0].view(-1))
    assert not slopes.triu(1).any()
    assert (slopes.tril() != 0).sum() == LATENT * (LATENT + 1) // 2
    assert (slopes.diagonal() > 0).all()


def test_two_maps_depend_on_every_dimension(generator):
    """Between them the order is reversed: without that, the first would depend on itself alone."""
    flow = InverseAutoregressive(FEATURES, LATENT, flows=2, width=WIDTH)
    features = torch.randn(1, FEATURES)
    slopes = jacobian(lambda z: flow(z.view(1, 1, -1), features, generator)[0].view(-1))
    assert (slopes != 0).all()


def test_the_context_joins_what_leaves_the_first_layer():
    """And gates and means follow from it, in NumPy from the layers' weights and masks."""
    gated = GatedMADE(LATENT, WIDTH)
    for parameter in gated.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = [p.detach().numpy() for p in gated.parameters()]
    (w1, b1, w2, b2, w3, b3), (m1, m2, m3) = weights, masks_of(gated)
    random = np.random.default_rng(0)
    z, context = random.normal(size=(2, 3, LATENT)), random.normal(size=(2, 1, WIDTH))

    def elu(v):
        return np.where(v > 0, v, np.expm1(np.minimum(v, 0)))

    h = elu((elu(z @ (m1 * w1).T + b1) + context) @ (m2 * w2).T + b2)
    outputs = h @ (m3 * w3).T + b3
    mean, gate = outputs[..., :LATENT], 1 / (1 + np.exp(-outputs[..., LATENT:] - 1))
    moved, log_det = gated(torch.tensor(z), torch.tensor(context))
    np.testing.assert_allclose(moved.detach(), gate * z + (1 - gate) * mean, atol=1e-12)
    np.testing.assert_allclose(log_det.detach(), np.log(gate).sum(-1), atol=1e-12)


def test_weights_start_as_in_the_released_code():
    """Its normal is of transposed weights, so that the fan-in is the number of outputs."""
    gated = GatedMADE(64, 384)
    for layer, outputs in ((gated.first, 384), (gated.hidden, 384), (gated.last, 64)):
        assert layer.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.03)
        assert not layer.bias.any()


def test_a_width_that_is_no_multiple_is_refused():
    with pytest.raises(DeclarationError, match="no multiple of the 5 latent variables; use 10"):
        InverseAutoregressive(FEATURES, 5, flows=1, width=8)
