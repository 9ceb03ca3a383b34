"""StyleGAN (Karras et al., 2019, https://arxiv.org/abs/1812.04948)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, Fraction, StepsFrom0
from dgm_bench.models import whole_batch
from dgm_bench.models.adversarial.equalised import (
    Equalised,
    EqualisedLinear,
    blurred,
    doubled,
    instance_norm,
    leaky,
    pixel_norm,
)
from dgm_bench.models.adversarial.growing import (
    GrowingDiscriminator,
    GrowingGame,
    GrowingPlayer,
    Pyramid,
    ToImages,
)
from dgm_bench.models.adversarial.image_game import Images, to_pixels

#: Factor of the learning rate of the mapping network (appendix C).
MAPPING_RATE = 0.01
#: Part of the mean of ``w`` that a step leaves as it is (the authors' code).
MEAN_DECAY = 0.995

#: Intermediate latent variables: one vector for each layer of the synthesis network.
Styles = Float[Tensor, "batch layers latent"]


class Mapping(nn.Sequential):
    """From noise on a hypersphere to intermediate latent variables ``w`` (section 2).

    Args:
        latent: Number of variables of both.
        layers: Number of layers.
    """

    def __init__(self, latent: int, layers: int) -> None:
        super().__init__(
            *(EqualisedLinear(latent, latent, rate=MAPPING_RATE) for _ in range(layers))
        )

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """Return ``w``."""
        x = pixel_norm(z)
        for layer in self:
            x = leaky(layer(x))
        return x


class StyledLayer(nn.Module):
    """Noise, bias, leaky ReLU and adaptive instance normalisation (section 2, equation 1).

    Args:
        inputs: Channels of the features that are convolved; 0 of the learnt constant, which is
            not.
        outputs: Channels of the outputs.
        latent: Number of variables of ``w``.
        doubles: Whether the resolution is doubled before the convolution.
        blurs: Whether features are blurred after it then.
    """

    def __init__(
        self, inputs: int, outputs: int, latent: int, doubles: bool = False, blurs: bool = True
    ) -> None:
        super().__init__()
        self.convolution = Equalised((outputs, inputs, 3, 3)) if inputs else None
        self.doubles, self.blurs = doubles, doubles and blurs
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        #: How strong the noise of each channel is.
        self.noise = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.style = EqualisedLinear(latent, 2 * outputs, gain=1)

    def forward(
        self,
        x: Float[Tensor, "batch inputs rows columns"],
        w: Float[Tensor, "batch latent"],
        source: torch.Generator | None,
    ) -> Float[Tensor, "batch outputs new_rows new_columns"]:
        """Return the features in the style of ``w``, with noise from ``source``."""
        if self.convolution is not None:
            x = doubled(x) if self.doubles else x
            x = F.conv2d(x, self.convolution.scaled(), padding=1)
            x = blurred(x) if self.blurs else x
        noise = whole_batch.normal_(x.new_empty(len(x), 1, *x.shape[2:]), source)
        x = instance_norm(leaky(x + noise * self.noise + self.bias))
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, x, scale + 1)


class StyleGenerator(GrowingPlayer):
    """Mapping and synthesis networks (figure 1b).

    Args:
        shape: The resolutions and widths.
        latent: Number of noise variables, and of ``w``.
        mapping: Layers of the mapping network.
        mixing: Probability that a batch has two styles (section 3.1).
        bilinear: Whether features of twice the resolution are blurred.
    """

    mean_w: Float[Tensor, " latent"]

    def __init__(
        self, shape: Pyramid, latent: int, mapping: int, mixing: float, bilinear: bool
    ) -> None:
        super().__init__(shape)
        self.mixing, filters = mixing, shape.filters
        self.mapping = Mapping(latent, mapping)
        self.register_buffer("mean_w", torch.zeros(latent))
        self.constant = nn.Parameter(torch.ones(filters[0], *shape.base))
        layers = [StyledLayer(0, filters[0], latent), StyledLayer(filters[0], filters[0], latent)]
        for below, above in pairwise(filters):
            layers += [StyledLayer(below, above, latent, True, bilinear)]
            layers += [StyledLayer(above, above, latent)]
        #: Two of each resolution.
        self.layers = nn.ModuleList(layers)
        self.to_images = ToImages(shape)

    @property
    def depth(self) -> int:
        """How many layers the level has."""
        return 2 + 2 * math.ceil(self.level)

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return images of full resolution, mostly in [-1, 1]; ``classes`` are not used.

        In training mode noise and mixed styles are from torch's own generators; otherwise there is
        one style, and the noise of every call is the same.
        """
        w = self.mapping(z)
        if not self.training:
            source = torch.Generator(z.device).manual_seed(0)
            return self.synthesised(self.same_for_all(w), source)
        with torch.no_grad():
            self.mean_w.lerp_(whole_batch.mean(w, [0]), 1 - MEAN_DECAY)
        return self.synthesised(self._mixed(w, z), None)

    def same_for_all(self, w: Float[Tensor, "batch latent"]) -> Styles:
        """Return ``w`` for each layer."""
        return w[:, None].expand(-1, len(self.layers), -1)

    def _mixed(self, w: Float[Tensor, "batch latent"], z: Float[Tensor, "batch latent"]) -> Styles:
        """Return ``w`` for each layer, from a random one on, perhaps, of other noise."""
        if torch.rand((), device="cpu") >= self.mixing:
            return self.same_for_all(w)
        cut = int(torch.randint(1, self.depth, (), device="cpu"))
        other = self.mapping(whole_batch.normal_(torch.empty_like(z), None))
        first = torch.arange(len(self.layers), device=w.device).view(-1, 1) < cut
        return torch.where(first, w[:, None], other[:, None])

    def truncated(self, w: Float[Tensor, "batch latent"], psi: float, layers: int | None) -> Styles:
        """Return ``w`` for each layer, moved towards its mean in the first ones (appendix B).

        Args:
            w: Of each image.
            psi: What is left of the distance; 1 leaves ``w`` as it is.
            layers: How many are concerned; None for all.
        """
        kept = torch.ones(len(self.layers), 1).to(w)
        kept[:layers] = psi
        return torch.lerp(self.mean_w, w[:, None], kept)

    def synthesised(
        self, styles: Styles, source: torch.Generator | None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return images of full resolution, with noise from ``source``."""
        x = below = self.constant.expand(len(styles), *self.constant.shape)
        for number, layer in enumerate(self.layers[: self.depth]):
            below = x if number == self.depth - 2 else below
            x = layer(x, styles[:, number], source)
        images: Tensor = self.to_images(below, x, self.level)
        return images


class StyleGAN(GrowingGame):
    """A generator that is styled at each resolution; neither player is told of classes.

    Karras et al. (2019), https://arxiv.org/abs/1812.04948, configuration F of table 1: mapping
    network, learnt constant, noise and mixed styles. It grows as :class:`ProGAN` does.

    Args:
        event_shape: Channels, rows and columns; the sides become 4 by halving.
        latent: Number of noise variables, and of ``w``.
        filters: Feature maps of both players at 4, 8, 16, ... pixels; the last number holds for
            all that follow.
        mapping_layers: Layers of the mapping network.
        mixing: Probability that a batch is trained with two styles.
        bilinear: Whether features are blurred where their resolution changes, in both players (row
            B of table 1).
        truncated_layers: Layers whose ``w`` is truncated where truncated images are drawn; None
            for all.
        start: Shorter side of the images at first.
        stable: Images that a resolution is trained for before the next one is faded in.
        fade: Images that this takes.
        deviation_group: Images over which the discriminator sees a standard deviation; None for
            all of a batch.

    Raises:
        DeclarationError: Images or ``filters`` do not fit, or ``start`` is no resolution.

    Example:
        >>> model = StyleGAN((1, 8, 8), latent=16, filters=[8])
        >>> model.generator(torch.randn(3, 16)).shape
        torch.Size([3, 1, 8, 8])
    """

    generator: StyleGenerator

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 64,
        filters: Sequence[Count] = (64,),
        mapping_layers: Count = 8,
        mixing: Fraction = 0.9,
        bilinear: bool = True,
        truncated_layers: Count | None = None,
        start: Count = 4,
        stable: StepsFrom0 = 0,
        fade: StepsFrom0 = 0,
        deviation_group: Count | None = None,
    ) -> None:
        super().__init__(event_shape, latent, filters, (start, stable, fade))
        self.truncated_layers = truncated_layers
        self.generator = StyleGenerator(self.shape, latent, mapping_layers, mixing, bilinear)
        self.discriminator = GrowingDiscriminator(self.shape, bilinear, deviation_group)
        self.grow(0)

    @torch.no_grad()
    def draw_images(self, labels: Int[Tensor, " n"], generator: torch.Generator) -> Images:
        """Return as many images as there are ``labels``, pixels in [0, 1]."""
        return self.draw_truncated(labels, 1.0, generator)

    @torch.no_grad()
    def draw_truncated(
        self, labels: Int[Tensor, " n"], truncation: float, generator: torch.Generator
    ) -> Images:
        """Return as many images, with ``w`` truncated; at 0 they differ by their noise alone."""
        w = self.generator.mapping(self.draw_noise(len(labels), generator))
        styles = self.generator.truncated(w, truncation, self.truncated_layers)
        images: Tensor = self.generator.synthesised(styles, generator)
        return to_pixels(images)
