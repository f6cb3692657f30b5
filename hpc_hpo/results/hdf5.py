"""Results as one HDF5 file: typed columns that any HDF5 library reads, without this package.

Layout (format_version 1). A group is a table and each dataset in it a column, shape (rows,);
there are no compound types. Text is UTF-8 of variable length, "" where there is none; a float
is NaN where there is none. Times are seconds since the epoch.

==================  ===========================================================================
/                   attributes: format, format_version, hpc_hpo (version that wrote the file),
                    direction, versions (JSON: those of the last run; see the journal)
/study              the frozen study, JSON (scalar text)
/trials             one row a trial, by number: trial, rank, slices, failures, lost (int64;
                    rank 0 is none), loss, busy_s, started, ended (float64), segment, state,
                    error (text), point_json (the point, as in the JSON export)
/trials/point       one column a parameter: bool, int64, float64 or text, by its values. Where a
                    condition leaves it out: NaN or "", and a bool or int64 becomes float64.
                    Values of mixed kinds, lists and objects are JSON text
/curves             one row a report, by trial and step: trial, step (int64)
/curves/metrics     one column a metric (float64)
/slices             one row a slice, by trial and number: trial, slice, run (int64), submitted,
                    started, ended, wasted_s (float64), block, worker, end, reason, restored,
                    error (text; end is "" while it is open)
==================  ===========================================================================

A name that HDF5 has no room for ("/" parts groups) is percent-encoded; the column's attribute
`name` is the name itself. In text, NUL and lone surrogates are shown as backslash escapes;
point_json keeps them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.results.table import (
    POINT,
    Row,
    direction_sign,
    printable,
    strict_json,
    trials_table,
)
from hpc_hpo.version import __version__

FORMAT_VERSION = 1

#: Kinds of the columns that every study has.
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
    "started": "float",
    "ended": "float",
    "error": "text",
}
SLICE_COLUMNS = {
    "trial": "int",
    "slice": "int",
    "run": "int",
    "submitted": "float",
    "started": "float",
    "ended": "float",
    "wasted_s": "float",
    "block": "text",
    "worker": "text",
    "end": "text",
    "reason": "text",
    "restored": "text",
    "error": "text",
}
_ABSENT: dict[str, Any] = {"int": 0, "float": float("nan"), "text": "", "bool": False}


def _dataset_name(name: str) -> str:
    """`name` as HDF5 can hold it: "." and "" mean other things there, "/" parts groups."""
    if name in ("", "."):
        return "%" + name.encode().hex()
    odd = {c for c in name if c in "%/\0" or "\ud800" <= c <= "\udfff"}
    return "".join(f"%{ord(c):02X}" if c in odd else c for c in name)


def _kind_of(values: Sequence[Any]) -> str:
    """The narrowest kind of column that holds a parameter's values; None is an absent one."""
    kinds = {type(value) for value in values}
    present = kinds - {type(None)}
    if kinds == {bool}:
        return "bool"
    if any(type(value) is int and not -(2**63) <= value < 2**63 for value in values):
        return "json"
    if kinds == {int}:
        return "int"
    if present <= {bool} or present <= {int, float}:
        return "float"
    return "text" if present == {str} else "json"


def _add_column(group: Any, name: str, kind: str, values: Iterable[Any]) -> None:
    import h5py

    if kind == "json":
        kind = "text"
        values = ["" if value is None else strict_json(value) for value in values]
    absent = _ABSENT[kind]
    filled = [absent if value is None else value for value in values]
    if kind == "text":
        data, dtype = [printable(value) for value in filled], h5py.string_dtype("utf-8")
    else:
        data, dtype = filled, {"int": "i8", "float": "f8", "bool": "?"}[kind]
    column = group.create_dataset(_dataset_name(name), (len(data),), dtype=dtype, data=data)
    if _dataset_name(name) != name:
        column.attrs["name"] = printable(name)


def _add_table(group: Any, kinds: dict[str, str], rows: Sequence[Row]) -> None:
    for name, kind in kinds.items():
        _add_column(group, name, kind, (row[name] for row in rows))


def _slice_rows(state: StudyState) -> list[Row]:
    return [
        {
            **asdict(record),
            "trial": number,
            "slice": record.number,
            "end": record.end.value if record.end is not None else None,
            "error": (record.error or {}).get("message"),
        }
        for number, trial in sorted(state.trials.items())
        for record in trial.slices
    ]


def _add_curves(group: Any, state: StudyState) -> None:
    reports = [
        (number, step, trial.reports[step])
        for number, trial in sorted(state.trials.items())
        for step in sorted(trial.reports)
    ]
    _add_column(group, "trial", "int", (number for number, _, _ in reports))
    _add_column(group, "step", "int", (step for _, step, _ in reports))
    metrics = group.create_group("metrics")
    for name in dict.fromkeys(name for *_, report in reports for name in report):
        _add_column(metrics, name, "float", (report.get(name) for *_, report in reports))


def write_hdf5(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write the results in the layout above.

    Raises:
        StorageError: it cannot be written; an older file is left as it was.
    """
    import h5py

    rows = trials_table(state, direction_sign(study))
    # Made in memory: a disk that fills up under the HDF5 library fails in ways that neither
    # say so nor leave the old file.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["format"] = "hpc_hpo results"
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["hpc_hpo"] = __version__
        file.attrs["direction"] = str(study.get("direction", "minimize"))
        file.attrs["versions"] = strict_json(state.run_info.get("versions", {}))
        # No attribute: those end at 64 KiB, and a choice of many values passes that.
        file.create_dataset("study", data=strict_json(study), dtype=h5py.string_dtype("utf-8"))
        trials = file.create_group("trials")
        _add_table(trials, TRIAL_COLUMNS, rows)
        points = (strict_json(state.trials[row["trial"]].point) for row in rows)
        _add_column(trials, "point_json", "text", points)
        point = trials.create_group("point")
        for name in (key for key in (rows[0] if rows else ()) if key.startswith(POINT)):
            values = [row[name] for row in rows]
            _add_column(point, name.removeprefix(POINT), _kind_of(values), values)
        _add_curves(file.create_group("curves"), state)
        _add_table(file.create_group("slices"), SLICE_COLUMNS, _slice_rows(state))
    write_atomic(path, image.getvalue())
