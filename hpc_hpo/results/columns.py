"""A study's tables as typed columns: what HDF5, Parquet and data frames are made from.

Three tables: `trials` (see table.trials_table), `curves` (one row a report, by trial and step) and
`slices` (one row a slice, by trial and number). A value that is not there is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpc_hpo.journal import StudyState
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.table import (
    OBJECTIVE,
    POINT,
    Row,
    direction_sign,
    parameter_names,
    printable,
    trials_from,
    trials_table,
)

#: In front of a metric's name, so that one called "step" hides no column.
METRIC = "metric."

#: Kinds of the columns that every study has; times are seconds since the epoch.
TRIAL_COLUMNS = {
    "trial": "int",
    "segment": "text",
    "state": "text",
    "loss": "float",
    "rank": "int",
    "slices": "int",
    "failures": "int",
    "lost": "int",
    "busy_s": "float",
    "started": "time",
    "ended": "time",
    "error": "text",
    "parent": "int",
}
CURVE_COLUMNS = {"trial": "int", "step": "int"}
SLICE_COLUMNS = {
    "trial": "int",
    "slice": "int",
    "run": "int",
    "submitted": "time",
    "started": "time",
    "ended": "time",
    "wasted_s": "float",
    "block": "text",
    "worker": "text",
    "end": "text",
    "reason": "text",
    "restored": "text",
    "error": "text",
}
TABLES = {"trials": TRIAL_COLUMNS, "curves": CURVE_COLUMNS, "slices": SLICE_COLUMNS}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: int (64 bits), float, time (a float), bool, text, or json: values of mixed kinds,
            lists, objects and larger integers.
    """

    name: str
    kind: str
    values: Sequence[Any]


def kind_of(values: Iterable[Any]) -> str:
    """The narrowest kind that holds a parameter's values; float when there are none."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if not kinds:
        return "float"
    if kinds == {bool}:
        return "bool"
    if int in kinds and any(type(v) is int and not -(2**63) <= v < 2**63 for v in present):
        return "json"
    if kinds == {int}:
        return "int"
    if kinds <= {int, float}:
        return "float"
    return "text" if kinds == {str} else "json"


def parameter_kinds(state: StudyState) -> dict[str, str]:
    """The kind of each parameter over all trials, in the order of parameter_names."""
    return {name: kind_of(parameter_values(state, name)) for name in parameter_names(state)}


def parameter_values(state: StudyState, name: str) -> list[Any]:
    """One parameter's values by trial; None where a condition leaves it out."""
    return [state.trials[number].point.get(name) for number in sorted(state.trials)]


def columns_of(
    state: StudyState, study: dict[str, Any], table: str, first: int = 0
) -> list[Column]:
    """One of the three tables.

    Args:
        study: the frozen study as a plain dict.
        table: trials, curves or slices.
        first: trials with smaller numbers are left out.
    """
    if table == "trials":
        return _trial_columns(state, study, first)
    if table == "slices":
        return _of_rows(_slice_rows(state, first), SLICE_COLUMNS)
    return _curve_columns(state, first)


def _of_rows(rows: Sequence[Row], kinds: dict[str, str]) -> list[Column]:
    return [
        Column(name, kind, [_plain(row[name], kind) for row in rows])
        for name, kind in kinds.items()
    ]


def _plain(value: Any, kind: str) -> Any:
    if kind == "text":
        # No text and an empty one are the same to most formats.
        return printable(value) if value else None
    return float(value) if kind in ("float", "time") and value is not None else value


def _trial_columns(state: StudyState, study: dict[str, Any], first: int) -> list[Column]:
    goals = goals_of(study)
    rows = trials_table(state, direction_sign(study), first, goals)
    columns = _of_rows(rows, TRIAL_COLUMNS)
    if goals:
        columns += _of_rows(rows, {"pareto": "bool"})
        columns += _of_rows(rows, {OBJECTIVE + goal.name: "float" for goal in goals})
    for name, kind in parameter_kinds(state).items():
        columns.append(Column(POINT + name, kind, [row[POINT + name] for row in rows]))
    return columns


def _curve_columns(state: StudyState, first: int) -> list[Column]:
    reports = [
        (trial.id, step, trial.reports[step])
        for trial in trials_from(state, first)
        for step in sorted(trial.reports)
    ]
    names = dict.fromkeys(name for *_, report in reports for name in report)
    return [
        Column("trial", "int", [number for number, _, _ in reports]),
        Column("step", "int", [step for _, step, _ in reports]),
        *(
            Column(METRIC + name, "float", [_plain(r.get(name), "float") for *_, r in reports])
            for name in names
        ),
    ]


def _slice_rows(state: StudyState, first: int) -> list[Row]:
    return [
        {
            **asdict(record),
            "trial": trial.id,
            "slice": record.number,
            "end": record.end.value if record.end is not None else None,
            "error": (record.error or {}).get("message"),
        }
        for trial in trials_from(state, first)
        for record in trial.slices
    ]
