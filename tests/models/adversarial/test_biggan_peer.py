"""BigGAN-deep's generator beside pytorch-pretrained-biggan: equal weights, equal images."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from dgm_bench.models.adversarial.biggan_deep import BigGANDeep, DeepUpBlock
from dgm_bench.models.adversarial.layers import SelfAttention

WIDTH, LATENT, CLASSES = 4, 6, 5
WIDTHS = [16, 8, 4, 2, 1]


def ours():
    """A generator away from where it starts, with attention at 32x32."""
    made = BigGANDeep(
        (3, 64, 64),
        classes=CLASSES,
        latent=LATENT,
        embedding=LATENT,
        width=WIDTH,
        generator_widths=WIDTHS,
        generator_attention=32,
        unused=WIDTH - 3,
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        for _ in range(5):
            made.generator(torch.randn(4, LATENT), torch.arange(4))
    return made.generator.eval()


def peer():
    package = pytest.importorskip("pytorch_pretrained_biggan")
    layers = []
    for before, after in pairwise(WIDTHS):
        layers += [(False, before, before), (True, before, after)]
    config = package.BigGANConfig(
        z_dim=LATENT,
        class_embed_dim=LATENT,
        channel_width=WIDTH,
        num_classes=CLASSES,
        layers=layers,
        attention_layer_position=6,
        eps=1e-5,
    )
    return package.BigGAN(config).double().eval()


def copy(own, their, order=None):
    """Copy the weights of a layer with the state of its power iteration, its rows in an order."""
    spectral = own.parametrizations.weight
    rows = slice(None) if order is None else order
    their.weight_orig.copy_(spectral.original[rows])
    their.weight_u.copy_(spectral[0]._u[rows])
    their.weight_v.copy_(spectral[0]._v)
    if own.bias is not None:
        their.bias.copy_(own.bias[rows])


def copy_norm(own, their):
    their.running_means.copy_(own.normalise.running_mean.expand_as(their.running_means))
    their.running_vars.copy_(own.normalise.running_var.expand_as(their.running_vars))
    if their.conditional:
        copy(own.gain, their.scale)
        copy(own.bias, their.offset)
    else:
        their.weight.copy_(own.gain)
        their.bias.copy_(own.bias)


def copy_block(own, their):
    if isinstance(own, DeepUpBlock):
        for i in range(4):
            copy_norm(own.norms[i], getattr(their, f"bn_{i}"))
            copy(own.convolutions[i], getattr(their, f"conv_{i}"))
        return
    assert isinstance(own, SelfAttention)
    names = {"query": "theta", "key": "phi", "value": "g", "out": "o_conv"}
    for name, its in names.items():
        copy(getattr(own, name), getattr(their, f"snconv1x1_{its}"))
    their.gamma.copy_(own.weight)


def test_images_are_those_of_pytorch_pretrained_biggan():
    own, their = ours(), peer()
    with torch.no_grad():
        their.embeddings.weight.copy_(own.embedding.weight.T)
        # There, places come before channels.
        places = torch.arange(16 * WIDTH * 16).view(16 * WIDTH, 16).T.flatten()
        copy(own.first, their.generator.gen_z, places)
        for block, its in zip(own.blocks, their.generator.layers, strict=True):
            copy_block(block, its)
        copy_norm(own.last.norm, their.generator.bn)
        copy(own.last.convolution, their.generator.conv_to_rgb)
        z, classes = torch.randn(4, LATENT), torch.tensor([3, 0, 4, 3])
        expected = their(z, nn.functional.one_hot(classes, CLASSES).double(), 1.0)
        torch.testing.assert_close(own(z, classes), expected, rtol=0, atol=1e-9)
        assert expected.std() > 0.1
