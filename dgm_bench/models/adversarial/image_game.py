"""What games of images have in common: their scale, noise, truncation and what they draw."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.data.class_rows import without_classes
from dgm_bench.errors import DeclarationError
from dgm_bench.models.whole_batch import normal_, uniform_

#: Batches of so many samples by which statistics of batch normalisation are set.
STANDING_BATCHES, STANDING_BATCH = 20, 100

Images = Float[Tensor, "batch channels height width"]


def to_pixels(images: Images) -> Images:
    """Return images in [-1, 1], and what is beyond, as pixels in [0, 1]."""
    return ((images + 1) / 2).clamp(0, 1)


class ImageGame(nn.Module):
    """Base of a generator and a discriminator of images whose pixels are in [-1, 1].

    Subclasses set ``generator``, called with noise and classes or None, and ``discriminator``,
    called with images and classes or None.

    Args:
        event_shape: Channels, height and width.
        latent: Number of noise variables.
        classes: Number of classes that both players are told, or None.

    Raises:
        DeclarationError: Examples are no images.
    """

    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, event_shape: tuple[int, ...], latent: int, classes: int | None) -> None:
        super().__init__()
        if len(event_shape) != 3:
            reason = f"takes images, not examples of shape {tuple(event_shape)}"
            raise DeclarationError(type(self).__name__, reason, "use data of images")
        self.event_shape = cast(tuple[int, int, int], tuple(event_shape))
        self.latent, self.classes = latent, classes

    # ------------------------------------------------------------------------ noise

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {self.latent}"]:
        """Return standard normal noise for ``n`` images."""
        return normal_(self._empty(n), generator)

    def truncated_noise(
        self, n: int, truncation: float, generator: torch.Generator
    ) -> Float[Tensor, "{n} {self.latent}"]:
        """Return standard normal noise given that no number is beyond ``truncation``.

        BigGAN (https://arxiv.org/abs/1809.11096), section 3.1.
        """
        within = torch.erf(torch.tensor(truncation / 2**0.5)).item()
        u = uniform_(self._empty(n), generator)
        z = torch.erfinv((2 * u - 1) * within) * 2**0.5
        return z.clamp(-truncation, truncation)

    def _empty(self, n: int) -> Tensor:
        return next(self.parameters()).new_empty(n, self.latent)

    # ------------------------------------------------------------------------ images

    def examples_and_classes(
        self, x: Num[Tensor, "batch *row"]
    ) -> tuple[Images, Int[Tensor, " batch"] | None]:
        """Return images in [-1, 1], and their classes where the players are told of them.

        Args:
            x: Images with pixels in [0, 1] or, with classes, rows of such an image and its class.
        """
        if self.classes is None:
            return 2 * x - 1, None
        images, classes = without_classes(x, self.event_shape)
        return 2 * images - 1, classes

    def sample(self, n: int, generator: torch.Generator) -> Images:
        """Return ``n`` images, pixels in [0, 1], whose classes take turns."""
        return self.draw_images(self._classes_in_turn(n), generator)

    @torch.no_grad()
    def draw_images(self, labels: Int[Tensor, " n"], generator: torch.Generator) -> Images:
        """Return an image of each class, pixels in [0, 1]; only ``n`` matters without classes."""
        return self._drawn(self.draw_noise(len(labels), generator), labels)

    @torch.no_grad()
    def draw_truncated(
        self, labels: Int[Tensor, " n"], truncation: float, generator: torch.Generator
    ) -> Images:
        """Return an image of each class from truncated noise; at 0 all of a class are the same."""
        return self._drawn(self.truncated_noise(len(labels), truncation, generator), labels)

    def _drawn(self, z: Tensor, labels: Int[Tensor, " n"]) -> Images:
        classes = None if self.classes is None else labels.to(z.device)
        images: Tensor = self.generator(z, classes)
        return to_pixels(images)

    # ------------------------------------------------------------------------ statistics

    @torch.no_grad()
    def calibrate(self, x: Num[Tensor, "n *event"], batch_size: int = STANDING_BATCH) -> None:
        """Set the generator's statistics of batch normalisation to those of its own samples.

        BigGAN's standing statistics (section 3.1 and appendix D), which averaged weights need too.

        Args:
            x: Not used: the generator sees noise alone.
            batch_size: Samples at a time.
        """
        norms = [m for m in self.generator.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return
        noise = torch.Generator(self._empty(0).device).manual_seed(0)
        kept = [(norm.momentum, norm.training) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for number in range(STANDING_BATCHES):
            # Where a batch has fewer images than there are classes the next one goes on.
            turn = self._classes_in_turn(batch_size, number * batch_size)
            classes = None if self.classes is None else turn
            self.generator(self.draw_noise(batch_size, noise), classes)
        for norm, (momentum, training) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.train(training)

    def _classes_in_turn(self, n: int, first: int = 0) -> Int[Tensor, " {n}"]:
        return torch.arange(first, first + n, device=self._empty(0).device) % (self.classes or 1)
