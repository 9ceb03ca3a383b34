"""Gated layers: the start of each half, and whole networks by formula."""

import pytest
import torch
from torch import nn

from dgm_bench.models.codes.priors.attention import CausalAttention
from dgm_bench.models.codes.priors.causal import CausalAttention as GridAttention
from dgm_bench.models.codes.priors.causal import GatedBlock, PointwiseBlock
from dgm_bench.models.codes.priors.pixelcnn import GatedLayer
from dgm_bench.models.networks.gated import ConvDecoder, gated_conv, gated_deconv, gated_dense

WIDE = 256

#: Layers whose outputs are split into parts, and the number of parts.
MERGED = {
    "convolution": (lambda: gated_conv(9, WIDE, 5, 1, 2).layer, 2),
    "strided convolution": (lambda: gated_conv(9, WIDE, (7, 5), 2, 2).layer, 2),
    "transposed convolution": (lambda: gated_deconv(9, WIDE, 5, 1, 2).layer, 2),
    "strided transposed convolution": (lambda: gated_deconv(9, WIDE, 5, 2, 2).layer, 2),
    "transposed convolution of a vector": (lambda: gated_deconv(9, WIDE, (7, 5), 1, 0).layer, 2),
    "dense": (lambda: gated_dense(20, WIDE).layer, 2),
    "causal, above": (lambda: GatedBlock(WIDE, 8, 3, 0.0, False).outer.above, 2),
    "causal, here": (lambda: GatedBlock(WIDE, 8, 3, 0.0, False).outer.here, 2),
    "causal, condition": (lambda: GatedBlock(WIDE, 8, 3, 0.0, True).condition, 2),
    "pointwise": (lambda: PointwiseBlock(WIDE, 20, 0.0).outer, 2),
    "vertical": (lambda: GatedLayer(WIDE, 8, 3, 0.0, False).vertical, 2),
    "horizontal": (lambda: GatedLayer(20, WIDE, 3, 0.0, False).horizontal, 2),
    "across": (lambda: GatedLayer(20, WIDE, 3, 0.0, False).across, 2),
    "context": (lambda: GatedLayer(WIDE, 8, 3, 0.0, True).condition, 2),
    "keys and values": (lambda: GridAttention(20, 20, 2, WIDE // 2).memory, 2),
    "queries, keys and values": (lambda: CausalAttention(WIDE, 2, 0.0).inward, 3),
}


def separate(layer, parts):
    """Return a layer of torch as one part would be."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features // parts)
    shape = (layer.in_channels, layer.out_channels // parts, layer.kernel_size)
    return type(layer)(*shape)  # stride and padding do not matter for its start


@pytest.mark.parametrize("name", MERGED)
def test_each_half_starts_as_the_layer_it_replaces(name):
    """Uniform within one over the root of the fan-in, as torch takes it for each kind of layer."""
    make, parts = MERGED[name]
    layer = make()
    alone = separate(layer, parts)
    for own, other in zip(layer.parameters(), alone.parameters(), strict=False):
        outputs = 1 if own.dim() > 1 and isinstance(layer, nn.ConvTranspose2d) else 0
        for half in own.detach().double().chunk(parts, outputs):
            assert half.numel() == other.numel()
            assert half.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.04)
            assert half.std().item() == pytest.approx(other.std().item(), rel=0.15)


class Apart(nn.Module):
    """Values and gates by two layers of torch (Sylvester code, ``models/layers.py``)."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.h, self.g = (nn.ConvTranspose2d(*args, **kwargs) for _ in range(2))

    def forward(self, x):
        return self.h(x) * torch.sigmoid(self.g(x))


@pytest.mark.usefixtures("unchecked")
def test_features_of_the_decoder_start_as_wide_as_those_of_separate_layers():
    """Over latent variables; the halves of merged layers were once too small by 2 ** 0.5."""
    z, spreads = torch.randn(20, 16), []
    for _ in range(5):
        ours = ConvDecoder(16, 1, (8, 8), None).layers[:6]
        theirs = nn.Sequential(
            Apart(16, 64, 2, 1, 0), Apart(64, 64, 5, 1, 2), Apart(64, 32, 5, 2, 2, 1),
            Apart(32, 32, 5, 1, 2), Apart(32, 32, 5, 2, 2, 1), Apart(32, 32, 5, 1, 2))  # fmt: skip
        features = (network(z[:, :, None, None]) for network in (ours, theirs))
        spreads.append([f.std(0).mean().item() for f in features])
    ours, theirs = torch.tensor(spreads).log().mean(0).exp()
    assert 0.6 < ours / theirs < 1.6
