"""The verbs on trained models: sample, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import (
    data_root_option,
    examples,
    json_option,
    print_json,
    results_option,
    stored_option,
)
from dgm_bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from dgm_bench.library.trained import TrainedModel
    from dgm_bench.records import Metric

    Load = Callable[[str, int], TrainedModel]

PICTURES = (".png", ".pdf", ".svg")


def with_model(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb ``load``, and options that say which trained model it is, and where it computes.

    ``load(cell, seed)`` returns the model.
    """

    @wraps(function)
    def verb(
        run: str | None,
        weights: Path | None,
        device: str,
        data_root: Path,
        results: Path,
        stored: Path | None,
        **own: Any,  # noqa: ANN401  the verb's own options
    ) -> None:
        load = partial(
            _loaded,
            run=run,
            weights=weights,
            device=device,
            data_root=data_root,
            results=results,
            stored=stored,
        )
        function(load, **own)

    for option in (
        stored_option,
        results_option(read=True),
        data_root_option,
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            show_default=True,
            help="Where to compute.",
        ),
        click.option(
            "--weights",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Weights in place of the run's, as safetensors.",
        ),
        click.option(
            "--run",
            metavar="RUN",
            show_default="the one that tables use, of seed 0",
            help="Which run's model.",
        ),
    ):
        verb = option(verb)
    return verb


@click.command(
    short_help="Draw from a trained model.",
    epilog=examples(
        "dgm-bench sample ffjord/density/glow/digits -o grid.png",
        "dgm-bench sample ffjord/density/ffjord/8gaussians -n 2000",
        "dgm-bench sample ffjord/density/maf-5/8gaussians -n 1000000 -o draws.csv",
    ),
)
@click.argument("cell", shell_complete=completion.cells)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    show_default="ROW-COLUMN.png, or .csv of tables",
    help="A picture (.png, .pdf, .svg), or numbers (.csv).",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, 10**8),
    metavar="N",
    show_default="64 images, else 2000",
    help="How many.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the noise.",
)
@with_model
def sample(load: Load, cell: str, output: Path | None, count: int | None, seed: int) -> None:
    """Draw from the trained model of a cell: yours where you have run it, else the stored one.

    Images are drawn in a grid, points of the plane beside the model's density; numbers are
    written one example a line.
    """
    model = load(cell, 0)
    images = model.data.image_shape is not None
    drawable = images or model.data.dim == 2
    output = output or Path(f"{_name(model)}{'.png' if drawable else '.csv'}")
    if output.suffix not in (*PICTURES, ".csv") or not (drawable or output.suffix == ".csv"):
        kinds = ".csv, .png, .pdf or .svg" if drawable else f".csv: {model.data.dim} dimensions"
        raise UsageError(f"-o {output}", f"no such picture of {model.data.name}", f"use {kinds}")
    drawn = model.sample(count or (64 if images else 2000), seed=seed)
    _write(model, drawn, output)
    streams.say(f"{output}: {len(drawn):,} samples of {_whose(model)}")


def _write(model: TrainedModel, drawn: Tensor, output: Path) -> None:
    from dgm_bench.sealed import write_atomically

    if output.suffix == ".csv":
        names = ",".join(f"x{place + 1}" for place in range(drawn[0].numel()))
        rows = (",".join(map(repr, row)) for row in drawn.flatten(1).tolist())
        write_atomically(output, (f"{line}\n".encode() for line in (names, *rows)))
        return
    from dgm_bench.library.weights import one_cell
    from dgm_bench.pictures.pictures import sample_picture

    title = f"{one_cell(model.cell).row.title} on {model.data.name}"
    density = model.log_prob if "log_prob" in model.can else None
    write_atomically(output, sample_picture(drawn, title, output.suffix[1:], density))


def _name(model: TrainedModel) -> str:
    return "-".join(model.cell.split("/")[2:])


def _whose(model: TrainedModel) -> str:
    """Return which model it is, in words."""
    return f"{model.cell}, " + (f"run {model.record.run_id}" if model.record else "other weights")


def _loaded(
    cell: str,
    seed: int,
    *,
    run: str | None,
    weights: Path | None,
    device: str,
    data_root: Path,
    results: Path,
    stored: Path | None,
) -> TrainedModel:
    from dgm_bench.extras import needing

    with needing("a trained model"):
        from dgm_bench.library.loading import load

    own = results if results.exists() else None  # the default one may not be there yet
    where = {"results": own, "stored": stored or "none", "data_root": data_root}
    return load(cell, seed, run, device, weights=weights, **where)


# --------------------------------------------------------------------------- evaluate


@click.command(
    short_help="Measure a trained model again.",
    epilog=examples(
        "dgm-bench evaluate ffjord/density/maf-5/8gaussians",
        "dgm-bench evaluate ffjord/density/maf-5/8gaussians --seed 2 --json",
        "dgm-bench evaluate ffjord/density/maf-5/power --weights other.safetensors",
    ),
)
@click.argument("cell", shell_complete=completion.cells)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the run whose model it is.",
)
@with_model
@json_option
def evaluate(load: Load, cell: str, seed: int, as_json: bool) -> None:
    """Measure the trained model of a cell again, by the cell's own protocol.

    Each number stands beside the record's. On the machine that made the record they are equal to
    the bit; on another, rounding may differ.
    """
    model = load(cell, seed)
    metrics = model.evaluate()
    before = {metric.name: metric.value for metric in model.record.metrics} if model.record else {}
    if as_json:
        print_json(_evaluation_json(model, metrics, before))
        return
    from dgm_bench import console
    from dgm_bench.wording import RUN_LEGEND, with_error

    table = console.new_table("metric", "now", "record", "difference", right=("now", "record"))
    for metric in metrics:
        if metric.value is None:
            continue
        number = with_error(metric.value, None if metric.se is None else 2 * metric.se, 3)
        old = before.get(metric.name)
        known = "" if old is None else with_error(old, None, 3)
        table.add_row(metric.name, f"{number} {metric.unit}", known, _difference(metric.value, old))
    heading = f"{_whose(model)}, seed {model.seed}, on {_device_of(model)}"
    console.make_console().print(heading, table, RUN_LEGEND, sep="\n")


def _device_of(model: TrainedModel) -> str:
    """Return where a model computes."""
    return next((str(weight.device) for weight in model.module.parameters()), "cpu")


def _difference(now: float, before: float | None) -> str:
    if before is None:
        return "no record of it"
    return "equal to the bit" if now == before else f"{now - before:+.1e}"


def _evaluation_json(
    model: TrainedModel, metrics: Sequence[Metric], before: dict[str, float | None]
) -> dict[str, Any]:
    return {
        "cell": model.cell,
        "run": model.record.run_id if model.record else None,
        "seed": model.seed,
        "metrics": [
            {
                "name": metric.name,
                "value": metric.value,
                "se": metric.se,
                "unit": metric.unit,
                "record": before.get(metric.name),
            }
            for metric in metrics
        ],
    }
