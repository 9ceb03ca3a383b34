"""Capabilities of models, as protocols. A model has some of them and knows nothing of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

#: Codes of one level or more on their grids, top first.
Levels = Sequence[Int[Tensor, "n _rows _columns"]]


@dataclass(frozen=True)
class Draws:
    """Draws from the posteriors of a batch of examples, and their log densities in nats.

    Attributes:
        z: Latent variables.
        log_likelihood: ``log p(x|z)``.
        log_prior: ``log p(z)``.
        log_posterior: ``log q(z|x)``.
    """

    z: Float[Tensor, "batch samples latent"]
    log_likelihood: Float[Tensor, "batch samples"]
    log_prior: Float[Tensor, "batch samples"]
    log_posterior: Float[Tensor, "batch samples"]

    @property
    def log_weight(self) -> Float[Tensor, "batch samples"]:
        """``log p(x, z) - log q(z|x)``: the log importance weights, whose mean is the ELBO."""
        return self.log_likelihood + self.log_prior - self.log_posterior


@runtime_checkable
class HasLogProb(Protocol):
    """Exact log density in nats, in the model's input coordinates."""

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return the log density of each example."""
        ...


@runtime_checkable
class HasLogProbEstimate(Protocol):
    """An unbiased, cheaper estimate of the log density (Hutchinson's trace)."""

    def log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density of each example."""
        ...


@runtime_checkable
class HasSample(Protocol):
    """The model can be sampled."""

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """Return ``n`` examples; noise is drawn from ``generator``, on the model's device."""
        ...


@runtime_checkable
class HasSampleWithLogProb(Protocol):
    """Samples with their exact log densities, which other points need not have."""

    def sample_with_log_prob(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n *event"], Float[Tensor, " n"]]:
        """Return ``n`` examples and the log density of each in nats."""
        ...


@runtime_checkable
class HasElbo(Protocol):
    """A lower bound of the log density in nats, in the model's input coordinates."""

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the bound of each example."""
        ...


@runtime_checkable
class HasPosteriorDraws(Protocol):
    """Latent variables with a posterior that can be sampled and evaluated at its samples."""

    latent: int

    def draw(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Draws:
        """Return draws from the posterior of each example, and their log densities."""
        ...


@runtime_checkable
class DrawsByVariable(Protocol):
    """A draw's divergence from the prior is a sum of one term for each latent variable."""

    def draw_by_variable(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent"]]:
        """Return ``log p(x|z)`` and the terms of ``log q(z|x) - log p(z)``, both in nats."""
        ...

    def require_factors(self) -> object:
        """Refuse a posterior or prior without such terms.

        Raises:
            DeclarationError: One of the two has none.
        """
        ...


@runtime_checkable
class HasStochasticLayers(Protocol):
    """Latent variables in several layers; draws have them one after the other, from the data up."""

    latents: tuple[int, ...]


@runtime_checkable
class HasDecoder(Protocol):
    """Latent variables with a standard normal prior, and the density of data given them."""

    latent: int

    def decode(self, z: Float[Tensor, "batch latent"]) -> torch.distributions.Distribution:
        """Return ``p(x | z)`` of flat examples."""
        ...


@runtime_checkable
class AdversarialGame(Protocol):
    """A generator and a discriminator.

    Attributes:
        latent: Number of noise variables.
        classes: Number of classes that both players are told, or None.
        generator: From noise, and classes or None, to examples of the game's own scale.
        discriminator: From such examples, and classes or None, to a score of each: log-odds that
            it is data, or a critic's value.
    """

    latent: int
    classes: int | None
    generator: nn.Module
    discriminator: nn.Module

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n latent"]:
        """Return noise for ``n`` examples."""
        ...

    def examples_and_classes(
        self, x: Num[Tensor, "batch *row"]
    ) -> tuple[Float[Tensor, "batch *event"], Int[Tensor, " batch"] | None]:
        """Return the examples of a batch in the game's own scale, and their classes if any."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A game whose players grow with the images that the discriminator has seen."""

    def grow(self, images_shown: int) -> None:
        """Let both players be as large as after so many images of the data."""
        ...


@runtime_checkable
class HasInverse(Protocol):
    """An invertible map between data and base noise: a flow."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``: from data to noise."""
        ...

    def inverse(self, u: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return ``x`` from noise ``u``."""
        ...


@runtime_checkable
class CalibratesOnData(Protocol):
    """Has statistics that are set from the whole training set before each evaluation."""

    def calibrate(self, x: Float[Tensor, "n *event"], batch_size: int = 10_000) -> None:
        """Set the statistics from ``x``; costs about one pass over it."""
        ...


@runtime_checkable
class InitialisesOnData(Protocol):
    """Data-dependent initialisation, before the first step (as of actnorm in Glow).

    Attributes:
        initial_examples: Number of training examples that it takes; None for all.
    """

    initial_examples: int | None

    def initialise(self, x: Float[Tensor, "n *event"]) -> None:
        """Set the parameters from training examples, preprocessed as the model's inputs are."""
        ...


@runtime_checkable
class DecaysSomeParameters(Protocol):
    """Weight decay applies to some of its parameters only."""

    def decayed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters to which a recipe's weight decay applies."""
        ...


@runtime_checkable
class RegularisesDynamics(Protocol):
    """A continuous flow with RNODE's penalties on its dynamics."""

    def regularised_log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], dict[str, Float[Tensor, " batch"]]]:
        """Return an estimate of the log density, and ``kinetic`` and ``jacobian`` beside it."""
        ...


@runtime_checkable
class HasVelocity(Protocol):
    """One continuous flow from data at time 0 to noise at time 1, given by its velocity."""

    def velocity(
        self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch *event"]:
        """Return ``dz/dt``, each example at its own time."""
        ...


@runtime_checkable
class SolvesODE(Protocol):
    """Solves ODEs, counts function evaluations, and has solver settings that can be changed."""

    function_evaluations: int
    solver_settings: str

    def solve_with(self, **settings: object) -> None:
        """Change solver, tolerances or step size."""
        ...


@runtime_checkable
class HasClassLogits(Protocol):
    """Probabilities of the classes of images.

    Attributes:
        image_shape: Channels, height and width.
    """

    image_shape: tuple[int, ...]

    def class_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return unnormalised log probabilities of the classes of images in [0, 1]."""
        ...


# ----------------------------------------------------------------- discrete codes of images


@runtime_checkable
class HasCodes(Protocol):
    """An autoencoder of images whose latent variables are indices into codebooks, on grids.

    Attributes:
        grids: Height and width of each level's grid of codes, the coarsest level (top) first.
        codebook_sizes: Number of codes of each level, top first.
    """

    grids: tuple[tuple[int, int], ...]
    codebook_sizes: tuple[int, ...]

    def encode(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> list[Int[Tensor, "batch _rows _columns"]]:
        """Return the codes of each level, top first, of images with pixels in [0, 1]."""
        ...

    def decode(
        self, codes: Sequence[Int[Tensor, "batch _rows _columns"]]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pixels in [0, 1]; levels left out at the end are zeros in the decoder's input."""
        ...


@runtime_checkable
class HasCodePrior(Protocol):
    """The distribution of the codes of one level, given those of the levels above and the class.

    Attributes:
        level: The level whose codes it models; 0 is the top.
        grids: Height and width of each level's grid, top first.
        codebook_sizes: Number of codes of each level, top first.
        classes: Number of classes that it is conditioned on, or None.
    """

    level: int
    grids: tuple[tuple[int, int], ...]
    codebook_sizes: tuple[int, ...]
    classes: int | None

    def log_prob(self, x: Int[Tensor, "batch packed"]) -> Float[Tensor, " batch"]:
        """Return the log probability of the level's codes, in nats, of packed codes and class."""
        ...

    def sample_codes(
        self, above: Levels, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes of the level, given those above and the classes (zeros where unused)."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """Samples images, of given classes if it is class-conditional.

    Attributes:
        classes: Number of classes that it is conditioned on, or None.
    """

    classes: int | None

    def draw_images(
        self, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """Return an image of each class, pixels in [0, 1]; only ``n`` matters without classes."""
        ...


@runtime_checkable
class DrawsTruncated(DrawsImages, Protocol):
    """Draws images of noise nearer to its centre: of higher fidelity and lower diversity."""

    def draw_truncated(
        self, labels: Int[Tensor, " n"], truncation: float, generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """Return an image of each class, pixels in [0, 1]; at 0 all of a class are the same."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Encodes and decodes images."""

    def reconstruct(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the reconstructions of images, pixels in [0, 1]."""
        ...


@runtime_checkable
class QuantisesImages(Protocol):
    """An autoencoder of images with quantised latent variables, as its training needs it."""

    def quantised_reconstruction(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch channels height width"], dict[str, Float[Tensor, ""]]]:
        """Return pixels with straight-through gradients, and the quantisers' losses by name.

        These are ``commitment`` and, where codebooks learn by gradient, ``codebook``. In training
        mode codebooks that are moving averages are updated with the batch.
        """
        ...
