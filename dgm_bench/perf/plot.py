"""The stored times of each class of machine, drawn over commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgm_bench.errors import ResultsError
from dgm_bench.performance import Measurement, history_of, read_measurements
from dgm_bench.sealed import staged


def write_plot(path: Path, results: Path) -> None:
    """Draw the history of a results folder.

    Args:
        path: The picture to write; its ending says in which format.
        results: The results folder.

    Raises:
        ResultsError: There is no measurement, or the file cannot be written.
    """
    machines = read_measurements(results)
    if not machines:
        remedy = "measure first: tox -e perf -- store"
        raise ResultsError(results / "performance", "holds no measurement", remedy)
    with staged(path) as temporary:
        _figure(machines).savefig(temporary, format=path.suffix.removeprefix(".") or "png", dpi=120)


def _figure(machines: Mapping[str, Sequence[Measurement]]) -> Figure:
    figure = Figure(figsize=(9, 4 * len(machines)), layout="constrained")
    panels = figure.subplots(len(machines), 1, squeeze=False)[:, 0]
    for axes, (machine, runs) in zip(panels, machines.items(), strict=True):
        _draw(axes, machine, runs)
    return figure


def _draw(axes: Axes, machine: str, runs: Sequence[Measurement]) -> None:
    """Draw the ratio of each case, by its first one, over the measurements of a class."""
    commits = [(run.code.git_commit or "none")[:10] for run in runs]
    places = list(dict.fromkeys(commits))
    for case in runs[-1].timings:
        history = history_of(runs, case)
        x = [places.index(commit) for commit, _ in history]
        axes.plot(x, [ratio / history[0][1] for _, ratio in history], marker="o", label=case)
    axes.set_xticks(range(len(places)), places, rotation=45, ha="right", fontsize=7)
    axes.set(title=machine, ylabel="time / time of a plain network,\nby the first")
    axes.axhline(1, color="grey", linewidth=0.5)
    axes.legend(fontsize=7, ncols=2)
