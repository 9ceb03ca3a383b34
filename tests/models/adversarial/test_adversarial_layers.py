"""Layers of class-conditional GANs against formulas in NumPy."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from dgm_bench.models.adversarial.conditional_norm import (
    AffineBatchNorm,
    ClassBatchNorm,
    ConditionalBatchNorm,
)
from dgm_bench.models.adversarial.layers import (
    DiscriminatorBlock,
    ProjectionHead,
    SelfAttention,
    SpectralLayers,
)
from dgm_bench.models.whole_batch import Slice, sharing

LAYERS = SpectralLayers("normal")


def shaken(module):
    """The module with all parameters away from where they start, in evaluation mode."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for _ in range(200):  # the power iteration follows
        [layer.weight for layer in module.modules() if hasattr(layer, "parametrizations")]
    return module.eval()


def numbers(tensor):
    return tensor.detach().numpy()


def weight(layer):
    """The weights that a layer multiplies by: those drawn, by their largest singular value."""
    drawn = numbers(layer.parametrizations.weight.original)
    return drawn / np.linalg.svd(drawn.reshape(len(drawn), -1), compute_uv=False)[0]


def by_channels(x, layer):
    """A 1x1 convolution without bias."""
    return np.einsum("oi,nihw->nohw", weight(layer)[:, :, 0, 0], x)


def pooled(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def test_attention_is_the_formula():
    """SAGAN, equations 1 and 2, with keys and values pooled."""
    attention, x = shaken(SelfAttention(16, LAYERS)), torch.randn(2, 16, 4, 6)
    f, g, h = attention.key, attention.query, attention.value
    x_ = numbers(x)
    key, value = (pooled(by_channels(x_, k)).reshape(2, -1, 6) for k in (f, h))
    query = by_channels(x_, g).reshape(2, -1, 24)
    scores = np.exp(np.einsum("nci,ncj->nij", key, query))
    beta = scores / scores.sum(1, keepdims=True)
    found = np.einsum("nci,nij->ncj", value, beta).reshape(2, 8, 4, 6)
    expected = x_ + numbers(attention.weight) * by_channels(found, attention.out)
    np.testing.assert_allclose(numbers(attention(x)), expected, rtol=1e-9)


def test_attention_begins_as_the_identity():
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(SelfAttention(16, LAYERS)(x), x)


def test_projection_is_the_formula():
    """Miyato and Koyama, equation 3, of sums over places."""
    head, x = shaken(ProjectionHead(6, 3, LAYERS)), torch.randn(4, 6, 2, 3)
    classes = torch.tensor([2, 0, 1, 2])
    h = np.maximum(numbers(x), 0).sum((2, 3))
    expected = (
        h @ weight(head.linear)[0]
        + numbers(head.linear.bias)
        + (weight(head.embedding)[classes] * h).sum(1)
    )
    np.testing.assert_allclose(numbers(head(x, classes)), expected, rtol=1e-9)


CLASSES = torch.tensor([1, 0, 2, 2])


def norms():
    """Each kind, what it is given, and the gains and biases that it then has, as numbers."""
    plain, of_class = shaken(AffineBatchNorm(6)), shaken(ClassBatchNorm(6, 3))
    linear, given = shaken(ConditionalBatchNorm(6, 5, LAYERS)), torch.randn(4, 5)
    condition = numbers(given)
    return [
        (plain, (), numbers(plain.gain)[None], numbers(plain.bias)[None]),
        (
            of_class,
            (CLASSES,),
            numbers(of_class.gain.weight)[CLASSES],
            numbers(of_class.bias.weight)[CLASSES],
        ),
        (
            linear,
            (given,),
            1 + condition @ weight(linear.gain).T,
            condition @ weight(linear.bias).T,
        ),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_batch_norm_is_the_formula(kind):
    """In training by the batch, whole or divided; in evaluation by the mean over batches."""
    norm, given, gain, bias = norms()[kind]
    batches = [torch.randn(4, 6, 3, 5) * (i + 1) + i for i in range(3)]
    x = batches[0]
    means = [numbers(batch).mean((0, 2, 3)) for batch in batches]
    variances = [numbers(batch).var((0, 2, 3)) for batch in batches]

    def expected(mean, variance):
        centred = numbers(x) - mean[:, None, None]
        scaled = centred / np.sqrt(variance + norm.normalise.eps)[:, None, None]
        return gain[:, :, None, None] * scaled + bias[:, :, None, None]

    def close(mean, variance):
        np.testing.assert_allclose(numbers(norm(x, *given)), expected(mean, variance), 1e-9, 1e-12)

    for divided in (nullcontext(), sharing(Slice(0, 1, 4, add_up=lambda own: None))):
        norm.normalise.train().reset_running_stats()
        norm.normalise.momentum = None
        with divided:
            close(means[0], variances[0])
            for batch in batches[1:]:
                norm(batch, *given)
        norm.eval()
        close(np.mean(means, 0), np.mean(variances, 0) * 60 / 59)


def test_gains_begin_at_one():
    for norm in (AffineBatchNorm(6), ClassBatchNorm(6, 3)):
        given = () if isinstance(norm, AffineBatchNorm) else (CLASSES,)
        x = torch.randn(4, 6, 3, 5)
        torch.testing.assert_close(norm(x, *given), norm.normalise(x))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("outputs", "halves"), [(6, False), (6, True), (8, False), (8, True)])
def test_a_block_of_the_discriminator_is_the_formula(outputs, halves, first):
    """Its skip is convolved, then pooled, which is the same the other way round."""
    block = DiscriminatorBlock(6, outputs, LAYERS, halves=halves, first=first)
    block, x, relu = shaken(block), torch.randn(2, 6, 4, 4), torch.relu
    h = block.convolutions[1](relu(block.convolutions[0](x if first else relu(x))))
    skip = block.skip(x)
    pool = nn.AvgPool2d(2) if halves else nn.Identity()
    torch.testing.assert_close(block(x), pool(h) + pool(skip))
    assert isinstance(block.skip, nn.Identity) == (outputs == 6 and not halves)
