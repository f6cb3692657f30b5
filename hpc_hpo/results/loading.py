"""``hpc_hpo.load``: a study's tables for programs and notebooks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.results.columns import TABLES, Column, columns_of
from hpc_hpo.results.hdf5_reading import read_columns
from hpc_hpo.results.view import open_study


def load(path: str | os.PathLike[str], table: str = "trials") -> Any:
    """See hpc_hpo.load."""
    if table not in TABLES:
        raise InputError("there is no such table", key="table", found=table, valid=list(TABLES))
    place = Path(path)
    if place.suffix in (".h5", ".hdf5"):
        columns = read_columns(place, table)
    else:
        if place.is_file() and place.suffix not in (".yaml", ".yml"):
            raise InputError("is no study", file=str(place),
                             valid="a study's folder, its study.yaml, or a results.h5")  # fmt: skip
        view = open_study(place)
        columns = columns_of(view.state, view.study, table)
    return frame(columns) if find_spec("pandas") is not None else rows(columns)


def rows(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The columns as one dict for each row; None where there is no value."""
    names = [column.name for column in columns]
    values = zip(*(column.values for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def frame(columns: Sequence[Column]) -> Any:
    """The columns as a pandas.DataFrame.

    int64 and bool, where values are absent Int64 and boolean; float64 with NaN where there is no
    value; string; times as UTC timestamps; what is of mixed kinds, as objects.
    """
    import pandas

    return pandas.DataFrame({column.name: _series(column) for column in columns})


def _series(column: Column) -> Any:
    import pandas

    if column.kind == "time":
        seconds = pandas.Series(column.values, dtype="float64")
        return pandas.to_datetime(seconds, unit="s", utc=True)
    absent = any(value is None for value in column.values)
    dtype = {
        "int": "Int64" if absent else "int64",
        "bool": "boolean" if absent else "bool",
        "float": "float64",
        "text": "string",
        "json": "object",
    }[column.kind]
    return pandas.Series(column.values, dtype=dtype)
