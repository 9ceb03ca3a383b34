"""The identity as an autoencoder: with it, real images are measured as reconstructions are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Identity(nn.Module):
    """Reconstructs every image exactly; it has no parameters.

    The row of real data in tables of generative models: Razavi, van den Oord and Vinyals (2019),
    https://arxiv.org/abs/1906.00446, classification accuracy score.

    Args:
        event_shape: Shape of an image.

    Example:
        >>> x = torch.rand(5, 3, 8, 8)
        >>> torch.equal(Identity((3, 8, 8)).reconstruct(x), x)
        True
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()

    def reconstruct(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the images themselves."""
        return x
