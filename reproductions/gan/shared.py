"""What the recipes of all games share: settings of data sets, stages, evaluation and costs."""

from __future__ import annotations

from typing import NamedTuple

from dgm_bench import costs
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ImageEvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

from ..vqvae2.ours import SOURCE as CHOSEN
from ..vqvae2.ours import TUNED as TUNED
from ..vqvae2.ours import image_evaluation_of
from ..vqvae2.shared import classifier_flops, memory_of, named

SOURCE = CHOSEN
#: Images that are drawn at a time.
DRAWN = 500


class Rule(NamedTuple):
    """How a game is trained.

    Attributes:
        updates: Of the generator.
        discriminator_steps: Before each of them; None where both move at once.
        batch_size: Images of a step.
        lr: Of the generator.
        discriminator_lr: Of the discriminator.
        betas: Of both.
        average: What the average of weights keeps at each update of the generator; None for none.
    """

    updates: int
    discriminator_steps: int | None
    batch_size: int
    lr: float
    discriminator_lr: float
    betas: tuple[float, float]
    average: float | None

    @property
    def cycle(self) -> int:
        """Steps of the loop for an update of the generator: each is one player's, or of both."""
        return (self.discriminator_steps or 0) + 1

    @property
    def steps(self) -> int:
        """Steps of the loop."""
        return self.updates * self.cycle


def stage(
    data: str,
    model: ModelSpec,
    rule: Rule,
    loss: dict[str, object],
    *,
    conditional: bool,
    drawn: int = DRAWN,
) -> Stage:
    """Return the stage that trains a game; its generator is validated twenty times.

    Args:
        data: Name of the data set.
        model: The game.
        rule: How it is trained.
        loss: Arguments of the objective, but for the discriminator's steps.
        conditional: Whether both players are told the classes.
        drawn: Images that are drawn at a time.
    """
    objective = {**loss, "discriminator_steps": rule.discriminator_steps}
    return Stage(
        data=DataSpec(name=data, with_classes=conditional),
        model=model,
        objective=ObjectiveSpec(name="adversarial", args=objective),
        optimizer=OptimizerSpec(lr=rule.lr, betas=rule.betas),
        discriminator=OptimizerSpec(lr=rule.discriminator_lr, betas=rule.betas),
        batch_size=rule.batch_size,
        validation=ValidationSpec(every=rule.steps // 20, unit="steps", batch_size=drawn),
        stopping=StoppingSpec(max_steps=rule.steps),
        # The average takes the parameters in at every step, whoever moved.
        average_decay=None if rule.average is None else rule.average ** (1 / rule.cycle),
    )


#: Where the noise of the evaluated images is truncated, besides nowhere; chosen within the range of
#: BigGAN's curves (section 3.1), from 2 down.
TRUNCATIONS = (1.5, 1.0, 0.75, 0.5, 0.25)


def image_evaluation(
    data: str, features: str = "classifier", truncations: tuple[float, ...] = TRUNCATIONS
) -> ImageEvaluationSpec:
    """Return how images are evaluated: as VQ-VAE-2's are, with truncation in place of rejection.

    Args:
        data: Name of the data set.
        features: Those by which images are compared.
        truncations: As the model takes them.
    """
    images = image_evaluation_of(data, features, keep=False)
    return images.model_copy(update={"truncations": truncations})


class Size(NamedTuple):
    """What a game computes, for its costs.

    Attributes:
        generator: Products of one pass of the generator for an image.
        discriminator: Products of one pass of the discriminator for an image.
        weights: Of both.
        kept: Numbers that training keeps for an image.
        launches: Tensor operations of a step.
    """

    generator: float
    discriminator: float
    weights: int
    kept: int
    launches: int = 400


def recipe(
    data: str,
    name: str,
    train: Stage,
    size: Size,
    images: ImageEvaluationSpec,
    notes: tuple[str, ...],
    source: str = SOURCE,
) -> Recipe:
    """Return the recipe of a game: its last parameters, averaged where it has an average."""
    return Recipe(
        name=named(name, data, images),
        stages=(train,),
        evaluation=EvaluationSpec(
            metrics=("samples",),
            checkpoint="last",
            batch_size=train.validation.batch_size,
            judge=images,
        ),
        cost=_cost(data, train, size, images),
        source=source,
        notes=notes,
    )


#: Trainings of the discriminator on as many images that gradients at these take.
PENALTIES = {"gradient_penalty": 2.0, "r1": 1.0}


def _cost(data: str, train: Stage, size: Size, images: ImageEvaluationSpec) -> Cost:
    """Count a cycle: the discriminator sees data and samples, the generator both networks."""
    args, drawn = train.objective.args, costs.PASS * size.generator
    seen = 2 + sum(more for name, more in PENALTIES.items() if args.get(name))
    of_discriminator = drawn + costs.TRAINING * seen * size.discriminator
    of_generator = costs.TRAINING * (size.generator + size.discriminator)
    sets = 1 + len(images.truncations)
    if (steps := args["discriminator_steps"]) is None:
        mean = of_discriminator + of_generator - drawn
    else:
        mean = (steps * of_discriminator + of_generator) / (steps + 1)
    return Cost(
        steps=train.stopping.max_steps or 0,
        flops_per_step=train.batch_size * mean,
        launches_per_step=size.launches,
        evaluation_flops=sets
        * (costs.PASS * images.drawn * size.generator + classifier_flops(data, images.samples)),
        memory_bytes=memory_of(data)
        + costs.NUMBER_BYTES
        * (costs.NUMBERS_PER_WEIGHT * size.weights + train.batch_size * size.kept),
        weights=size.weights,
    )
