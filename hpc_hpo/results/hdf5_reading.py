"""The tables of a results file, as they were before they were written into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.fsio import from_json
from hpc_hpo.results.columns import METRIC, TABLES, Column
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.hdf5 import FORMAT, FORMAT_VERSION, dataset_name
from hpc_hpo.results.table import OBJECTIVE, POINT


def read_columns(path: Path, table: str) -> list[Column]:
    """One table of a file that hdf5.write_hdf5 has written, as of columns.columns_of.

    Raises:
        InputError: it is no such file, or one of a later version.
    """
    import h5py

    valid = "a results.h5 that `hpc-hpo export` has written"
    try:
        with h5py.File(path) as file:
            found = file.attrs.get("format"), file.attrs.get("format_version")
            if found != (FORMAT, FORMAT_VERSION):
                problem = f"is no results file of version {FORMAT_VERSION}"
                raise InputError(problem, file=str(path), valid=valid)
            columns = [
                Column(name, kind, _values(file[table][name], name, kind))
                for name, kind in TABLES[table].items()
                if name in file[table]  # one of an earlier version may lack it
            ]
            if table == "trials":
                columns += _objectives(file)
                columns += _parameters(file["trials"])
            elif table == "curves":
                columns += _metrics(file["curves/metrics"])
            return columns
    except OSError as error:
        raise InputError(f"cannot be read: {error}", file=str(path), valid=valid) from None


def _cells(dataset: Any) -> list[Any]:
    import h5py

    is_text = h5py.check_string_dtype(dataset.dtype)
    values: list[Any] = (dataset.asstr() if is_text else dataset)[:].tolist()
    return values


def _values(dataset: Any, name: str, kind: str) -> list[Any]:
    cells = _cells(dataset)
    if kind == "text":
        return [cell or None for cell in cells]
    if name == "rank":
        return [cell or None for cell in cells]
    if name == "parent":
        return [None if cell < 0 else cell for cell in cells]
    return [None if cell != cell else cell for cell in cells]


def _name(dataset: Any) -> str:
    return str(dataset.attrs.get("name", dataset.name.rpartition("/")[2]))


def _objectives(file: Any) -> list[Column]:
    """Whether trials are on a front, and the objectives in the study's order."""
    trials, goals = file["trials"], goals_of(json.loads(file["study"].asstr()[()]))
    if not goals:
        return []
    values = [_values(trials[dataset_name(OBJECTIVE + g.name)], g.name, "float") for g in goals]
    return [
        Column("pareto", "bool", _cells(trials["pareto"])),
        *(Column(OBJECTIVE + g.name, "float", v) for g, v in zip(goals, values, strict=True)),
    ]


def _parameters(trials: Any) -> list[Column]:
    """The parameters; point_json tells absent ones from NaN and from empty text."""
    points = [json.loads(text) for text in _cells(trials["point_json"])]
    columns = []
    for dataset in sorted(trials["point"].values(), key=lambda d: int(d.attrs["order"])):
        name, kind = _name(dataset), dataset.attrs["kind"]
        if kind == "json":
            values = [from_json(text) if text else None for text in _cells(dataset)]
        else:
            values = [point.get(name) for point in points]
        if kind == "float":
            # NaN and infinities are texts there.
            values = [float(v) if isinstance(v, str) else v for v in values]
        columns.append(Column(POINT + name, kind, values))
    return columns


def _metrics(group: Any) -> list[Column]:
    """A metric that is NaN and one that was not reported are the same in the file."""
    return [
        Column(METRIC + _name(d), "float", [None if v != v else v for v in _cells(d)])
        # Files of before have no order.
        for d in sorted(group.values(), key=lambda d: int(d.attrs.get("order", 0)))
    ]
