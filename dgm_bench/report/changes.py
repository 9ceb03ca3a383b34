"""What changed between new records and stored ones: a line each, and how much did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from dgm_bench import escaping
from dgm_bench.compare import ComparedRow, Comparison, Side, SpeedRow
from dgm_bench.report import grid
from dgm_bench.report.footnotes import Footnotes
from dgm_bench.report.grid import Notes
from dgm_bench.wording import PLUS_MINUS, ROW_STATES, RowState, so_far, spoken, with_error

#: Of these a reader is told one by one; the rest is counted.
NEWS: tuple[RowState, ...] = ("worse", "not-comparable", "unfinished", "better", "changed")
#: Of times, seconds of runs are not judged: that they changed is no news.
_NEWS_OF_TIMES: tuple[RowState, ...] = ("worse", "not-comparable", "better")
_SAID = {"noise": "within noise", "only-baseline": "only in the baseline"}
_NOT_COMPARED = ("unfinished", "only new", "only in the baseline")


def called(row: ComparedRow) -> str:
    """Return what a number is called: ``equal`` where no difference can be seen."""
    return "equal" if row.equal() else _SAID.get(row.state, spoken(row.state))


def changes_text(
    comparison: Comparison,
    names: tuple[str, str],
    width: int = 160,
    colour: bool = False,
    fit: Callable[[str], str] = escaping.plain,
) -> str:
    """Return what changed, a line each, and in how many numbers nothing did.

    Args:
        comparison: What was compared.
        names: Of the new records and the baseline.
        width: Most columns of a line.
        colour: Whether lines have the colours of a terminal.
        fit: Gives a text the characters that what shows it has.
    """
    reasons, room = Footnotes(), min(width, grid.NOTE_WIDTH)
    lines = [*_numbers(comparison, reasons), *map(_time, _news_of_times(comparison))]
    texts = [grid.wrapped(fit(text), width, "  ")[2:] for text, _ in lines]
    if colour:
        pairs = zip(texts, lines, strict=True)
        texts = [grid.coloured(text, style) if style else text for text, (_, style) in pairs]
    said = [" ".join(_counts(comparison)) or "Nothing to compare.", *comparison.remarks]
    blocks = [f"{names[0]} against {names[1]}", "\n".join(texts)] if texts else []
    blocks += [grid.wrapped(fit(text), room) for text in said]
    notes = Notes("", tuple((label, fit(text)) for label, text in reasons.items()))
    return (
        "\n\n".join([*blocks, *([grid.note_text(notes, room, fit)] if notes.items else [])]) + "\n"
    )


# --------------------------------------------------------------------------- lines


def _numbers(comparison: Comparison, reasons: Footnotes) -> Iterator[tuple[str, str]]:
    """Yield the lines of numbers that changed, with their styles, what wants attention first."""
    for state in NEWS:
        rows = [row for row in comparison.rows if row.state == state and _is_news(row)]
        for group in _groups(rows):
            yield _number(group, reasons), ROW_STATES[state].style


def _is_news(row: ComparedRow) -> bool:
    """Say whether a row is to be told: one that is not finished now, and was before."""
    ended = row.state != "unfinished" or row.baseline.mean is not None
    return ended and not row.equal()


def _groups(rows: Sequence[ComparedRow]) -> Iterator[Sequence[ComparedRow]]:
    """Yield each row alone, and together those of a cell that are not judged for one reason."""
    groups: dict[object, list[ComparedRow]] = {}
    for row in rows:
        groups.setdefault(row if _judged(row) else (row.cell, row.reason), []).append(row)
    yield from groups.values()


def _judged(row: ComparedRow) -> bool:
    """Say whether two numbers were compared, so that the line says all that is to be said."""
    return row.state in ("worse", "better", "changed") and row.new.mean is not None


def _number(group: Sequence[ComparedRow], reasons: Footnotes) -> str:
    row, more = group[0], len(group) - 1
    metric = row.metric + (f" and {more} more" if more else "")
    apart = f"{row.standard_errors:.3g} se " if row.standard_errors is not None else ""
    note = "" if _judged(row) else f" {reasons.refer(row.reason)}"
    change = f"{_change(row)} {row.unit}, {apart}{called(row)}{note}"
    return f"{ROW_STATES[row.state].mark} {row.cell} {metric}: {change}"


def _change(row: ComparedRow) -> str:
    """Return both numbers, with as many decimals as it takes to see a change."""
    for decimals in range(2, 7):
        before, now = (_text(side, decimals) for side in (row.baseline, row.new))
        if before != now or not _judged(row):
            break
    return f"{before} -> {now}"


def _text(side: Side, decimals: int) -> str:
    if side.mean is not None:
        return with_error(side.mean, side.error, decimals).partition(f" {PLUS_MINUS}")[0]
    return "-" if side.so_far is None else so_far(with_error(side.so_far, None, decimals))


def _news_of_times(comparison: Comparison) -> list[SpeedRow]:
    rows = [row for row in comparison.speed if row.state in _NEWS_OF_TIMES]
    return sorted(rows, key=lambda row: _NEWS_OF_TIMES.index(row.state))


def _time(row: SpeedRow) -> tuple[str, str]:
    words = ROW_STATES[row.state]
    before, now = ("-" if time is None else f"{time:.4g}" for time in (row.baseline, row.new))
    change = "" if row.change is None else f"{row.change:+.1%} "
    told = f"{before} -> {now}, {change}{spoken(row.state)}"
    return f"{words.mark} {row.subject} on {row.machine}, {row.quantity}: {told}", words.style


# --------------------------------------------------------------------------- counts


def _counts(comparison: Comparison) -> Iterator[str]:
    """Yield how many numbers and times are called what, a sentence each, and how to see all."""
    numbers = Counter(map(called, comparison.rows))
    left_out = Counter({word: numbers.pop(word) for word in _NOT_COMPARED if word in numbers})
    yield from _sentence("numbers", numbers)
    yield from _sentence("times", Counter(spoken(row.state) for row in comparison.speed))
    if left_out:
        yield f"Not compared: {_listed(left_out)}."
    if not numbers.keys() <= {"equal"} or not left_out.keys() <= {"unfinished"}:
        yield "--all shows each."


def _sentence(what: str, counts: Counter[str]) -> Iterator[str]:
    noun = f"{counts.total():,} {what if counts.total() > 1 else what.removesuffix('s')}"
    if len(counts) == 1:
        yield f"{noun}: all {next(iter(counts))}."
    elif counts:
        yield f"{noun}: {_listed(counts)}."


def _listed(counts: Counter[str]) -> str:
    order = [_SAID.get(state, spoken(state)) for state in ROW_STATES]
    words = sorted(counts, key=[*order, "equal"].index)
    return ", ".join(f"{counts[word]:,} {word}" for word in words)
