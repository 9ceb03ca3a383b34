"""Words that must be the same everywhere: what ± means, the states of cells, their marks.

Lists, tables, pages, figures and verdicts take their words from here, and nothing else writes
the character ±.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dgm_bench.spec import Cell, PmKind, Published

PLUS_MINUS = "±"

# --------------------------------------------------------------------------- numbers


def with_error(value: float, error: float | None, decimals: int = 2) -> str:
    """Return ``value ± error`` with that many decimals, up to 4 where the error is smaller.

    A value that would be rounded to zero, and is larger than its error, is given as a power of
    ten. An error of the size of rounding counts as zero: equal runs have equal numbers.

    Args:
        value: What was measured.
        error: What :func:`~dgm_bench.measured.error_bar` gives; None where it is not known.
        decimals: As many as the published number has.
    """
    if error is not None and error < 1e-14 * abs(value):
        error = 0.0
    if (error or 0.0) < abs(value) < 0.5 * 10.0**-decimals:
        return f"{value:.1e}" + _error(None if error is None else f"{error:.1e}" if error else "0")
    if error:
        decimals = min(max(decimals, math.ceil(-math.log10(error))), 4)
    return f"{value:.{decimals}f}" + _error(None if error is None else f"{error:.{decimals}f}")


def decimals_of(published: Published | None) -> int:
    """Return as many decimals as a published number has, else two."""
    return max(-int(published.value.as_tuple().exponent), 0) if published else 2


def printed_alike(one: float, other: float, error: float | None, decimals: int = 2) -> bool:
    """Return whether two numbers are the same as they are printed: no difference can be seen.

    Args:
        one: A number.
        other: Another.
        error: The smaller of their errors, which decides on the decimals; None if not known.
        decimals: As for :func:`with_error`.
    """
    texts = (with_error(number, error, decimals) for number in (one, other))
    return len({float(text.partition(" ")[0]) for text in texts}) == 1


def as_printed(published: Published) -> str:
    """Return a published number with its ±, in the digits of its source."""
    return f"{published.value}" + _error(None if published.pm is None else f"{published.pm}")


def around_zero(margin: float) -> str:
    """Return a margin that reaches as far below zero as above."""
    return f"{PLUS_MINUS}{margin:.3g}"


def _error(text: str | None) -> str:
    return "" if text is None else f" {PLUS_MINUS}{text}"


def so_far(number: str) -> str:
    """Return a number of an unfinished run, so that nobody takes it for the model's."""
    return f"({number} so far)"


def share(fraction: float) -> str:
    """Return how much of something is done: ``0.13 %``, ``68 %``; never all before it is."""
    return f"{min(100 * fraction, 99):.2g} %"


def yes_or_no(value: float) -> str:
    """Return a property in words; a number where seeds differ."""
    return {1.0: "yes", 0.0: "no"}.get(value, f"{value:.2f}")


def counted(n: int, noun: str) -> str:
    """Return a number of things, say ``1 seed`` or ``3 seeds``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def whose(seeds: int, own: Sequence[int]) -> str:
    """Return which of a number's seeds are of the user's own runs; empty where none is.

    Args:
        seeds: How many the number is over.
        own: Those that are the user's, in order.
    """
    if len(own) == seeds and own:
        return ", yours"
    return f" (seed{'s' * (len(own) > 1)} {listed(own)} yours)" if own else ""


def listed(numbers: Sequence[int]) -> str:
    """Return rising numbers as people write them: ``0-2, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else f"{run[0]}" for run in runs)


# --------------------------------------------------------------------------- what ± means

#: Error of a single run.
TWO_ERRORS = "two standard errors by the metric's protocol"
#: Error of a measured number, as :func:`~dgm_bench.measured.error_bar` has it.
MEASURED_ERROR = f"standard deviation over seeds; for a single seed, {TWO_ERRORS}"
MEASURED_LEGEND = f"{PLUS_MINUS} of measured numbers: {MEASURED_ERROR}."
RUN_LEGEND = f"{PLUS_MINUS} of each run's numbers: {TWO_ERRORS}."
#: Ends a caption.
ERROR_BARS = f"{MEASURED_ERROR}."
#: Where the published numbers of several sources stand together.
PUBLISHED_LEGEND = (
    f"{PLUS_MINUS} of published numbers: what the source means by it; "
    "dgm-bench table TABLE says what."
)
PUBLISHED_BAR = f"published, {PLUS_MINUS} as printed"

_PUBLISHED_ERRORS: Mapping[PmKind, str] = {
    "sd_runs": "standard deviation over {runs}",
    "two_se_test": "two standard errors over the test points of one model",
    "unknown": "of unknown meaning",
    "none": "not printed",
}
_REMARKS: Mapping[PmKind, str] = {
    "two_se_test": f"the paper gives one model's {PLUS_MINUS} over test points, no seed spread",
    "sd_runs": f"the published {PLUS_MINUS} is over an unknown number of runs and is not added",
    "unknown": f"what the published {PLUS_MINUS} means is unknown",
}
_CHOSEN_ON_TEST = re.compile(r"\b(best|better|lowest|highest|min|max|chosen)\b.*\btest\b")


def published_error(published: Published) -> str:
    """Return what the ± of a published number is."""
    runs = f"{published.pm_n} runs" if published.pm_n else "runs, how many is not known"
    return _PUBLISHED_ERRORS[published.pm_kind].format(runs=runs)


def published_legend(cells: Iterable[Cell]) -> Iterable[str]:
    """Yield what the published ± of cells are, each with its rows and sources."""
    rows: dict[str, dict[str, None]] = {}
    sources: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.published is not None and cell.published.pm is not None:
            meaning = published_error(cell.published)
            rows.setdefault(meaning, {})[cell.row.title] = None
            sources.setdefault(meaning, {})[cell.published.source] = None
    for meaning, titles in rows.items():
        whose = f"{', '.join(titles)} ({', '.join(sources[meaning])})"
        yield f"Published {PLUS_MINUS} of {whose}: {meaning}."


def error_remark(published: Published) -> str:
    """Return why a published ± is no spread over seeds that a verdict can use, if it is none."""
    known = published.pm_kind == "sd_runs" and (published.pm_n or 0) >= 2
    return "" if known else _REMARKS.get(published.pm_kind, "")


def selection_remark(published: Published) -> str:
    """Return that the published number was chosen by looking at test data, where it was."""
    clauses = (clause.strip() for clause in published.selection.split(";"))
    chosen = next((clause for clause in clauses if _CHOSEN_ON_TEST.search(clause)), "")
    return f"the published number was chosen on test ({chosen})" if chosen else ""


# --------------------------------------------------------------------------- states

#: States of a cell, in the order in which they are counted.
State = Literal[
    "reproduced",
    "worse",
    "better",
    "inconclusive",
    "unfinished",
    "not-comparable",
    "failed",
    "not-run",
    "measured",
]
#: States of a cell of which nothing is measured: no verdict.
UNMEASURED: tuple[State, ...] = ("unfinished", "not-run")
#: States of a row of a comparison, those first that want attention.
RowState = Literal[
    "worse",
    "not-comparable",
    "unfinished",
    "better",
    "changed",
    "noise",
    "same",
    "only-new",
    "only-baseline",
]
#: What a colour says; the page's style sheet has a colour of each name.
Tone = Literal["good", "bad", "alarm", "open", "plain", "none"]
_TERMINAL_STYLES: Mapping[Tone, str] = {
    "good": "green",
    "bad": "red",
    "alarm": "magenta",
    "open": "yellow",
    "plain": "",
    "none": "dim",
}


@dataclass(frozen=True)
class Words:
    """How a state is shown.

    Attributes:
        mark: One character.
        tone: Its colour.
        brief: What it means, in a legend.
        meaning: What it means, in a sentence.
    """

    mark: str
    tone: Tone
    brief: str = ""
    meaning: str = ""

    @property
    def style(self) -> str:
        """The terminal's name of the colour."""
        return _TERMINAL_STYLES[self.tone]


STATES: Mapping[State, Words] = {
    "reproduced": Words(
        "✓",
        "good",
        "reproduced",
        "The 90 % interval of the difference lies wholly inside the margin.",
    ),
    "worse": Words(
        "▼",
        "bad",
        "worse than published",
        "The interval lies wholly on the worse side of the margin.",
    ),
    "better": Words(
        "▲",
        "alarm",
        "better than published (ask why)",
        "The interval lies wholly on the better side. An alarm as much as a success: look for "
        "leaked or easier data, or another unit.",
    ),
    "inconclusive": Words(
        "?",
        "open",
        "inconclusive (seeds run + seeds expected to decide)",
        "The interval lies partly inside the margin and partly outside, or there are too few runs "
        "to form one. The reason says how many more seeds should decide.",
    ),
    "unfinished": Words(
        "…",
        "none",
        "unfinished: the number so far, no measurement; ~ where early stopping was not reached, so "
        "that the share is of the steps expected; a forecast extrapolates its curve, with a 90 % "
        "interval",
        "The budget ended every run before its own stopping rule. The number so far is that of a "
        "model on the way, and counts for nothing; one finished run takes its place.",
    ),
    "not-comparable": Words(
        "≠",
        "open",
        "not comparable",
        "There are runs, but of other data, another unit or a changed recipe.",
    ),
    "failed": Words(
        "✗",
        "bad",
        "failed",
        "Every run failed, for example as its loss was not a number or its solver gave up.",
    ),
    "not-run": Words(
        "-",
        "none",
        "not run",
        "No run is stored; the reason says what is missing.",
    ),
    "measured": Words(
        "•",
        "plain",
        "measured, nothing published",
        "The paper does not have this row or column: there is no published number to compare with.",
    ),
}
ROW_STATES: Mapping[RowState, Words] = {
    "worse": Words("▼", "bad"),
    "not-comparable": Words("≠", "open"),
    "unfinished": Words("…", "none"),
    "better": Words("▲", "alarm"),
    "changed": Words("~", "open"),
    "noise": Words("?", "open"),
    "same": Words("✓", "good"),
    "only-new": Words("+", "none"),
    "only-baseline": Words("-", "none"),
}


def spoken(state: str) -> str:
    """Return a state as it is written in a sentence."""
    return state.replace("-", " ")
