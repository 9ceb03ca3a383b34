"""PixelCNN++ (https://arxiv.org/abs/1701.05517): a density model of images."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dgm_bench.annotations import Count, Fraction
from dgm_bench.models.codes.priors.two_streams import TwoStreams
from dgm_bench.models.codes.priors.two_streams_sampling import CachedTwoStreams
from dgm_bench.models.pixels.pixel_model import PixelModel


class PixelCNNPP(PixelModel):
    """PixelCNN++: two streams of shifted convolutions over several scales, logistic mixtures.

    Salimans, Karpathy, Chen and Kingma (2017), https://arxiv.org/abs/1701.05517; layers and
    initialisation as in openai/pixel-cnn, whose sizes are the defaults.

    Args:
        event_shape: Channels, height and width.
        levels: Number of levels of a channel.
        components: Number of logistics of a mixture.
        hidden: Channels of both streams.
        blocks: Residual layers at each scale on the way down.
        scales: Number of scales, each of half the sides of the one before.
        dropout: Dropout probability in the residual blocks.

    Raises:
        DeclarationError: Examples are not images, or there are not 2 to 256 levels.

    Example:
        >>> model = PixelCNNPP((1, 1, 1), levels=5, hidden=4, blocks=1, scales=1)
        >>> every = torch.arange(5).view(5, 1, 1, 1)
        >>> round(model.log_prob(every).exp().sum().item(), 4)
        1.0
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        levels: Count = 256,
        components: Count = 10,
        hidden: Count = 160,
        blocks: Count = 5,
        scales: Count = 3,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__(event_shape, levels, components, hidden)
        self.streams = TwoStreams(event_shape[0], hidden, blocks, scales, dropout, False)

    def features(
        self, x: Float[Tensor, "n rows columns channels"]
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the features of every position from the pixels before it, in [-1, 1]."""
        features: Tensor = self.streams(x, None)
        return features

    def cached(self, n: int) -> CachedTwoStreams:
        """Return the network with empty caches and without dropout, at the first position."""
        return CachedTwoStreams(self.streams, n, self.event_shape[2], None)
