"""Recipes of variational autoencoders with discrete latent variables.

``jang`` and ``structured`` are Jang, Gu and Poole (ICLR 2017, sections 4.2 and 4.1), ``maddison``
Maddison, Mnih and Teh (ICLR 2017, section 5 and appendix C), with one stochastic layer;
``relaxation`` measures gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

OURS = "digits-binary"

#: Jang et al.: of their grids, in which the choice of each cell is not published.
LR, RATE, EVERY = 1e-3, 1e-4, 500
ANNEALED: dict[str, Any] = {"temperature": 1.0, "rate": RATE, "every": EVERY, "floor": 0.5}
#: On digits the temperature falls to 0.5 in 700 steps.
OUR_ANNEALED: dict[str, Any] = {**ANNEALED, "rate": 1e-3, "every": 50}
BASELINE = (100,)
#: Of a VAE by estimator; empty for a running mean alone, of which ``darn`` takes the deviation.
BASELINES: Mapping[str, tuple[int, ...]] = {"sf": BASELINE, "muprop": BASELINE, "darn": ()}
#: In structured prediction Gu et al. found no use for the network (section 5.1).
PREDICTION_BASELINES = {**BASELINES, "muprop": ()}

JANG_NOTES = (
    "learning rate 1e-3, r = 1e-4 and N = 500 are of the paper's grids, from which validation "
    "chose there; which it chose for a cell is not published",
    "batch size and length are not stated where the paper was read: batches of 100, until 50 "
    "epochs bring no better validation bound, at most 1,000",
    "negative-elbo is the bound of the discrete model from one sample; importance-nll the bound "
    "of 1,000 samples. The paper's table says variational bound, its text m = 1,000 and importance "
    "sampling, its formula averages logarithms, whose mean is that of one sample: which of them "
    "its numbers are is not clear",
)
CATEGORICAL_NOTE = "200 tanh units between latent variables and pixels: which kind is not stated"
SF_NOTE = (
    "baseline: a running mean and a network of the example with 100 tanh units, and variance "
    "normalisation, as NVIL; the paper says variance normalisation, and its baseline is not known "
    "here"
)
VARIANCE_NOTE = (
    "variance normalisation divides the gradient of the latent layers, with that of a divergence, "
    "by the running standard deviation, 1 at least, of "
)
EXPANSION_NOTES = {
    "darn": (
        "the estimator of Gregor et al. (2014) with 1/2, or 1/k for k classes, as Gu et al. (2016, "
        "section 4.2 and 5.2) have it: what Jang et al. took for k classes is not stated",
        VARIANCE_NOTE + "the log-likelihood: that of DARN's learning signal is not known here",
    ),
    "muprop": (
        "MuProp's baselines are those of Gu et al. (2016): a running mean, and for the VAE a "
        "network of the example with 100 tanh units; those of Jang et al. are not stated",
        VARIANCE_NOTE + "what the expansion leaves",
    ),
}
PRIOR_NOTES = {
    "uniform": "the prior is uniform, as in one text of the paper; in another it is learnt",
    "learnt": "the prior is learnt, as in one text of the paper; in another it is uniform",
}
MADDISON_NOTES = (
    "the prior is uniform; whether the paper trains its prior is not known here",
    "the last parameters are evaluated: the paper's rule of selection is not known here",
)

# ----------------------------------------------------------------------------- Jang et al.


def jang(
    data: str,
    estimator: str,
    classes: int,
    annealed: bool = False,
    prior: Literal["uniform", "learnt"] = "uniform",
) -> Recipe:
    """A VAE with 200 Bernoulli or 20 categorical latent variables (Jang et al., Table 1).

    Args:
        data: The column's data set.
        estimator: ``sf``, ``darn``, ``muprop``, ``st``, ``gumbel`` or ``st-gumbel``.
        classes: 2 for Bernoulli variables, 10 for categorical ones.
        annealed: Whether the temperature falls.
        prior: Of the divergence; texts of the paper differ.
    """
    ours = data == OURS
    schedule = (OUR_ANNEALED if ours else ANNEALED) if annealed else {}
    objective = {"estimator": estimator, **schedule}
    hidden = () if classes == 2 else (200,)
    model = _model(
        variables=200 if classes == 2 else 20,
        classes=classes,
        decoder_hidden=hidden,
        baseline_hidden=BASELINES.get(estimator),
    )
    if prior == "learnt":
        model = model.model_copy(update={"name": "discrete:LearntPriorDiscreteVAE"})
    spec = ObjectiveSpec(name="discrete-elbo", args=objective)
    stage = _our_stage(model, spec) if ours else _jang_stage(data, model, spec)
    notes: tuple[str, ...] = JANG_NOTES[2:] if ours else JANG_NOTES
    notes += (CATEGORICAL_NOTE,) if classes > 2 else ()
    notes += (PRIOR_NOTES[prior], *_signal_notes(estimator))
    name = f"{'annealed-' if estimator == 'st' and annealed else ''}{estimator}-{classes}"
    return Recipe(
        name=f"{name}{'-learnt-prior' if prior == 'learnt' else ''}/{data}",
        stages=(stage,),
        evaluation=_evaluation(1_000),
        cost=_cost(data, stage, steps=1_500 if ours else 250_000, tested=1_000),
        source=OWN_COLUMN if ours else "Jang et al., section 4",
        notes=notes,
    )


def structured(data: str, estimator: str, classes: int, annealed: bool = False) -> Recipe:
    """Two layers of 200 Bernoulli or 20 categorical variables from the upper half to the lower.

    The temperature is 1 (Jang et al., section 4.1 and Table 1), but for slope annealing.

    Args:
        data: The column's data set.
        estimator: ``sf``, ``darn``, ``muprop``, ``st``, ``gumbel`` or ``st-gumbel``.
        classes: 2 for Bernoulli variables, 10 for categorical ones.
        annealed: Whether the temperature falls.
    """
    ours = data == OURS
    schedule = (OUR_ANNEALED if ours else ANNEALED) if annealed else {}
    hidden = PREDICTION_BASELINES.get(estimator)
    args = {
        "variables": 200 if classes == 2 else 20,
        "classes": classes,
        "baseline_hidden": list(hidden) if hidden is not None else None,
    }
    model = ModelSpec(name="structured_prediction:StructuredPrediction", args=args)
    spec = ObjectiveSpec(name="prediction", args={"estimator": estimator, **schedule})
    stage = _our_stage(model, spec) if ours else _jang_stage(data, model, spec)
    kind = f"{'annealed-' if annealed else ''}{estimator}-{classes}"
    return Recipe(
        name=f"structured-{kind}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=("prediction",), importance_samples=1_000),
        cost=_structured_cost(data, stage, steps=1_500 if ours else 250_000, tested=1_000),
        source=OWN_COLUMN if ours else "Jang et al., section 4",
        notes=() if ours else JANG_NOTES[:2] + _signal_notes(estimator),
    )


def _signal_notes(estimator: str) -> tuple[str, ...]:
    return (SF_NOTE,) if estimator == "sf" else EXPANSION_NOTES.get(estimator, ())


def _jang_stage(data: str, model: ModelSpec, objective: ObjectiveSpec) -> Stage:
    return Stage(
        data=DataSpec(name=data),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(name="sgd-momentum", lr=LR, betas=(0.9, 0.999)),
        batch_size=100,
        stopping=StoppingSpec(patience=50, max_epochs=1_000),
    )


# ----------------------------------------------------------------------------- Maddison et al.


def maddison(data: str, estimator: str, nonlinear: bool, samples: int) -> Recipe:
    """One layer of 200 binary variables (Maddison et al., Table 1).

    Args:
        data: The column's data set.
        estimator: ``concrete``, ``vimco``, or for the one sample that VIMCO cannot have ``sf``.
        nonlinear: Whether both networks have two layers of 200 tanh units.
        samples: Of the bound that is trained.
    """
    ours, hidden = data == OURS, (200, 200) if nonlinear else ()
    objective: dict[str, Any] = {"estimator": estimator, "samples": samples}
    if estimator == "concrete":
        objective |= {"temperature": 2 / 3, "prior_temperature": 1 / 2}
    model = _model(
        variables=200,
        classes=2,
        encoder_hidden=hidden,
        decoder_hidden=hidden,
        centred=True,
        baseline_hidden=BASELINE if estimator == "sf" else None,
    )
    lr = 1e-4 if nonlinear else 3e-4
    stage = (
        _our_stage(model, ObjectiveSpec(name="discrete-elbo", args=objective), max_steps=1_500)
        if ours
        else _maddison_stage(data, model, objective, lr)
    )
    tested = 1_000 if ours else 50_000
    return Recipe(
        name=f"{estimator}-{samples}-{'nonlinear' if nonlinear else 'linear'}/{data}",
        stages=(stage,),
        evaluation=_evaluation(tested, checkpoint="best" if ours else "last"),
        cost=_cost(data, stage, steps=1_500 if ours else 10_000_000, tested=tested),
        source=OWN_COLUMN if ours else "Maddison et al., appendix C",
        notes=MADDISON_NOTES[: 1 if ours else 2] + ((SF_NOTE,) if estimator == "sf" else ()),
    )


def _maddison_stage(data: str, model: ModelSpec, objective: dict[str, Any], lr: float) -> Stage:
    return Stage(
        data=DataSpec(name=data),
        model=model,
        objective=ObjectiveSpec(name="discrete-elbo", args=objective),
        optimizer=OptimizerSpec(lr=lr),
        batch_size=64,
        validation=ValidationSpec(every=10),
        stopping=StoppingSpec(max_steps=10_000_000),
    )


# ----------------------------------------------------------------------------- gradients


def relaxation(data: str, estimator: str) -> Recipe:
    """Errors of an estimator's gradient in a briefly trained categorical VAE, by temperature."""
    model = _model(variables=20, classes=10, decoder_hidden=(200,), baseline_hidden=None)
    spec = ObjectiveSpec(name="discrete-elbo", args={"estimator": "gumbel", **OUR_ANNEALED})
    stage = _our_stage(model, spec, max_steps=500, patience=None)
    stage = stage.model_copy(update={"data": DataSpec(name=data)})
    return Recipe(
        name=f"relaxation-{estimator}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=(f"relaxation-{estimator}",), checkpoint="last"),
        cost=_cost(data, stage, steps=500, tested=5_000),
        source=OWN_COLUMN,
    )


# ----------------------------------------------------------------------------- shared


def _model(
    *,
    variables: int,
    classes: int,
    decoder_hidden: tuple[int, ...],
    baseline_hidden: tuple[int, ...] | None,
    encoder_hidden: tuple[int, ...] = (),
    centred: bool = False,
) -> ModelSpec:
    args = {
        "variables": variables,
        "classes": classes,
        "encoder_hidden": list(encoder_hidden),
        "decoder_hidden": list(decoder_hidden),
        "centred": centred,
        "baseline_hidden": list(baseline_hidden) if baseline_hidden is not None else None,
    }
    return ModelSpec(name="discrete:DiscreteVAE", args=args)


def _our_stage(
    model: ModelSpec,
    objective: ObjectiveSpec,
    max_steps: int = 3_000,
    patience: int | None = 4,
) -> Stage:
    """Return a stage that trains to about convergence on 8x8 digits within half a minute."""
    return Stage(
        data=DataSpec(name=OURS),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(lr=1e-3),
        batch_size=64,
        validation=ValidationSpec(every=100, unit="steps"),
        stopping=StoppingSpec(patience=patience, max_steps=max_steps),
    )


def _evaluation(samples: int, checkpoint: Literal["best", "last"] = "best") -> EvaluationSpec:
    return EvaluationSpec(
        metrics=("elbo", "importance"), checkpoint=checkpoint, importance_samples=samples
    )


# ----------------------------------------------------------------------------- cost

#: Tensor operations of a training step, and numbers that it keeps for each pixel of a sample.
LAUNCHES, KEPT = 120, 20


def _cost(data: str, stage: Stage, *, steps: int, tested: int) -> Cost:
    """Count encoder and decoder in training, and the decoder for each sample in the evaluation."""
    known, args = card(data), stage.model.args
    latent = args["variables"] * (1 if args["classes"] == 2 else args["classes"])
    encoder = costs.weights([known.dim, *args["encoder_hidden"], latent])
    decoder = costs.weights([latent, *args["decoder_hidden"], known.dim])
    samples = stage.objective.args.get("samples", 1)
    kept = KEPT * stage.batch_size * samples * known.dim
    return Cost(
        steps=steps,
        flops_per_step=costs.TRAINING * stage.batch_size * (encoder + samples * decoder),
        launches_per_step=LAUNCHES,
        evaluation_flops=costs.PASS * decoder * tested * known.sizes["test"],
        memory_bytes=costs.memory(data, encoder + decoder, kept),
    )


def _structured_cost(data: str, stage: Stage, *, steps: int, tested: int) -> Cost:
    """Count the three layers, each for every sample."""
    known, args = card(data), stage.model.args
    width = args["variables"] * (1 if args["classes"] == 2 else args["classes"])
    products = costs.weights([known.dim // 2, width, width, known.dim // 2])
    return Cost(
        steps=steps,
        flops_per_step=costs.TRAINING * stage.batch_size * products,
        launches_per_step=LAUNCHES,
        evaluation_flops=costs.PASS * products * tested * known.sizes["test"],
        memory_bytes=costs.memory(data, products, KEPT * stage.batch_size * known.dim),
    )
