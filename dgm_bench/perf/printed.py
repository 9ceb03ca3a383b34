"""What a tier found, for a terminal and for a pull request."""

from __future__ import annotations

from dgm_bench.perf.tiers import Finding


def as_text(finding: Finding) -> str:
    """Return it for a terminal."""
    widths = [max(map(len, column)) for column in zip(*finding.rows, strict=True)]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in finding.rows
    ]
    return "\n".join([finding.title, *rows, *finding.lines])


def as_markdown(finding: Finding) -> str:
    """Return it in Markdown: title, table, lines."""
    mark = "❌" if finding.failed else "✅"
    rows = ["| " + " | ".join(row) + " |" for row in finding.rows]
    rows[1:1] = ["|" + " --- |" * len(row) for row in finding.rows[:1]]
    lines = [f"- {line}" for line in finding.lines]
    return "\n".join([f"### {mark} {finding.title}", "", *rows, "", *lines, ""])
