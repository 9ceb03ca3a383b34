"""Models of images and codes as one would write them with torch's modules, with weights of ours.

Two convolutions a gated layer, as in the Sylvester code; masks multiplied into square kernels, as
in most implementations of PixelCNN; densities by ``torch.distributions``. Memory is in torch's
usual order.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from dgm_bench.models.capabilities import Draws
from dgm_bench.models.codes.packing import unpack
from dgm_bench.models.codes.priors.pixelcnn import GatedLayer, PixelCNN
from dgm_bench.models.latent.gated_vae import ConvVAE
from dgm_bench.models.latent.hierarchical_vae import GaussianLayer, HierarchicalVAE
from dgm_bench.models.networks.gated import Gated

Convolution = nn.Conv2d | nn.ConvTranspose2d


def convolution(ours: Convolution, part: int = 0, parts: int = 1) -> Convolution:
    """Return one of the parts that the outputs of a convolution consist of, in the usual order."""
    made = type(ours)(
        ours.in_channels,
        ours.out_channels // parts,
        cast(tuple[int, int], ours.kernel_size),
        cast(tuple[int, int], ours.stride),
        cast(tuple[int, int], ours.padding),
        **({"output_padding": ours.output_padding} if isinstance(ours, nn.ConvTranspose2d) else {}),
    )
    outputs = 1 if isinstance(ours, nn.ConvTranspose2d) else 0
    with torch.no_grad():
        made.weight.copy_(ours.weight.chunk(parts, outputs)[part])
        cast(Tensor, made.bias).copy_(cast(Tensor, ours.bias).chunk(parts)[part])
    return made


class PlainGated(nn.Module):
    """Values and gates by two convolutions.

    Args:
        ours: The same layer.
    """

    def __init__(self, ours: Gated) -> None:
        super().__init__()
        layer = cast(Convolution, ours.layer)
        self.value, self.gate = (convolution(layer, part, 2) for part in range(2))

    def forward(self, x: Float[Tensor, "n inputs *size"]) -> Float[Tensor, "n outputs *resized"]:
        """Return values times the sigmoid of their gates."""
        gated: Tensor = self.value(x) * torch.sigmoid(self.gate(x))
        return gated


def plain_layers(ours: nn.Sequential) -> nn.Sequential:
    """Return gated convolutions, and others, as plain ones."""
    modules = (PlainGated(m) if isinstance(m, Gated) else convolution(m) for m in ours)
    return nn.Sequential(*modules)


class PlainConvVAE(nn.Module):
    """The convolutional autoencoder of the Sylvester paper, without a flow.

    Args:
        ours: The model whose weights it has.
    """

    def __init__(self, ours: ConvVAE) -> None:
        super().__init__()
        self.encoder = plain_layers(ours.encoder.layers)
        self.decoder = plain_layers(ours.decoder.layers)
        posterior = copy.deepcopy(ours.posterior)
        self.mean = cast(nn.Module, posterior.mean)
        self.variance = nn.Sequential(cast(nn.Module, posterior.raw_variance), nn.Softplus())

    def elbo(
        self, x: Float[Tensor, "n 1 height width"], generator: torch.Generator
    ) -> Float[Tensor, " n"]:
        """Return one draw of the bound of each example in nats."""
        features = self.encoder(x).flatten(1)
        mean, variance = self.mean(features), self.variance(features)
        noise = torch.empty_like(mean).normal_(generator=generator)
        z = mean + variance.sqrt() * noise
        logits = self.decoder(z[:, :, None, None])
        fit = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
        own = -0.5 * (variance.log() + noise.square()).sum(1)
        prior = -0.5 * z.square().sum(1)
        return fit + prior - own


class PlainIWAE(nn.Module):
    """One stochastic layer of normal variables under binary pixels.

    Args:
        ours: The model whose weights it has.
    """

    def __init__(self, ours: HierarchicalVAE) -> None:
        super().__init__()
        copied = copy.deepcopy(ours)
        self.encoder = cast(GaussianLayer, copied.encoders[0])
        self.decoder = copied.decoder

    def draw(self, x: Float[Tensor, "n dim"], samples: int, generator: torch.Generator) -> Draws:
        """Return draws with their three log densities."""
        mean, log_scale = self.encoder(x[:, None])
        shape = (len(x), samples, mean.shape[-1])
        noise = mean.new_empty(shape).normal_(generator=generator)
        scale = log_scale.exp()
        z = mean + scale * noise
        fit = Bernoulli(logits=self.decoder(z)).log_prob(x[:, None].expand(-1, samples, -1)).sum(-1)
        prior = Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(-1)
        return Draws(z, fit, prior, Normal(mean, scale).log_prob(z).sum(-1))


class PlainPixelCNNLayer(nn.Module):
    """A gated layer of both stacks; the mask of each kernel is multiplied into it at every step.

    Args:
        ours: The layer whose weights it has.
    """

    vertical_mask: Tensor
    horizontal_mask: Tensor

    def __init__(self, ours: GatedLayer) -> None:
        super().__init__()
        r, hidden = ours.reach, ours.vertical.in_channels
        residual, k = ours.outward.in_features, 2 * ours.reach + 1
        self.vertical = nn.Conv2d(hidden, 2 * hidden, k, padding=r)
        self.horizontal = nn.Conv2d(hidden, 2 * residual, (1, k), padding=(0, r), bias=False)
        self.across = nn.Conv2d(2 * hidden, 2 * residual, 1)
        self.outward = nn.Conv2d(residual, hidden, 1)
        self.register_buffer(
            "vertical_mask", torch.zeros(k, 1).index_fill(0, torch.arange(r + 1), 1)
        )
        self.register_buffer(
            "horizontal_mask", torch.zeros(k).index_fill(0, torch.arange(r + 1), 1)
        )
        with torch.no_grad():
            self.vertical.weight[:, :, : r + 1] = ours.vertical.weight
            cast(Tensor, self.vertical.bias).copy_(cast(Tensor, ours.vertical.bias))
            self.horizontal.weight[..., : r + 1] = ours.horizontal.weight
            for own, other in ((self.across, ours.across), (self.outward, ours.outward)):
                own.weight.copy_(other.weight[..., None, None])
                cast(Tensor, own.bias).copy_(other.bias)

    def forward(
        self, v: Float[Tensor, "n hidden rows columns"], h: Float[Tensor, "n hidden rows columns"]
    ) -> tuple[Float[Tensor, "n hidden rows columns"], Float[Tensor, "n hidden rows columns"]]:
        """Return the outputs of both stacks."""
        r = self.vertical.padding[0]
        weight = self.vertical.weight * self.vertical_mask
        v = F.conv2d(v, weight, self.vertical.bias, padding=r)
        weight = self.horizontal.weight * self.horizontal_mask
        from_row = F.conv2d(h, weight, padding=(0, r)) + self.across(v)
        return plain_gate(v), h + self.outward(plain_gate(from_row))


def plain_gate(x: Float[Tensor, "n twice rows columns"]) -> Float[Tensor, "n half rows columns"]:
    """Return ``tanh(a) * sigmoid(b)`` of the two halves of the channels."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class PlainPixelCNN(nn.Module):
    """A gated PixelCNN over one level of codes, without conditions.

    Args:
        ours: The model whose weights it has.
    """

    def __init__(self, ours: PixelCNN) -> None:
        super().__init__()
        self.grids = ours.grids
        self.embedding = copy.deepcopy(ours.embedding)
        self.layers = nn.ModuleList(PlainPixelCNNLayer(cast(GatedLayer, m)) for m in ours.layers)
        self.logits = copy.deepcopy(ours.head.logits)

    def log_prob(self, x: Int[Tensor, "n packed"]) -> Float[Tensor, " n"]:
        """Return the log probability of the codes in nats."""
        codes = unpack(x, self.grids)[0][0]
        embedded = self.embedding(codes).permute(0, 3, 1, 2).contiguous()
        v, h = F.pad(embedded, (0, 0, 1, 0))[:, :, :-1], F.pad(embedded, (1, 0))[..., :-1]
        for layer in self.layers:
            v, h = layer(v, h)
        logits = self.logits(F.elu(h).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return -F.cross_entropy(logits, codes, reduction="none").flatten(1).sum(1)
