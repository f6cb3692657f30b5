"""Results as Parquet: the table of trials in typed columns, null where there is no value.

Columns are those of trials_table: int64, double, boolean, string; times are timestamps in UTC.
Values of mixed kinds, lists and objects are JSON text, as in results.h5. The file's metadata hold
the frozen study as JSON (key hpc_hpo.study). Needs pyarrow.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import exact_json, write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.optimizers.extras import require
from hpc_hpo.results.columns import Column, columns_of
from hpc_hpo.results.table import printable, strict_json


def write_parquet(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write the table of trials.

    Raises:
        InputError: pyarrow is not installed.
        StorageError: it cannot be written; an older file is left as it was.
    """
    pyarrow = require("pyarrow", "parquet")
    parquet = require("pyarrow.parquet", "parquet")
    columns = columns_of(state, study, "trials")
    names = [printable(column.name) for column in columns]
    table = pyarrow.table([_array(pyarrow, column) for column in columns], names=names)
    image = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"hpc_hpo.study": strict_json(study)}), image)
    write_atomic(path, image.getvalue())


def _array(pyarrow: Any, column: Column) -> Any:
    kind, values = column.kind, column.values
    if kind == "time":
        moments = [None if value is None else round(value * 1e6) for value in values]
        return pyarrow.array(moments, pyarrow.timestamp("us", "UTC"))
    if kind == "json":
        values = [None if value is None else exact_json(value) for value in values]
    elif kind == "text":
        values = [None if value is None else printable(value) for value in values]
    dtypes = {"int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    return pyarrow.array(values, dtypes.get(kind, pyarrow.string()))
