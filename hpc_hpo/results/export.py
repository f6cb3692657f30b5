"""The formats in which results can be had: a table of them, and one file for each.

Another format is a module with an Exporter and a line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hpc_hpo.journal import StudyState

#: write(state, study, path): `study` is the frozen study as a plain dict; `path` is replaced.
Exporter = Callable[[StudyState, dict[str, Any], Path], None]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of a file name, without its dot.
        writer: "module:function" of an Exporter; imported only when used.
        is_text: True when it can go to a terminal or a pipe.
    """

    suffix: str
    writer: str
    is_text: bool

    def write(self, state: StudyState, study: dict[str, Any], path: Path) -> None:
        """Write the results to `path`, atomically.

        Raises:
            StorageError: it cannot be written; an older file is left as it was.
        """
        module, _, function = self.writer.partition(":")
        exporter: Exporter = getattr(import_module(module), function)
        exporter(state, study, path)


FORMATS: dict[str, Format] = {
    "csv": Format("csv", "hpc_hpo.results.csv_file:write_csv", is_text=True),
    "json": Format("json", "hpc_hpo.results.json_file:write_json", is_text=True),
    "hdf5": Format("h5", "hpc_hpo.results.hdf5:write_hdf5", is_text=False),
    "parquet": Format("parquet", "hpc_hpo.results.parquet_file:write_parquet", is_text=False),
    "optuna": Format("db", "hpc_hpo.results.optuna_file:write_optuna", is_text=False),
}
