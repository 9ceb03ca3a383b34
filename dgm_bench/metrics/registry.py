"""The declarations of metrics: what each measures, and what it needs for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.records import Metric

Measure = Callable[[Evaluation], list[Metric]]
#: Raises a :class:`DeclarationError` or :class:`DataError` where a metric cannot be measured. The
#: model may be untrained.
Check = Callable[[Evaluation], None]


@dataclass(frozen=True)
class MetricDeclaration:
    """A group of numbers that are measured together, under the name that recipes give it.

    Attributes:
        name: As in ``EvaluationSpec.metrics``.
        measure: Returns the numbers.
        needs: Class or protocol that the model has to be an instance of.
        words: What that is, in words.
        check: Refuses what else is missing, before anything is trained; or None.
    """

    name: str
    measure: Measure
    needs: type = nn.Module
    words: str = ""
    check: Check | None = None

    def require_fit(self, evaluation: Evaluation) -> None:
        """Refuse a model, data or options that the metric cannot be measured with.

        Raises:
            DeclarationError: The model lacks what the metric needs, or as ``check`` says.
            DataError: As ``check`` says.
        """
        if not isinstance(evaluation.model, self.needs):
            reason = f"needs {self.words}, which {type(evaluation.model).__name__} lacks"
            raise DeclarationError(f"metric {self.name!r}", reason, "measure something else of it")
        if self.check is not None:
            self.check(evaluation)


class MetricRegistry:
    """Metric declarations by name."""

    def __init__(self) -> None:
        self._declarations: dict[str, MetricDeclaration] = {}

    def __iter__(self) -> Iterator[MetricDeclaration]:
        return iter(tuple(self._declarations.values()))

    def __getitem__(self, name: str) -> MetricDeclaration:
        require_choice("metric", name, sorted(self._declarations))
        return self._declarations[name]

    def add(self, declaration: MetricDeclaration) -> None:
        """Make a metric known.

        Raises:
            DeclarationError: Another metric has the name.
        """
        if declaration.name in self._declarations:
            thing = f"metric {declaration.name!r}"
            raise DeclarationError(thing, "is declared twice", "give each metric its own name")
        self._declarations[declaration.name] = declaration

    def remove(self, name: str) -> None:
        """Forget a metric."""
        del self._declarations[name]


#: All metrics; :mod:`dgm_bench.metrics.evaluate` imports the files that declare them.
METRICS = MetricRegistry()


def metric(
    name: str, *, needs: type = nn.Module, words: str = "", check: Check | None = None
) -> Callable[[Measure], Measure]:
    """Return a decorator that declares a function as a metric; see :class:`MetricDeclaration`."""

    def declare(measure: Measure) -> Measure:
        METRICS.add(MetricDeclaration(name, measure, needs, words, check))
        return measure

    return declare
