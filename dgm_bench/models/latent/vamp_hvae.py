"""Two-level variational autoencoders of images with a VampPrior (VampPrior code, ``models/``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Finite, NonNegative
from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import Draws
from dgm_bench.models.elementwise import binary_log_likelihood
from dgm_bench.models.latent.latent_variable_model import DECODED_AT_ONCE
from dgm_bench.models.latent.priors import VampPrior
from dgm_bench.models.networks.convnets import CentredBatchNorm
from dgm_bench.models.networks.gated import gated_conv, gated_dense
from dgm_bench.models.normal import gaussian_log_density
from dgm_bench.models.whole_batch import normal_, uniform_

#: Log-variances are kept between these (``models/convHVAE_2level.py``).
LOG_VARIANCES = (-6.0, 2.0)
#: Channels of an encoder's last layer, and masked layers of the decoder.
CODE_CHANNELS, MASKED_LAYERS = 6, 8

Moments = tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch latent"]]
Image = tuple[int, int, int]


class GaussianHead(nn.Module):
    """Mean and log-variance, linear in features; the latter is clipped.

    Args:
        features: Number of features.
        latent: Number of latent variables.
    """

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(features, latent), nn.Linear(features, latent)

    def forward(self, features: Float[Tensor, "*batch features"]) -> Moments:
        """Return mean and log-variance."""
        return self.mean(features), F.hardtanh(self.log_variance(features), *LOG_VARIANCES)


def _encoder(image: Image, filters: int, kernels: tuple[int, int]) -> nn.Sequential:
    first, third = kernels
    return nn.Sequential(
        gated_conv(image[0], filters, first, 1, first // 2),
        gated_conv(filters, filters, 3, 2, 1),
        gated_conv(filters, 2 * filters, third, 1, third // 2),
        gated_conv(2 * filters, 2 * filters, 3, 2, 1),
        gated_conv(2 * filters, CODE_CHANNELS, 3, 1, 1),
        nn.Flatten(),
    )


class ConvHVAE(nn.Module):
    """Two layers of latent variables below a VampPrior, gated convolutions, binary pixels.

    The model is ``p(z_2) p(z_1|z_2) p(x|z_1, z_2)``, the posterior ``q(z_2|x) q(z_1|x, z_2)``; the
    prior of ``z_2`` is the mean of ``q(z_2|u_k)`` over learnt pseudo-inputs.

    Tomczak and Welling (2018), https://arxiv.org/abs/1705.07120, sections 3 and 4; the layers are
    those of the authors' code (``models/convHVAE_2level.py``), which draws the weights of its fully
    connected layers from N(0, 2 / fan-in).

    Args:
        event_shape: Channels, height and width; the latter are halved twice, rounded up.
        latents: Variables of ``z_1`` and of ``z_2``; 40 and 40 in the paper.
        filters: Channels of the encoders' first layers, half of those of the next; 32 in the code.
        hidden: Width of the fully connected layers; 300 in the code.
        maps: Channels of the decoder; 64 in the code.
        components: Number of pseudo-inputs; 500 in the paper.
        init_mean: Mean of the normal distribution of their initial values.
        init_std: Its standard deviation.

    Raises:
        DeclarationError: Examples are no images, or there are not two layers.

    Example:
        >>> small = {"latents": [3, 2], "filters": 4, "hidden": 8, "maps": 4, "components": 3}
        >>> model = ConvHVAE((1, 8, 8), **small)
        >>> model.elbo(torch.ones(5, 1, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latents: Sequence[Count] = (40, 40),
        filters: Count = 32,
        hidden: Count = 300,
        maps: Count = 64,
        components: Count = 500,
        init_mean: Finite = 0.05,
        init_std: NonNegative = 0.01,
    ) -> None:
        super().__init__()
        image = _require_image(event_shape, latents)
        self.event_shape, self.latents = image, tuple(latents)
        self.latent, (below, above) = sum(latents), latents
        code = CODE_CHANNELS * -(-image[1] // 4) * -(-image[2] // 4)
        self.encode_above = _encoder(image, filters, (7, 5))
        self.posterior_above = GaussianHead(code, above)
        self.encode_below = _encoder(image, filters, (3, 3))
        self.above_to_code = gated_dense(above, code)
        self.joint_code = gated_dense(2 * code, hidden)
        self.posterior_below = GaussianHead(hidden, below)
        self.prior_layers = nn.Sequential(gated_dense(above, hidden), gated_dense(hidden, hidden))
        self.prior_below = GaussianHead(hidden, below)
        self.prior = VampPrior(above, image, components, init_mean, init_std)
        self.make_decoder(hidden, maps)
        self.apply(_he_normal)

    def make_decoder(self, hidden: int, maps: int) -> None:
        """Add the layers from latent variables to logits of pixels."""
        below, above = self.latents
        self.of_below, self.of_above = gated_dense(below, hidden), gated_dense(above, hidden)
        self.joint = gated_dense(2 * hidden, self.event_shape[1] * self.event_shape[2])
        layers = [gated_conv(inputs, maps, 3, 1, 1) for inputs in (1, maps, maps, maps)]
        self.pixels = nn.Sequential(*layers, nn.Conv2d(maps, self.event_shape[0], 1))

    def logits(
        self,
        x: Float[Tensor, "n *event"],
        below: Float[Tensor, "n below"],
        above: Float[Tensor, "n above"],
    ) -> Float[Tensor, "n dim"]:
        """Return the logits of flat pixels; of those of ``x`` before each, where they matter."""
        h = self.joint(torch.cat([self.of_below(below), self.of_above(above)], 1))
        logits: Tensor = self.pixels(h.unflatten(1, (1, *self.event_shape[1:])))
        return logits.flatten(1)

    def posterior_moments(self, x: Float[Tensor, "n *event"]) -> Moments:
        """Return mean and variance of ``q(z_2|x)``."""
        mean, log_variance = self.posterior_above(self.encode_above(x))
        return mean, log_variance.exp()

    def draw(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Draws:
        """Return draws with their three log densities; ``z`` has ``z_1``, then ``z_2``."""
        mean, log_variance = (part[:, None] for part in self.posterior_above(self.encode_above(x)))
        above, log_q_above = _draw(mean, log_variance, samples, generator)
        code = self.encode_below(x)[:, None].expand(-1, samples, -1).flatten(0, 1)
        flat = above.flatten(0, 1)
        h = self.joint_code(torch.cat([code, self.above_to_code(flat)], 1))
        mean, log_variance = (
            part.unflatten(0, above.shape[:2]) for part in self.posterior_below(h)
        )
        below, log_q_below = _draw(mean, log_variance, samples, generator)
        return Draws(
            torch.cat([below, above], -1),
            self._log_likelihood(x, below, above),
            self._log_prior(below, above),
            log_q_above + log_q_below,
        )

    def _log_prior(
        self, below: Float[Tensor, "batch samples below"], above: Float[Tensor, "batch samples up"]
    ) -> Float[Tensor, "batch samples"]:
        mean, log_variance = self.prior_below(self.prior_layers(above.flatten(0, 1)))
        noise = (below.flatten(0, 1) - mean) * (-0.5 * log_variance).exp()
        of_below = gaussian_log_density(noise, log_variance)
        mixture = self.prior.with_posterior(self.posterior_moments)
        return (of_below + mixture.log_prob(above.flatten(0, 1))).view(above.shape[:2])

    def _log_likelihood(
        self,
        x: Float[Tensor, "batch *event"],
        below: Float[Tensor, "batch samples below"],
        above: Float[Tensor, "batch samples up"],
    ) -> Float[Tensor, "batch samples"]:
        repeated = x[:, None].expand(-1, below.shape[1], *x.shape[1:]).flatten(0, 1)
        rows = len(repeated) if torch.is_grad_enabled() else DECODED_AT_ONCE
        parts = zip(*(part.split(rows) for part in (repeated, below.flatten(0, 1),
                                                    above.flatten(0, 1))), strict=True)  # fmt: skip
        values = [binary_log_likelihood(self.logits(*part), part[0].flatten(1)) for part in parts]
        return torch.cat(values).view(below.shape[:2])

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return one draw of the evidence lower bound of each example in nats."""
        return self.draw(x, 1, generator).log_weight.squeeze(1)

    def draw_latents(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "{n} below"], Float[Tensor, "{n} above"]]:
        """Return draws of ``z_1`` and ``z_2`` from their prior."""
        above = self.prior.with_posterior(self.posterior_moments).sample(n, generator)
        mean, log_variance = self.prior_below(self.prior_layers(above))
        below, _ = _draw(mean[:, None], log_variance[:, None], 1, generator)
        return below.squeeze(1), above

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return the means of the pixels for ``n`` draws of the latent variables."""
        below, above = self.draw_latents(n, generator)
        means = self.logits(below.new_empty(n, *self.event_shape), below, above).sigmoid()
        return means.reshape(-1, *self.event_shape)


class MaskedConv(nn.Conv2d):
    """A 3 x 3 convolution without what comes after the middle, row by row (``utils/nn.py``).

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        middle: Whether the middle counts too.
    """

    mask: Float[Tensor, "3 3"]

    def __init__(self, inputs: int, outputs: int, middle: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        before = torch.arange(9).view(3, 3) < (5 if middle else 4)
        self.register_buffer("mask", before.to(self.weight.dtype), persistent=False)

    def forward(
        self, input: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the masked convolution."""
        return F.conv2d(input, self.weight * self.mask, padding=1)


class PixelHVAE(ConvHVAE):
    """A :class:`ConvHVAE` whose pixels depend on those before them, by masked convolutions.

    Tomczak and Welling (2018), https://arxiv.org/abs/1705.07120, section 4; the layers are those of
    the authors' code (``models/PixelHVAE_2level.py``). Batch normalisation learns no scale: the
    weights of the layer above have it.

    Args:
        event_shape: As for the :class:`ConvHVAE`, like all others.
        latents: Variables of ``z_1`` and of ``z_2``.
        filters: Channels of the encoders' first layers.
        hidden: Width of the fully connected layers.
        maps: Channels of the masked convolutions.
        components: Number of pseudo-inputs.
        init_mean: Mean of the normal distribution of their initial values.
        init_std: Its standard deviation.

    Example:
        >>> small = {"latents": [3, 2], "filters": 4, "hidden": 8, "maps": 4, "components": 3}
        >>> model = PixelHVAE((1, 8, 8), **small).eval()
        >>> model.sample(2, torch.Generator().manual_seed(0)).unique()
        tensor([0., 1.])
    """

    def make_decoder(self, hidden: int, maps: int) -> None:
        """Add the layers from latent variables and earlier pixels to logits of pixels."""
        below, above = self.latents
        channels, height, width = self.event_shape
        dim = channels * height * width
        self.of_below, self.of_above = gated_dense(below, dim), gated_dense(above, dim)
        layers: list[nn.Module] = []
        for k in range(MASKED_LAYERS):
            conv = MaskedConv(maps if k else 3 * channels, maps, middle=k > 0)
            layers += [conv, CentredBatchNorm(maps), nn.ReLU()]
        self.pixels = nn.Sequential(*layers, nn.Conv2d(maps, channels, 1))

    def logits(
        self,
        x: Float[Tensor, "n *event"],
        below: Float[Tensor, "n below"],
        above: Float[Tensor, "n above"],
    ) -> Float[Tensor, "n dim"]:
        """Return the logits of flat pixels, each given those before it."""
        of_latents = (self.of_below(below), self.of_above(above))
        parts = [x, *(part.unflatten(1, self.event_shape) for part in of_latents)]
        logits: Tensor = self.pixels(torch.cat(parts, 1))
        return logits.flatten(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples with values 0 and 1, drawn pixel by pixel."""
        below, above = self.draw_latents(n, generator)
        x = below.new_zeros(n, *self.event_shape)
        flat = x.view(n, -1)
        coins = uniform_(torch.empty_like(flat), generator)
        for pixel in range(flat.shape[1]):
            chance = self.logits(x, below, above)[:, pixel].sigmoid()
            flat[:, pixel] = (coins[:, pixel] < chance).to(x.dtype)
        return x


def _draw(
    mean: Float[Tensor, "batch #samples latent"],
    log_variance: Float[Tensor, "batch #samples latent"],
    samples: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch {samples} latent"], Float[Tensor, "batch {samples}"]]:
    """Return draws of a Gaussian and the log density of each in nats."""
    noise = normal_(mean.new_empty(len(mean), samples, mean.shape[-1]), generator)
    z = mean + (0.5 * log_variance).exp() * noise
    return z, gaussian_log_density(noise, log_variance)


def _require_image(event_shape: Sequence[int], latents: Sequence[int]) -> Image:
    if len(event_shape) != 3:
        reason = f"examples of shape {tuple(event_shape)} are no images"
        raise DeclarationError("vamp_hvae:ConvHVAE", reason, "use gated_vae:DenseVAE")
    if len(latents) != 2:
        reason = f"{len(latents)} layers of latent variables"
        raise DeclarationError("latents", reason, "give the sizes of two")
    return cast(Image, tuple(event_shape))


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=(2 / module.in_features) ** 0.5)
