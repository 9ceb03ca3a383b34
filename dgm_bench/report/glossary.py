"""What the metrics of tables are, in words."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from dgm_bench.spec import YES_NO, Cell, Direction

#: By shell patterns of their names; the first that fits counts.
METRICS: Mapping[str, str] = {
    "nll": "negative log-likelihood of an example, mean over the split",
    "nll-quadrature": "negative log-likelihood, by an integral over the latent variables",
    "importance-nll": "negative log-likelihood by the importance-weighted bound{samples}",
    "negative-elbo": "negative evidence lower bound, one draw of the posterior an example",
    "negative-elbo-true": "negative evidence lower bound by the true divergence of the posterior",
    "posterior-gap": "divergence of the posterior from the model's own",
    "discriminator-error": "divergence by the discriminator minus the true one",
    "active-units-*": "latent variables of a layer whose posterior mean varies between examples",
    "prediction-mean": "negative log-likelihood of the hidden half, mean over draws{samples}",
    "prediction-nll": "negative log-likelihood of the hidden half, by the bound of draws{samples}",
    "reconstruction-train": "reconstruction term of the negative ELBO, on the training set",
    "mutual-information": "mutual information of example and latent variables (ELBO surgery)",
    "marginal-kl": "divergence of the aggregated posterior from the prior (ELBO surgery)",
    "surgery-residual": "what the parts of ELBO surgery leave of the negative ELBO: zero but noise",
    "reconstruction-mse": "squared error of reconstructions",
    "prior-nll-*": "negative log-likelihood of codes by the prior",
    "cas-top1": "accuracy on real images of a classifier trained on drawn ones",
    "cas-top5": "real images whose class is among the five first of a classifier of drawn ones",
    "*-fid": "Fréchet distance between features of drawn and real images",
    "*-kid": "kernel distance between features of drawn and real images",
    "*-isc": "Inception score of drawn images",
    "*-precision": "share of drawn images that lie among the real ones, by features",
    "*-recall": "share of real images that lie among the drawn ones, by features",
    "*-copying": "whether drawn images are nearer to training images than held-out ones are",
    "text-nll*": "negative log-likelihood of a caption",
    "image-nll*": "negative log-likelihood of the codes of an image given its caption",
    "*-accuracy*": "share of drawn images that are what their caption says",
    "test-error*": "share of test images whose most probable class is wrong",
    "class-nll": "negative log-likelihood of an image's class",
    "parameters": "numbers that are trained",
    "gradient-memory*": "memory that is held for the backward pass of some images",
    "gradient-seconds": "time of the loss of some images and its gradient",
    "forward-evaluations*": "evaluations of the dynamics on the way to the loss of some images",
    "backward-evaluations": "evaluations of the dynamics on the way back to the gradient",
    "trains-on-data": "whether examples train the model by their likelihood, or a bound of it",
    "one-pass-sampling": "whether an example is drawn in one pass through the network",
    "exact-log-likelihood": "whether a log-likelihood is exact",
    "free-form-jacobian": "whether a network is free of the forms that make determinants cheap",
    "gradient-error-*": "error of the adjoint method's gradient at a tolerance of the solver",
    "linear-error-*": "the same where the dynamics are linear and the gradient is known",
    "discrete-error-*": "error of the gradient through the solver's steps at a tolerance",
    "backward-memory-*": "memory of the backward pass at a tolerance of the solver",
    "time-ratio-*": "time of the gradient at a tolerance of the solver",
    "output-difference-*": "difference of a model's outputs between two solvers",
    "solver-difference-*": "difference of gradients between two solvers",
    "adjoint-difference-*": "difference of gradients, adjoint method and backpropagation",
    "squared-bias-*": "squared bias of a gradient's estimate, at a temperature",
    "variance-*": "variance of a gradient's estimate, at a temperature",
}
_DIRECTIONS: Mapping[Direction, str] = {
    "lower": "lower is better",
    "higher": "higher is better",
    "none": "neither direction is better",
}


def metric_in_words(cell: Cell) -> str:
    """Return what a cell's metric is, its unit, and which way is better."""
    name = cell.column.metric
    words = next((text for known, text in METRICS.items() if fnmatchcase(name, known)), name)
    evaluation = cell.recipe.evaluation if cell.recipe else None
    samples = evaluation.importance_samples if evaluation else None
    words = words.format(samples=f" of {samples:,} draws" if samples else "")
    of = f"of {cell.row.reads.strip('-')}: " if cell.row.reads else ""
    unit = "yes or no" if cell.column.unit == YES_NO else f"in {cell.column.unit}"
    return f"{of}{words}, {unit}; {_DIRECTIONS[cell.column.direction]}"
