"""The declarations: papers, tables, cells and recipes, as frozen, typed, hashed data.

Nothing here imports torch: ``list``, ``plan`` and ``table`` read declarations only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from dgm_bench.annotations import Finite, Fraction, NonNegative, Positive, Steps, StepsFrom0
from dgm_bench.errors import DeclarationError
from dgm_bench.spec_base import Args
from dgm_bench.spec_base import Spec as Spec

#: Which way is better; ``none`` for what is neither, such as a mutual information.
Direction = Literal["lower", "higher", "none"]
Split = Literal["train", "val", "test"]
#: What becomes of the examples that do not fill an epoch's last batch; see ``train/sampler.py``.
LastBatch = Literal["drop", "use", "wrap", "cycle"]
PmKind = Literal["sd_runs", "two_se_test", "none", "unknown"]

#: Unit of columns that hold a property: 1 where a model has it, 0 where it has not.
YES_NO = "yes = 1"


# --------------------------------------------------------------------------- recipes


class ModelSpec(Spec):
    """Which model: ``name`` is ``module:Class`` below ``dgm_bench.models``.

    ``revision`` counts the states of its code that give different numbers with the same arguments;
    :mod:`dgm_bench.models.revisions` sets it.
    """

    name: str
    args: Args = Field(default={})
    revision: Steps = 1


class DataSpec(Spec):
    """Which data set, by its name in ``dgm_bench.data``, and the options of its loader.

    With ``codes_of`` the data are the codes that the model of the first stage, which it names,
    gives the images. With ``with_classes`` batches of training are rows of an image and its class.
    """

    name: str
    args: Args = Field(default={})
    codes_of: str | None = None
    with_classes: bool = False


class ObjectiveSpec(Spec):
    """The training loss, by its name in ``dgm_bench.train.objectives``."""

    name: str = "nll"
    args: Args = Field(default={})


class OptimizerSpec(Spec):
    """The optimiser, by its name in ``dgm_bench.train.optimizers``.

    ``weight_decay`` is what is applied: as an L2 term of the gradient, by ``adamw`` apart from it.
    ``requested_weight_decay``
    records a value that the original code asked for and never applied (protocols 8.1, item 1).
    """

    name: str = "adam"
    lr: NonNegative
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    requested_weight_decay: Finite | None = None


class ScheduleSpec(Spec):
    """Learning rate over time.

    Each entry of ``drops`` multiplies the rate by ``factor``, once, when the number of
    validations without improvement first exceeds it; each of ``milestones`` does so at its step.
    ``warmup_steps`` ramps the rate up linearly; ``cosine_steps`` lets it fall along half a cosine
    to ``cosine_floor`` times the rate, where it stays. ``decay`` multiplies the rate at every step.
    """

    drops: tuple[StepsFrom0, ...] = ()
    factor: Positive = 0.1
    warmup_steps: StepsFrom0 = 0
    milestones: tuple[StepsFrom0, ...] = ()
    cosine_steps: Steps | None = None
    cosine_floor: NonNegative = Field(default=0.0, le=1)
    decay: Positive = Field(default=1.0, le=1)


class ValidationSpec(Spec):
    """When and how the validation metric is taken. ``trace`` matters to continuous flows only."""

    every: Steps = 1
    unit: Literal["epochs", "steps"] = "epochs"
    trace: Literal["exact", "estimate"] = "exact"
    batch_size: Steps = 10_000


class StoppingSpec(Spec):
    """Stop after more than ``patience`` bad validations, or at a maximum; the best is restored.

    Bad validations before ``patience_from`` (in epochs) do not count.
    """

    patience: StepsFrom0 | None = None
    patience_from: StepsFrom0 = 0
    max_epochs: StepsFrom0 | None = None
    max_steps: StepsFrom0 | None = None


class Stage(Spec):
    """One training stage: data, model, objective and the rules of the loop.

    ``precision`` is that of weights and data. ``bfloat16`` is mixed: both stay in float32, and
    matrix products and convolutions of training and validation compute in bfloat16; the
    evaluation does not. ``discriminator`` gives that player of a game a learning rate, betas and
    weight decay of its own; ``optimizer`` is then the generator's.
    """

    name: str = Field(default="train", pattern=r"^[a-z0-9][a-z0-9-]*$")
    data: DataSpec
    model: ModelSpec
    objective: ObjectiveSpec = ObjectiveSpec.model_construct()
    optimizer: OptimizerSpec
    discriminator: OptimizerSpec | None = None
    schedule: ScheduleSpec = ScheduleSpec.model_construct()
    batch_size: Steps
    validation: ValidationSpec = ValidationSpec.model_construct()
    stopping: StoppingSpec
    average_decay: Fraction | None = None
    clip_norm: Positive | None = None
    last_batch: LastBatch = "drop"
    precision: Literal["float32", "float64", "bfloat16"] = "float32"


class ImageEvaluationSpec(Spec):
    """How drawn images are evaluated against real ones.

    ``samples`` images are drawn. The first ``compared`` of them, or all, are compared with
    ``reference`` of the training set, evenly spaced, or all, by the ``features`` of ``classifier``
    (trained on the training set by this project), ``inception-v3-compat`` or ``vgg16`` (weights of
    others). ``neighbours`` is the k of precision and recall. Rejection draws as many more as it
    takes to keep the fraction ``keep`` of which the classifier is surest. ``score`` says whether a
    classifier is trained on the images, to be tested on real ones. As many images are drawn and
    scored again at each of ``truncations`` of the model's noise.
    """

    samples: Steps = Field(ge=2)
    compared: Steps | None = Field(default=None, ge=2)
    reference: Steps | None = Field(default=None, ge=2)
    features: tuple[str, ...] = ("classifier",)
    neighbours: Steps = 3
    keep: Positive | None = Field(default=None, lt=1)
    isc_splits: Steps = 10
    kid_subsets: Steps = 100
    kid_subset_size: Steps = Field(default=1000, ge=2)
    score: Annotated[bool, Field(strict=True)] = True
    truncations: tuple[NonNegative, ...] = ()

    @property
    def drawn(self) -> int:
        """How many images are drawn: with rejection, more than are kept."""
        return math.ceil(self.samples / (self.keep or 1.0))

    @property
    def needs_classifier(self) -> bool:
        """Whether a classifier of the data set gives features, or rejects."""
        return "classifier" in self.features or self.keep is not None

    @property
    def weights(self) -> tuple[str, ...]:
        """The networks whose weights are others'."""
        return tuple(name for name in self.features if name != "classifier")


class EvaluationSpec(Spec):
    """What is measured at the end, on which split, with which checkpoint and protocol.

    The importance-weighted bound takes ``importance_samples`` draws for each of the first
    ``importance_examples`` of the split, or of all.
    """

    metrics: tuple[str, ...] = Field(default=("nll",), min_length=1)
    split: Split = "test"
    checkpoint: Literal["best", "last"] = "best"
    trace: Literal["exact", "estimate"] = "exact"
    batch_size: Steps = 10_000
    model_overrides: Args = Field(default={})
    importance_samples: Steps | None = None
    importance_examples: Steps | None = None
    judge: ImageEvaluationSpec | None = None


class Cost(Spec):
    """What a run is expected to take, for the planner; not part of a recipe's identity.

    ``launches`` counts tensor operations in a step, which dominate small models. Of several stages
    each gets the share of the time that ``stage_shares`` gives it, or the same. ``weights`` are
    those of the largest model that is trained; 0 where nobody counted.
    """

    steps: int
    flops_per_step: float
    launches_per_step: float
    evaluation_flops: float = 0.0
    memory_bytes: int = 0
    stage_shares: tuple[float, ...] = ()
    weights: int = 0


class Recipe(Spec):
    """All that decides a run's numbers except the seed: stages and an evaluation protocol."""

    name: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    evaluation: EvaluationSpec = EvaluationSpec.model_construct()
    cost: Cost | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """Each stage's share of the work, as the cost declares it or the same for all; sum to 1.

        Raises:
            DeclarationError: There is not one above zero for each stage.
        """
        declared = self.cost.stage_shares if self.cost is not None else ()
        if declared and (len(declared) != len(self.stages) or min(declared) <= 0):
            reason = f"are {declared} for {len(self.stages)} stages"
            raise DeclarationError("cost.stage_shares", reason, "give one above 0 for each stage")
        shares = declared or (1.0,) * len(self.stages)
        return tuple(share / sum(shares) for share in shares)

    @property
    def fitted(self) -> bool:
        """Whether nothing is trained, not even a classifier that judges: seeds change noise alone.

        A model that takes no step has nothing random in it, as a test checks of all recipes.
        """
        stops = (stage.stopping for stage in self.stages)
        return self.evaluation.judge is None and all(stop.max_steps == 0 for stop in stops)

    @property
    def revisions(self) -> tuple[int, ...]:
        """The revision of each stage's model."""
        return tuple(stage.model.revision for stage in self.stages)

    @property
    def unrevised(self) -> Recipe:
        """The recipe as it would be if the code of its models had never changed."""
        return self.with_revisions([1] * len(self.stages))

    def differs_by_revisions(self, other: Recipe) -> bool:
        """Whether both decide the same numbers but for the revisions of their models.

        As their hashes would say of both without revisions; this takes no serializer, which is
        slow to make.
        """
        if len(self.stages) != len(other.stages):
            return False
        ours, theirs = (
            json.dumps(_plain((recipe.stages, recipe.evaluation)), sort_keys=True)
            for recipe in (self, other.with_revisions(self.revisions))
        )
        return ours == theirs

    def with_revisions(self, revisions: Iterable[int]) -> Recipe:
        """Return the recipe with these revisions, one for each stage's model."""
        stages = tuple(
            stage.model_copy(
                update={"model": stage.model.model_copy(update={"revision": revision})}
            )
            for stage, revision in zip(self.stages, revisions, strict=True)
        )
        return self.model_copy(update={"stages": stages})

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything that can change a number (not the name, cost, source or notes).

        Values that equal their defaults are left out, so that a new option leaves the hashes of
        stored records alone; the default of an option must therefore never change.
        """
        body = self.model_dump(mode="json", include={"stages", "evaluation"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    """Return the values of a declaration, without the names of its fields."""
    if isinstance(value, Spec):
        return [_plain(getattr(value, name)) for name in type(value).model_fields]
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


# --------------------------------------------------------------------------- papers


class Source(Spec):
    """Where published numbers stand, and what their error bars and selection mean there.

    ``url`` leads to the publication that is cited or, where that was never published, to the one
    that ``where`` names. ``cites`` are keys of
    ``references.bib``, or of the paper's own BibTeX: first the work whose number it is, then
    the one that quotes it.
    """

    id: str
    citation: str
    cites: tuple[str, ...] = ()
    where: str
    url: str = ""
    pm_kind: PmKind
    pm_n: int | None = None
    selection: str
    note: str = ""


class Published(Spec):
    """A published number with its meaning. ``value`` keeps the printed digits."""

    value: Decimal
    pm: Decimal | None = None
    pm_kind: PmKind
    pm_n: int | None = None
    selection: str
    source: str
    model: str = ""
    note: str = ""

    @property
    def resolution(self) -> float:
        """Half a unit of the last printed digit."""
        exponent = self.value.as_tuple().exponent
        return 0.5 * 10.0 ** int(exponent)


class Erratum(Spec):
    """A published error, with the cells it touches and what the number ought to be read as."""

    id: str
    cells: tuple[str, ...]
    text: str
    source: str


class Column(Spec):
    """A column: a data set and the metric in which its cells are printed.

    ``args`` are given to the recipes of its cells, after those of the row: columns of the same data
    may differ in the model. ``beside`` names a published column of the same distribution,
    ``ranks_like`` one of other data whose ranking of the rows ought to show again. ``split`` is
    what the metric is of, where that is not the split of the recipe's evaluation.
    """

    id: str
    title: str
    data: str
    metric: str
    unit: str
    direction: Direction
    split: Split | None = None
    published: bool = True
    args: dict[str, Any] = Field(default={})
    beside: str | None = None
    ranks_like: str | None = None
    note: str = ""


class Row(Spec):
    """A row: a model. ``recipe`` names a function of the paper's ``recipes.py``.

    ``published`` is False for rows that the paper's own table does not have, and ``no_recipe``
    says why a row has no recipe. Rows of one recipe are one run: ``reads`` then begins the name of
    every metric that the row shows of it, as in ``reconstruction-``.
    """

    id: str
    title: str
    published: bool = True
    recipe: str | None = None
    args: dict[str, Any] = Field(default={})
    reads: str = ""
    no_recipe: str = ""
    note: str = ""


class Cell(Spec):
    """One number of one table: published value with its meaning, and the recipe behind it.

    ``same_as`` names the row whose recipe reproduces this cell: a published row that mixes models.
    ``no_recipe`` says why there is no recipe. ``modified`` is empty in every declaration: it names
    the ``--set`` changes of a recipe that is to be run.
    """

    paper: str
    table: str
    row: Row
    column: Column
    published: Published | None = None
    recipe: Recipe | None = None
    same_as: str | None = None
    no_recipe: str = ""
    errata: tuple[Erratum, ...] = ()
    priority: int = 0
    modified: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``paper/table/row/column``."""
        return f"{self.paper}/{self.table}/{self.row.id}/{self.column.id}"

    @property
    def metric(self) -> str:
        """The metric of a run that it shows: the column's, as the row reads it."""
        return f"{self.row.reads}{self.column.metric}"

    @property
    def repeats(self) -> bool:
        """Whether it only shows another row's run again; tables then leave it out."""
        return self.same_as is not None and self.published is None


class Claim(Spec):
    """What a paper says of two of its rows without numbers, to be judged on columns of ours.

    In each of ``columns`` the value of ``row`` is ``higher`` or ``lower`` than that of ``than``.
    With ``at_equal``, an ending of metrics' names such as ``precision``, both are taken along the
    curves of their thresholds, where that metric is the same. ``where`` says where the paper says
    so, and ``title`` what.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    where: str
    row: str
    relation: Literal["higher", "lower"]
    than: str
    columns: tuple[str, ...] = Field(min_length=1)
    at_equal: str = ""


class Table(Spec):
    """A table of a paper: rows, columns, the cells that exist, and what is claimed of the rows."""

    paper: str
    id: str
    title: str
    where: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...] = ()

    @property
    def name(self) -> str:
        """``paper/table``, the name on the command line."""
        return f"{self.paper}/{self.id}"


class Citation(Spec):
    """A paper's id and how it is cited."""

    id: str
    title: str
    authors: str
    year: int
    url: str
    bibtex: str


class Paper(Citation):
    """A paper: citation, sources, tables and errata."""

    sources: tuple[Source, ...]
    tables: tuple[Table, ...]
    errata: tuple[Erratum, ...] = ()
