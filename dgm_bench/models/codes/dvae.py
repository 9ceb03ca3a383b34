"""DALL-E's discrete VAE (Ramesh et al., https://arxiv.org/abs/2102.12092, A.1 to A.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, NonNegative
from dgm_bench.errors import DeclarationError
from dgm_bench.models.arguments import require_images
from dgm_bench.models.codes.dvae_networks import decoder, encoder
from dgm_bench.models.codes.logit_laplace import into_support, log_density, out_of_support
from dgm_bench.models.networks.discrete_relaxations import log_gumbel_softmax


class DVAE(nn.Module):
    """An image as a grid of categorical variables with a uniform prior, relaxed for training.

    The decoder's outputs are mean and log scale of a logit-Laplace density of each subpixel.

    Ramesh et al. (2021), https://arxiv.org/abs/2102.12092, section 2.1 and appendix A.

    With ``noise`` the density is of ``(x + noise u) / (1 + noise)`` for pixels x, with u uniform
    from 0 to 1 in training and 1/2 otherwise; decoded pixels are taken back. Without it the density
    has no bound where pixels are constant, and images that are mostly black teach little else.

    Args:
        event_shape: Channels, height and width.
        codes: Number of classes of each variable.
        hidden: Width of the groups of blocks at full resolution, doubled at each lower resolution.
        blocks: Residual blocks in a group.
        poolings: Number of times that sides are halved in the encoder and doubled in the decoder.
        dim: Dimensions of the decoder's embedding of codes (128 in the released code).
        noise: Width of the noise on pixels in [0, 1]; the paper has none.

    Raises:
        DeclarationError: Examples are not images, sides cannot be halved so many times, or noise is
            negative.

    Example:
        >>> model = DVAE((3, 8, 8), codes=16, hidden=4, blocks=1, poolings=1, dim=4)
        >>> x = torch.rand(5, 3, 8, 8)
        >>> model.encode(x)[0].shape, model.reconstruct(x).shape, model.negative_elbo(x).shape
        (torch.Size([5, 4, 4]), torch.Size([5, 3, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        codes: Count = 8192,
        hidden: Count = 256,
        blocks: Count = 2,
        poolings: Count = 3,
        dim: Count = 128,
        noise: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        if noise < 0:
            raise DeclarationError(f"noise {noise}", "is negative", "use 0 or more")
        self.event_shape, self.noise = event_shape, noise
        self.grids = (_grid(event_shape, poolings),)
        self.codebook_sizes = (codes,)
        channels = event_shape[0]
        self.encoder = encoder(channels, hidden, codes, poolings, blocks)
        # A 1 x 1 convolution of one-hot maps is an embedding.
        self.vectors = nn.Embedding(codes, dim)
        self.decoder = decoder(dim, hidden, 2 * channels, poolings, blocks)
        self.to(memory_format=torch.channels_last)

    def encode(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> list[Int[Tensor, "batch _rows _columns"]]:
        """Return the most probable codes of images with pixels in [0, 1], one level."""
        with torch.no_grad():
            return [self.posterior_logits(self._noised(x)).argmax(-1)]

    def decode(
        self, codes: Sequence[Int[Tensor, "batch _rows _columns"]]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``phi^-1(sigmoid(mean))``, pixels in [0, 1]."""
        mean, _ = self._mean_and_log_scale(self.vectors(codes[0].long()))
        pixels = out_of_support(mean.sigmoid())
        if not self.noise:
            return pixels
        return ((1 + self.noise) * pixels - self.noise / 2).clamp(0, 1)

    def _noised(
        self, x: Float[Tensor, "batch channels height width"], u: Tensor | float = 0.5
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pixels with noise of the width, ``u`` of it in [0, 1]."""
        return (x + self.noise * u) / (1 + self.noise) if self.noise else x

    def reconstruct(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the reconstructions of images from their most probable codes."""
        return self.decode(self.encode(x))

    def posterior_logits(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch rows columns codes"]:
        """Return normalised logits of each code; the last layer is never in mixed precision.

        Among thousands of codes the largest logits would often tie in bfloat16 (DALL-E's released
        code has this layer and the embedding of codes in float32 too).
        """
        pixels = into_support(x).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.encoder[:-1](pixels)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.encoder[-1](features.to(x.dtype))
        return logits.movedim(1, -1).log_softmax(-1)

    def relaxed_terms(
        self,
        x: Float[Tensor, "batch channels height width"],
        temperature: float,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return ``-log p(phi(x) | z)`` for relaxed ``z``, and the KL divergence from the prior.

        Both are in nats per image; the divergence is that of the categorical variables, in closed
        form.

        Args:
            x: Pixels in [0, 1].
            temperature: Temperature of the relaxation.
            generator: Source of the noise on pixels, if any, and of the Gumbel noise.
        """
        if self.noise:
            u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = self._noised(x, u)
        logits = self.posterior_logits(x)
        z = log_gumbel_softmax(logits, temperature, generator).exp()
        negative_entropy = (logits.exp() * logits).flatten(1).sum(1)
        with torch.autocast(x.device.type, enabled=False):
            vectors = z @ self.vectors.weight
        return self._negative_log_likelihood(
            x, vectors
        ), negative_entropy + self._negative_log_prior()

    def negative_elbo(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, " batch"]:
        """Return a deterministic upper bound of ``-log p(phi(x))``, in nats per image.

        Its posterior is a point mass at the most probable codes, with a KL divergence of
        ``log codes`` from the uniform prior for each code.
        """
        return (
            self._negative_log_likelihood(self._noised(x), self.vectors(self.encode(x)[0]))
            + self._negative_log_prior()
        )

    def _negative_log_prior(self) -> float:
        return math.prod(self.grids[0]) * math.log(self.codebook_sizes[0])

    def _negative_log_likelihood(
        self,
        x: Float[Tensor, "batch channels height width"],
        vectors: Float[Tensor, "batch rows columns dim"],
    ) -> Float[Tensor, " batch"]:
        mean, log_scale = (maps.to(x.dtype) for maps in self._mean_and_log_scale(vectors))
        return -log_density(into_support(x), mean, log_scale).flatten(1).sum(1)

    def _mean_and_log_scale(
        self, vectors: Float[Tensor, "batch rows columns dim"]
    ) -> tuple[Tensor, ...]:
        maps: Tensor = self.decoder(vectors.movedim(-1, 1))
        return maps.chunk(2, 1)


def _grid(event_shape: Sequence[int], poolings: int) -> tuple[int, int]:
    require_images(event_shape)
    height, width = event_shape[1:]
    if height % 2**poolings or width % 2**poolings:
        sides = f"the sides of {height} x {width}"
        raise DeclarationError(sides, f"cannot be halved {poolings} times", "use fewer poolings")
    return height >> poolings, width >> poolings
