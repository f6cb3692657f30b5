"""Results as CSV: one line for each trial, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.table import columns, direction_sign, printable, strict_json, trials_table


def _cell(value: Any) -> Any:
    # Lists, objects, true and false as JSON; text and numbers as they are; None as nothing.
    if isinstance(value, str):
        return printable(value)
    return strict_json(value) if isinstance(value, (list, dict, bool)) else value


def write_csv(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write trials_table as UTF-8 CSV (RFC 4180) with a header line; an absent value is empty.

    A study without trials gives the header alone, of the columns that every study has.

    Raises:
        StorageError: it cannot be written.
    """
    goals = goals_of(study)
    table = trials_table(state, direction_sign(study), goals=goals)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(printable, columns(state, goals)))
    writer.writerows([_cell(value) for value in row.values()] for row in table)
    write_atomic(path, text.getvalue())
