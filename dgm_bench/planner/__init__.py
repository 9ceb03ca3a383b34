"""What a command would run: cost, data and memory of each cell, and what fits the budget."""

from dgm_bench.planner.durations import (
    AUTO_BUDGET,
    duration,
    durations,
    gigabytes,
    option_value,
    parse_budget,
    parse_duration,
)
from dgm_bench.planner.expected import (
    LEAST_SHARE,
    expected_seconds,
    known_seconds,
    measured_seconds,
    share_of,
    spent_seconds,
)
from dgm_bench.planner.machine import Machine, Speed
from dgm_bench.planner.planned import Plan, PlannedRun, Unit, expected_end, units
from dgm_bench.planner.planning import (
    PLANNED_SHARE,
    DataState,
    PlanningContext,
    gets_enough,
    plan,
    run_command,
    sureness,
    urgency,
)
from dgm_bench.planner.schedule import Need, Placed, Room, end_of, list_schedule
from dgm_bench.planner.workers import most_workers, plan_for_workers

__all__ = [
    "AUTO_BUDGET",
    "LEAST_SHARE",
    "PLANNED_SHARE",
    "DataState",
    "Machine",
    "Need",
    "Placed",
    "Plan",
    "PlannedRun",
    "PlanningContext",
    "Room",
    "Speed",
    "Unit",
    "duration",
    "durations",
    "end_of",
    "expected_end",
    "expected_seconds",
    "gets_enough",
    "gigabytes",
    "known_seconds",
    "list_schedule",
    "measured_seconds",
    "most_workers",
    "option_value",
    "parse_budget",
    "parse_duration",
    "plan",
    "plan_for_workers",
    "run_command",
    "share_of",
    "spent_seconds",
    "sureness",
    "units",
    "urgency",
]
