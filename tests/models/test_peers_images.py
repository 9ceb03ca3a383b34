"""The same weights in nflows' layers for images give the same values and log-determinants."""

import pytest
import torch
from torch import nn

from dgm_bench.models.flows.glow_images import AffineCoupling, InvertibleConv, Level
from dgm_bench.models.flows.layers.actnorm import ActNorm
from dgm_bench.models.flows.multiscale import Squeeze
from dgm_bench.models.flows.realnvp_images import ChannelCoupling, CheckerboardCoupling

SHAPE = (6, 4, 4)


def agree(ours, peer, shape=SHAPE):
    """Compare both directions and the log-determinants on random images."""
    x = torch.randn(7, *shape)
    u, log_det = ours.forward_and_log_det(x)
    theirs, their_log_det = peer(x)
    torch.testing.assert_close(u, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, their_log_det, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.inverse(theirs), peer.inverse(theirs)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.inverse(u), x, rtol=0, atol=1e-9)


def disturbed(layer, std=0.3):
    for parameter in layer.parameters():
        parameter.data += std * torch.randn_like(parameter)
    return layer.eval()


def nflows_convolution(conv):
    """A peer with random weights; ours takes them over, its permutation included."""
    transforms = pytest.importorskip("nflows.transforms")
    peer = disturbed(transforms.OneByOneConvolution(SHAPE[0]))
    nn.init.zeros_(peer.bias)
    permutation = torch.eye(SHAPE[0])[peer.permutation._permutation]
    conv.weight.data.copy_(peer.weight() @ permutation)
    return peer


def nflows_actnorm(norm):
    peer = pytest.importorskip("nflows.transforms.normalization").ActNorm(SHAPE[0]).eval()
    peer.log_scale.data.copy_(norm.log_scale)
    peer.shift.data.copy_(norm.bias * norm.log_scale.exp())
    return peer


class Conditioner(nn.Module):
    """Our shift and scale as nflows wants them: x m + t with m = sigmoid(a + 2) + 1e-3."""

    def __init__(self, shift_and_log_scale):
        super().__init__()
        self.shift_and_log_scale = shift_and_log_scale

    def forward(self, kept, context=None):
        shift, log_scale = self.shift_and_log_scale(kept)
        scale = log_scale.exp()
        return torch.cat([shift * scale, torch.logit(scale - 1e-3) - 2], dim=1)


def nflows_coupling(moved, shift_and_log_scale):
    coupling = pytest.importorskip("nflows.transforms.coupling")
    return coupling.AffineCouplingTransform(
        moved, lambda inputs, outputs: Conditioner(shift_and_log_scale)
    )


def nflows_glow_coupling(layer):
    moved = torch.arange(SHAPE[0]) >= SHAPE[0] // 2
    return nflows_coupling(moved, layer._shift_and_log_scale)


def test_squeeze():
    agree(Squeeze(), pytest.importorskip("nflows.transforms").SqueezeTransform())


def test_invertible_convolution():
    conv = InvertibleConv(SHAPE[0])
    agree(conv, nflows_convolution(conv))


def test_actnorm():
    norm = disturbed(ActNorm(SHAPE[0]))
    agree(norm, nflows_actnorm(norm))


def test_actnorm_initialised_on_data():
    norm = ActNorm(SHAPE[0])
    peer = pytest.importorskip("nflows.transforms.normalization").ActNorm(SHAPE[0])
    x = torch.randn(2000, *SHAPE) * 3 + 1
    norm.initialising = True
    ours, theirs = norm.forward_and_log_det(x)[0], peer(x)[0]
    # The peer divides by n - 1, ours adds 1e-6 to the deviation, as the released code does.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_glow_coupling():
    layer = disturbed(AffineCoupling(SHAPE[0], width=8), std=0.05)
    agree(layer, nflows_glow_coupling(layer))


def test_glow_level():
    composite = pytest.importorskip("nflows.transforms").CompositeTransform
    level = disturbed(Level(SHAPE[0], depth=3, width=8), std=0.05)
    parts = []
    for step in level.steps:
        parts += [nflows_actnorm(step.norm), nflows_convolution(step.mixing)]
        parts.append(nflows_glow_coupling(step.coupling))
    agree(level, composite(parts))


@pytest.mark.parametrize("keep_first", [True, False])
def test_channel_coupling(keep_first):
    layer = disturbed(ChannelCoupling(SHAPE, 8, 1, keep_first), std=0.05)
    shrink(layer, SHAPE[0])
    layer.norm_moved.eps = 0.0  # new running averages then normalise nothing, as the peer
    moved = (torch.arange(SHAPE[0]) >= SHAPE[0] // 2) == keep_first
    agree(layer, nflows_coupling(moved, layer._shift_and_log_scale))


@pytest.mark.parametrize("keep_even", [True, False])
def test_checkerboard_coupling(keep_even):
    """The peer splits features of vectors, so the pixels of one channel are its features."""
    shape = (1, 4, 4)
    layer = disturbed(CheckerboardCoupling(shape, 8, 1, keep_even), std=0.05)
    nn.init.ones_(layer.scale)
    shrink(layer, 2)
    layer.norm_moved.eps = 0.0
    moved = layer.kept.flatten() == 0

    def on_pixels(kept):
        image = kept.new_zeros(len(kept), 16)
        image[:, ~moved] = kept
        both = layer._shift_and_log_scale(image.reshape(-1, *shape))
        return tuple(part.flatten(1)[:, moved] for part in both)

    flat = nflows_coupling(moved, on_pixels)
    x = torch.randn(7, *shape)
    u, log_det = layer.forward_and_log_det(x)
    theirs, their_log_det = flat(x.flatten(1))
    torch.testing.assert_close(u.flatten(1), theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, their_log_det, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.inverse(u), x, rtol=0, atol=1e-9)


def shrink(layer, outputs):
    """Make all scales smaller than one: the peer's are bounded by 1.001."""
    layer.network.out[-1].bias.data[outputs // 2 :] -= 8
