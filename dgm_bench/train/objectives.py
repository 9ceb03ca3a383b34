"""Training losses by name: a function of model, batch, step and noise to a loss and its terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import nn

from dgm_bench.annotations import Count, Fraction, NonNegative, Steps
from dgm_bench.data import load
from dgm_bench.data.class_rows import without_classes
from dgm_bench.data.dataset import LogDensity
from dgm_bench.errors import DeclarationError, require_choice, require_positive
from dgm_bench.models import whole_batch
from dgm_bench.models.capabilities import (
    AdversarialGame,
    DrawsByVariable,
    HasClassLogits,
    HasElbo,
    HasLogProb,
    HasLogProbEstimate,
    HasPosteriorDraws,
    HasSampleWithLogProb,
    HasVelocity,
    QuantisesImages,
    Reconstructs,
    RegularisesDynamics,
)
from dgm_bench.models.codes.dvae import DVAE
from dgm_bench.models.codes.priors.joint_transformer import JointTransformer
from dgm_bench.models.latent.avb import AVB
from dgm_bench.models.latent.discrete import DiscreteVAE
from dgm_bench.models.latent.structured_prediction import StructuredPrediction
from dgm_bench.models.pixels.vqvae_levels import LevelVQVAE
from dgm_bench.models.whole_batch import normal_, uniform_
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.adversarial import adversarial
from dgm_bench.train.adversarial_bayes import adversarial_variational_bayes
from dgm_bench.train.codebook_objectives import (
    discrete_autoencoding,
    quantised_likelihood,
    vector_quantisation,
)
from dgm_bench.train.discrete_objectives import (
    NORMALISED,
    baseline_of,
    negative_discrete_elbo,
    negative_prediction,
)
from dgm_bench.train.losses import Batch, Loss, Objective, detached, mean_over_batch
from dgm_bench.train.text_objectives import text_and_image


def negative_log_likelihood(trace: Literal["estimate", "exact"] = "estimate") -> Objective:
    """Return the mean negative log-likelihood in nats.

    A continuous flow is trained on Hutchinson's estimate (FFJORD, section 3.1) unless ``trace`` is
    ``exact``; models whose density is explicit have one form only.

    Raises:
        DeclarationError: Another ``trace`` than these two.
    """
    require_choice("trace", trace, ("estimate", "exact"))

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        if trace == "estimate" and isinstance(model, HasLogProbEstimate):
            return Loss(-model.log_prob_estimate(x, generator).mean())
        return Loss(-cast(HasLogProb, model).log_prob(x).mean())

    return objective


def regularised_likelihood(kinetic: NonNegative = 0.01, jacobian: NonNegative = 0.01) -> Objective:
    """Return RNODE's loss in nats (Finlay et al. 2020, equation 6; released code, train.py).

    The released code adds both penalties to bits per dimension; here all is ``D ln 2`` times that.

    Args:
        kinetic: Weight of the kinetic energy.
        jacobian: Weight of the squared Frobenius norm of the dynamics' Jacobian.
    """
    weights = {"kinetic": kinetic, "jacobian": jacobian}

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        flow = cast(RegularisesDynamics, model)
        log_prob, penalties = flow.regularised_log_prob_estimate(x, generator)
        means = {name: value.mean() for name, value in penalties.items()}
        penalty = sum(weights[name] * mean for name, mean in means.items())
        total = x[0].numel() * math.log(2) * penalty - log_prob.mean()
        return Loss(total, detached(means))

    return objective


def flow_matching(sigma: Fraction = 0.0) -> Objective:
    """Return the conditional flow-matching loss on straight paths (Lipman et al. 2023, eq. 23).

    Time runs from data at 0 to noise at 1, the other way round than in the paper:
    ``z_t = (1 - t) x + (sigma + (1 - sigma) t) e``, whose velocity is ``(1 - sigma) e - x``.

    Args:
        sigma: Width of the path at the data; 0 where data have a density of their own.
    """

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        noise = normal_(torch.empty_like(x), generator)
        t = uniform_(x.new_empty(len(x)), generator)
        time = t.view(-1, *[1] * (x.dim() - 1))
        z = (1 - time) * x + (sigma + (1 - sigma) * time) * noise
        error = cast(HasVelocity, model).velocity(t, z) - ((1 - sigma) * noise - x)
        return Loss(error.flatten(1).square().sum(1).mean())

    return objective


def negative_elbo(samples: Count = 1) -> Objective:
    """Return the mean negative evidence lower bound in nats (Kingma and Welling, 2014, eq. 10).

    Args:
        samples: Draws from the posterior of each example, whose bounds are averaged (Burda et al.,
            2016, section 2).

    Raises:
        DeclarationError: There is not one sample.
    """
    require_positive(samples=samples)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        if samples == 1:
            return Loss(-cast(HasElbo, model).elbo(x, generator).mean())
        return Loss(-cast(HasPosteriorDraws, model).draw(x, samples, generator).log_weight.mean())

    return objective


def negative_importance_bound(samples: Count) -> Objective:
    """Return the mean of ``-L_k`` in nats: the log of the mean of k importance weights.

    Its gradient is that of the log weights, each weighted by its share of the sum (Burda et al.,
    2016, https://arxiv.org/abs/1509.00519, equations 8 and 14). With one sample it is the ELBO.

    Args:
        samples: k.

    Raises:
        DeclarationError: There is not one sample.
    """
    require_positive(samples=samples)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        log_weight = cast(HasPosteriorDraws, model).draw(x, samples, generator).log_weight
        return Loss(math.log(samples) - log_weight.logsumexp(1).mean())

    return objective


def warmed_negative_elbo(warmup_epochs: Steps, steps_per_epoch: Steps) -> Objective:
    """Return the mean negative ELBO in nats, with a weight on its divergence that grows to 1.

    In epoch ``e``, counted from 1, the weight is ``min(e / warmup_epochs, 1)`` (Sylvester and
    FFJORD codes, ``optimization/training.py``); it is 1 where a model is evaluated. The divergence
    is that of the draw: ``log q(z|x) - log p(z)``.

    Args:
        warmup_epochs: Epochs until the weight is 1.
        steps_per_epoch: Steps in an epoch.

    Raises:
        DeclarationError: One of the two is below 1.
    """
    if warmup_epochs < 1 or steps_per_epoch < 1:
        reason = f"{warmup_epochs} epochs of {steps_per_epoch} steps are no warm-up"
        raise DeclarationError("objective 'warmed-elbo'", reason, "use 'elbo'")

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        draws = cast(HasPosteriorDraws, model).draw(x, 1, generator)
        epoch = step // steps_per_epoch + 1
        weight = min(epoch / warmup_epochs, 1.0) if model.training else 1.0
        misfit = -draws.log_likelihood.mean()
        divergence = (draws.log_posterior - draws.log_prior).mean()
        terms = {"reconstruction": misfit, "divergence": divergence}
        return Loss(misfit + weight * divergence, detached(terms))

    return objective


def free_bits_elbo(nats: NonNegative) -> Objective:
    """Return the mean negative ELBO in nats, with a divergence that is free up to a point.

    What each variable adds to the divergence, in the mean over the batch, counts as ``nats`` where
    it is less, so that it has no gradient there (Kingma et al., 2016,
    https://arxiv.org/abs/1606.04934, appendix C.8, equation 15). Where a model is evaluated the
    loss is the negative ELBO.

    Args:
        nats: What is free for each variable; 0.01 in VLAE, appendix A.
    """

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        log_likelihood, terms = cast(DrawsByVariable, model).draw_by_variable(x, generator)
        misfit, by_variable = -log_likelihood.mean(), whole_batch.mean(terms, [0])
        divergence = by_variable.sum()
        counted = by_variable.clamp_min(nats).sum() if model.training else divergence
        parts = {"reconstruction": misfit, "divergence": divergence}
        return Loss(misfit + counted, detached(parts))

    return objective


def reconstruction_error() -> Objective:
    """Return the mean squared error of an autoencoder, over pixels in [0, 1]."""

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        return Loss(F.mse_loss(cast(Reconstructs, model).reconstruct(x), x))

    return objective


def classification() -> Objective:
    """Return the mean of ``-log p(class | image)`` in nats, of rows that end with the class."""

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        classifier = cast(HasClassLogits, model)
        images, classes = without_classes(x, classifier.image_shape)
        return Loss(F.cross_entropy(classifier.class_logits(images), classes))

    return objective


def reverse_kl(target: str, *, data_root: Path) -> Objective:
    """Return a batch's estimate of KL(model | target) in nats, for a flow from noise to data.

    This is how normalizing flows are fitted that know the density of their own samples only
    (Rezende and Mohamed, 2015, section 6.1). Of the data only the number of examples is used.

    Args:
        target: Name of a data set whose exact density is known.
        data_root: Where data lies.
    """
    log_density = load(target, data_root, offline=True).log_density
    if log_density is None:
        raise DeclarationError(target, "has no known density", "use one of the toys that have")
    known: LogDensity = log_density

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        flow = cast(HasSampleWithLogProb, model)
        samples, log_q = flow.sample_with_log_prob(len(x), generator)
        return Loss(mean_over_batch(log_q - known(samples)))

    return objective


@dataclass(frozen=True)
class ObjectiveDeclaration:
    """An objective by name: how it is made, and what of a model it can train.

    Attributes:
        make: From the arguments of a recipe to the objective.
        needs: Capability or class that a model has to have.
        words: The same in words.
        loads_data: Whether it loads a further data set, and so is made with the data root too.
        check: Raises a :class:`DeclarationError` where these arguments need more of the model.
    """

    make: Callable[..., Objective]
    needs: type
    words: str
    loads_data: bool = False
    check: Callable[[ObjectiveSpec, nn.Module], object] | None = None


def _normalised_has_baseline(spec: ObjectiveSpec, model: nn.Module) -> None:
    if (estimator := spec.args.get("estimator")) in NORMALISED:
        baseline_of(cast(DiscreteVAE | StructuredPrediction, model), estimator)


def _several_samples_are_draws(spec: ObjectiveSpec, model: nn.Module) -> None:
    if spec.args.get("samples", 1) > 1 and not isinstance(model, HasPosteriorDraws):
        reason = f"with several samples needs draws, which {type(model).__name__} lacks"
        raise DeclarationError("objective 'elbo'", reason, "leave samples at 1")


OBJECTIVES: dict[str, ObjectiveDeclaration] = {
    "nll": ObjectiveDeclaration(negative_log_likelihood, HasLogProb, "a log density"),
    "rnode": ObjectiveDeclaration(regularised_likelihood, RegularisesDynamics, "continuous flows"),
    "flow-matching": ObjectiveDeclaration(
        flow_matching, HasVelocity, "a velocity: one continuous flow"
    ),
    "elbo": ObjectiveDeclaration(
        negative_elbo, HasElbo, "an evidence lower bound", check=_several_samples_are_draws
    ),
    "iwae": ObjectiveDeclaration(
        negative_importance_bound, HasPosteriorDraws, "draws from a posterior"
    ),
    "warmed-elbo": ObjectiveDeclaration(
        warmed_negative_elbo, HasPosteriorDraws, "draws from a posterior"
    ),
    "free-bits": ObjectiveDeclaration(
        free_bits_elbo,
        DrawsByVariable,
        "a divergence for each latent variable",
        check=lambda _, model: cast(DrawsByVariable, model).require_factors(),
    ),
    "discrete-elbo": ObjectiveDeclaration(
        negative_discrete_elbo,
        DiscreteVAE,
        "discrete latent variables",
        check=_normalised_has_baseline,
    ),
    "prediction": ObjectiveDeclaration(
        negative_prediction,
        StructuredPrediction,
        "structured prediction",
        check=_normalised_has_baseline,
    ),
    "reconstruction": ObjectiveDeclaration(reconstruction_error, Reconstructs, "reconstructions"),
    "classification": ObjectiveDeclaration(
        classification, HasClassLogits, "a classifier of images"
    ),
    "vq": ObjectiveDeclaration(vector_quantisation, QuantisesImages, "quantised latent variables"),
    "vq-likelihood": ObjectiveDeclaration(
        quantised_likelihood, LevelVQVAE, "codes with a likelihood of levels"
    ),
    "dvae": ObjectiveDeclaration(discrete_autoencoding, DVAE, "codes of images with a relaxation"),
    "text-and-image": ObjectiveDeclaration(
        text_and_image, JointTransformer, "a transformer over text and image"
    ),
    "adversarial": ObjectiveDeclaration(adversarial, AdversarialGame, "a discriminator"),
    "avb": ObjectiveDeclaration(adversarial_variational_bayes, AVB, "an adversarial posterior"),
    "reverse-kl": ObjectiveDeclaration(
        reverse_kl, HasSampleWithLogProb, "samples with their log density", loads_data=True
    ),
}


def require_fit(spec: ObjectiveSpec, model: nn.Module, data_root: Path | None = None) -> None:
    """Refuse an objective that cannot train a model, before anything is trained.

    Raises:
        DeclarationError: It is not known, has wrong arguments, or needs what the model lacks.
    """
    build_objective(spec, data_root)
    declared = OBJECTIVES[spec.name]
    if not isinstance(model, declared.needs):
        fitting = [name for name, other in OBJECTIVES.items() if isinstance(model, other.needs)]
        reason = f"needs {declared.words}, which {type(model).__name__} lacks"
        remedy = f"use {' or '.join(fitting)}" if fitting else "use another model"
        raise DeclarationError(f"objective {spec.name!r}", reason, remedy)
    if declared.check is not None:
        declared.check(spec, model)


def build_objective(spec: ObjectiveSpec, data_root: Path | None = None) -> Objective:
    """Return the objective a recipe names.

    Args:
        spec: Its name and arguments.
        data_root: Where data lies, for objectives that load some.

    Raises:
        DeclarationError: When no objective has that name, an argument does not fit, or it loads
            data and there is no data root.
    """
    require_choice("objective", spec.name, OBJECTIVES)
    declared, args = OBJECTIVES[spec.name], dict(spec.args)
    if declared.loads_data:
        if data_root is None:
            reason = "loads data, and there is no data root"
            raise DeclarationError(f"objective {spec.name!r}", reason, "give data_root")
        args["data_root"] = data_root
    try:
        return declared.make(**args)
    except TypeError as error:
        raise DeclarationError(f"objective {spec.name!r}", str(error), "mend its args") from error
