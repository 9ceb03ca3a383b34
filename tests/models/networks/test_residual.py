"""Residual networks: weight normalisation and its start from data, sizes, and transposes."""

import pytest
import torch

from dgm_bench.models.networks.residual import (
    Conv,
    Deconv,
    Dense,
    Residual,
    ResidualDecoder,
    ResidualEncoder,
    WeightNormLayer,
    halved,
)

SHAPES = [((7, 5), 2), ((8, 8), 2), ((7, 8), 1)]


def layers():
    return [Dense(6, 4), Conv(2, 3, 2), Deconv(2, 3, 2, (7, 6))]


@pytest.mark.parametrize("layer", layers(), ids=["dense", "conv", "deconv"])
def test_weights_of_an_output_have_the_learnt_length(layer):
    layer.double().magnitude.data = torch.tensor([0.5, 2.0, 3.0, 4.0][: len(layer.magnitude)])
    torch.testing.assert_close(layer.weight().flatten(1).norm(dim=1), layer.magnitude.data)
    layer.direction.data *= 7  # of which the length has no part
    torch.testing.assert_close(layer.weight().flatten(1).norm(dim=1), layer.magnitude.data)


@pytest.mark.parametrize(("size", "stride"), SHAPES)
def test_a_deconvolution_is_the_transpose_of_the_convolution(size, stride):
    conv, deconv = Conv(2, 3, stride).double(), Deconv(3, 2, stride, size).double()
    deconv.direction.data = conv.weight().detach().transpose(0, 1).clone()
    deconv.magnitude.data = deconv.direction.data.flatten(1).norm(dim=1)
    x, (_, below) = torch.randn(4, 2, *size), halved(size, [stride])
    y = torch.randn(4, 3, *below)
    torch.testing.assert_close((conv.linear(x) * y).sum(), (x * deconv.linear(y)).sum())


def test_a_residual_block_is_the_sum_of_both_ways():
    block = Residual(Conv(3, 3), Conv(3, 3), None).double()
    x = torch.randn(2, 3, 5, 5)
    inner = block.second(torch.nn.functional.elu(block.first(x)))
    torch.testing.assert_close(block(x), x + inner)
    block.skip = Conv(3, 3).double()
    torch.testing.assert_close(block(x), block.skip(x) + inner)


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (7, 10)])
def test_the_decoder_mirrors_the_encoder(size):
    channels, strides = [4, 4, 6, 6, 6], [2, 1, 2, 1, 2]
    encoder = ResidualEncoder((1, *size), channels, strides, hidden=9)
    decoder = ResidualDecoder(3, (1, *size), channels, strides, hidden=9)
    x = torch.randn(2, 1, *size, dtype=torch.float32)
    seen = []
    for network in (encoder, decoder):
        network.float()
        for block in (module for module in network if isinstance(module, Residual)):
            block.register_forward_hook(
                lambda _, given, out: seen.append((given[0].shape[1:], out.shape[1:]))
            )
    assert encoder(x).shape == (2, 9)
    assert decoder(torch.randn(2, 3, dtype=torch.float32)).shape == (2, size[0] * size[1])
    up, down = seen[:5], [(out, given) for given, out in seen[5:]]
    assert up == down[::-1]


def test_layers_start_with_outputs_of_mean_zero_and_variance_one():
    encoder = ResidualEncoder((1, 8, 8), [4, 6], [2, 1], hidden=5).double()
    x, seen = (torch.rand(50, 1, 8, 8) < 0.3).double(), []
    normed = [m for m in encoder.modules() if isinstance(m, WeightNormLayer)]
    for layer in normed:
        layer.initialising = True
    encoder(x)
    for layer in normed:
        layer.initialising = False
        layer.register_forward_hook(lambda _, given, out: seen.append(out))
    encoder(x)
    assert len(seen) == len(normed) == 7
    for out in seen:
        variance, mean = torch.var_mean(out.transpose(0, 1).flatten(1), 1, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-9, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(mean), atol=1e-4, rtol=0)
