"""VQ-VAE with several codes at a place, as a bound of the probability of levels of pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0, Fraction, Positive
from dgm_bench.models.capabilities import Draws
from dgm_bench.models.codes.quantiser import Quantised, VectorQuantiser
from dgm_bench.models.codes.vq_networks import Decoder, Encoder
from dgm_bench.models.codes.vqvae import grids_of
from dgm_bench.models.pixels.logistics import LEAST_LOG_SCALE, LogisticMixture, scaled


class LevelVQVAE(nn.Module):
    """VQ-VAE of CIFAR-10 in the paper: several codes at a place, a uniform prior over all of them.

    The bound is ``log p(x | z) + log p(z)`` at the codes of the encoder. The paper states neither
    ``p(x | z)`` nor the number of codes. Here levels are independent, discretised logistics, with
    means of the decoder and one scale for each channel.

    Van den Oord, Vinyals and Kavukcuoglu (2017), https://arxiv.org/abs/1711.00937, section 4.1.

    Args:
        event_shape: Channels, height and width.
        levels: Number of levels of a channel.
        stride: Downsampling from the image to the grid, a power of 2.
        per_place: Number of codes at each place of the grid.
        hidden: Hidden units of encoder and decoder.
        residual_units: Channels inside their residual units.
        residual_layers: Number of residual units of each.
        codes: Size of the codebook, which all share.
        dim: Dimensions of a code.
        decay: Decay of the codebook's average.
        restart: Average count in a batch below which codes are reinitialised; None for never.

    Raises:
        DeclarationError: The stride is no power of 2, or does not divide the image's sides.

    Example:
        >>> model = LevelVQVAE((1, 8, 8), levels=17, stride=2, per_place=2, hidden=8, codes=4)
        >>> x = torch.randint(17, (5, 1, 8, 8))
        >>> round(model.draw(x, 1, torch.Generator()).log_prior[0, 0].item() / math.log(4), 4)
        -32.0
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        levels: Count = 256,
        stride: Count = 4,
        per_place: Count = 10,
        hidden: Count = 256,
        residual_units: Count = 256,
        residual_layers: CountFrom0 = 2,
        codes: Count = 512,
        dim: Count = 64,
        decay: Fraction = 0.99,
        restart: Positive | None = None,
    ) -> None:
        super().__init__()
        (grid,) = grids_of(event_shape, [stride])
        self.event_shape, self.levels, self.per_place = tuple(event_shape), levels, per_place
        self.latent = per_place * math.prod(grid)
        widths, shape = [hidden] * (stride.bit_length() - 1), (residual_units, residual_layers)
        channels = event_shape[0]
        self.encoder = Encoder(channels, widths, *shape, smooth=False)
        self.projection = nn.Conv2d(hidden, per_place * dim, 1)
        self.quantiser = VectorQuantiser(codes, dim, "ema", decay, restart)
        self.decoder = Decoder(per_place * dim, widths, *shape, channels)
        #: Of the scale of each channel, as a number above the least logarithm.
        self.log_scale = nn.Parameter(torch.full((channels,), -LEAST_LOG_SCALE - 2.0))

    def quantised_log_likelihood(
        self, x: Num[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """Return ``log p(x | z)`` of each image in nats, and the quantiser's commitment.

        Gradients pass the quantiser straight through; in training mode the codebook is updated.
        """
        z, level = self._quantised(x)
        self.quantiser.learn(z, level.codes, generator)
        return self._log_likelihood(x, level), level.commitment

    @torch.no_grad()
    def draw(
        self,
        x: Num[Tensor, "batch channels height width"],
        samples: int,
        generator: torch.Generator,
    ) -> Draws:
        """Return the codes of the encoder, which are certain: all draws are the same."""
        _, level = self._quantised(x)
        fit = self._log_likelihood(x, level)[:, None].expand(-1, samples)
        codes = level.codes.reshape(len(x), 1, -1).to(fit.dtype).expand(-1, samples, -1)
        prior = torch.full_like(fit, -self.latent * math.log(len(self.quantiser.codebook)))
        return Draws(codes, fit, prior, torch.zeros_like(fit))

    def _quantised(self, x: Num[Tensor, "batch *image"]) -> tuple[Tensor, Quantised]:
        """Return vectors before quantisation, several rows for an image, and quantised."""
        inputs = scaled(x, self.levels, self.log_scale.dtype)
        z = self.projection(self.encoder(inputs)).unflatten(1, (self.per_place, -1)).flatten(0, 1)
        return z, self.quantiser(z)

    def _log_likelihood(
        self, x: Num[Tensor, "batch *image"], level: Quantised
    ) -> Float[Tensor, " batch"]:
        values = level.values.unflatten(0, (len(x), self.per_place)).flatten(1, 2)
        means = self.decoder(values).movedim(1, -1)[..., None]
        log_scales = (LEAST_LOG_SCALE + self.log_scale)[:, None].expand_as(means)
        alone, pairs = means[..., 0, :], means.shape[-2] * (means.shape[-2] - 1) // 2
        none = alone.new_zeros(*alone.shape[:-1], pairs, 1)
        mixture = LogisticMixture(torch.zeros_like(alone), means, log_scales, none)
        return mixture.log_prob(x.movedim(1, -1), self.levels).flatten(1).sum(1)
