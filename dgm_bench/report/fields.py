"""All that is known about the cells of a table, for machines: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import Any

from dgm_bench.escaping import csv_cell
from dgm_bench.report.time_to_quality import TimeToQuality, quality_fields
from dgm_bench.spec import Cell, Table
from dgm_bench.verdict import ClaimVerdict, Unfinished, Verdict, published_orders


def identity_fields(cell: Cell) -> dict[str, Any]:
    """Return which cell it is, and what its numbers are."""
    return {
        "id": cell.id,
        "row": cell.row.id,
        "column": cell.column.id,
        "metric": cell.metric,
        "unit": cell.column.unit,
        "direction": cell.column.direction,
    }


def cell_fields(cell: Cell, verdict: Verdict, times: TimeToQuality | None = None) -> dict[str, Any]:
    """Return everything that is known about a cell, flat, with null for what is not."""
    published = cell.published
    fields: dict[str, Any] = {
        **identity_fields(cell),
        "published": _float(published and published.value),
        "pm": _float(published and published.pm),
    }
    for name in ("pm_kind", "pm_n", "selection", "source", "model", "note"):
        fields[f"published_{name}"] = getattr(published, name, None)
    fields |= {name: value for name, value in asdict(verdict).items() if name != "cell"}
    fields["low"], fields["high"] = fields.pop("interval") or (None, None)
    fields |= unfinished_fields(fields.pop("unfinished"))
    fields["own_seeds"] = list(verdict.own_seeds)
    fields |= unfinished_fields(fields.pop("own_unfinished"), "own_unfinished")
    fields |= quality_fields(times)
    fields["remarks"] = list(verdict.remarks)
    fields["errata"] = [erratum.id for erratum in cell.errata]
    return fields


def unfinished_fields(
    unfinished: Mapping[str, Any] | None, prefix: str = "unfinished"
) -> dict[str, Any]:
    """Return how far runs got that their budget cut short; null for all other cells."""
    names = [field.name for field in dataclass_fields(Unfinished)]
    return {f"{prefix}_{name}": unfinished[name] if unfinished else None for name in names}


def to_csv(
    table: Table, verdicts: Mapping[str, Verdict], times: Mapping[str, TimeToQuality]
) -> str:
    """Return one line for each cell, below a line of names."""
    rows = [cell_fields(cell, verdicts[cell.id], times.get(cell.id)) for cell in table.cells]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0] if rows else ["id"])
    for row in rows:
        writer.writerow(
            csv_cell("; ".join(map(str, v)) if isinstance(v, list) else v) for v in row.values()
        )
    return file.getvalue()


def to_json(
    table: Table,
    verdicts: Mapping[str, Verdict],
    times: Mapping[str, TimeToQuality],
    claims: Sequence[ClaimVerdict] = (),
) -> str:
    """Return the table with its cells, the claims of its rows and their orders, one a line."""
    rows = (cell_fields(cell, verdicts[cell.id], times.get(cell.id)) for cell in table.cells)
    cells = [json.dumps(row) for row in rows]
    head = f'{{"table": {json.dumps(table.name)}, "title": {json.dumps(table.title)}, "cells": ['
    told = [json.dumps(claim_fields(verdict)) for verdict in claims]
    orders = [json.dumps(asdict(order)) for order in published_orders(table, verdicts)]
    ending = '\n], "claims": [' + ",".join(f"\n{text}" for text in told)
    ending += '], "orders": [' + ",".join(f"\n{text}" for text in orders) + "]}\n"
    return head + "\n" + ",\n".join(cells) + ending


def claim_fields(verdict: ClaimVerdict) -> dict[str, Any]:
    """Return what a claim says, and whether it shows on a column."""
    claim = verdict.claim.model_dump(mode="json", exclude={"columns"})
    return {**claim, **{k: v for k, v in asdict(verdict).items() if k != "claim"}}


def _float(value: Any) -> float | None:  # noqa: ANN401  Decimal or None
    return None if value is None else float(value)
