"""Results as one HDF5 file: typed columns that any HDF5 library reads, without this package.

Layout (format_version 1). A group is a table and each dataset in it a column, shape (rows,), that
can grow; there are no compound types. Text is UTF-8 of variable length, "" where there is none; a
float is NaN where there is none. Times are seconds since the epoch.

==================  ===========================================================================
/                   attributes: format, format_version, hpc_hpo (version that wrote the file),
                    direction, versions (JSON: those of the last run; see the journal), began
                    (when the first run did), stale_cells (see below)
/study              the frozen study, JSON (scalar text)
/trials             one row a trial, by number: trial, rank, parent, slices, failures, lost
                    (int64; rank 0 and parent -1 are none), loss, busy_s, started, ended
                    (float64), segment, state, error (text), point_json (the point, as in the
                    JSON export)
                    With several objectives: objective.NAME (float64) for each, and pareto (bool:
                    on the front of its segment)
/trials/point       one column a parameter: bool, int64, float64 or text, by its values. Where a
                    condition leaves it out: NaN or "", and a bool or int64 becomes float64.
                    Values of mixed kinds, lists and objects are JSON text, in which NaN is
                    {"__float__": "nan"}. Attributes: kind (the values' own), order (of the
                    parameters, from 0)
/curves             one row a report, by trial and step: trial, step (int64)
/curves/metrics     one column a metric (float64). Attribute: order (of the metrics, from 0)
/slices             one row a slice, by trial and number: trial, slice, run (int64), submitted,
                    started, ended, wasted_s (float64), block, worker, end, reason, restored,
                    error (text; end is "" while it is open)
==================  ===========================================================================

A name that HDF5 has no room for ("/" parts groups) is percent-encoded; the column's attribute
`name` is the name itself. In text, NUL and lone surrogates are shown as backslash escapes;
point_json keeps them.

A file that is written again goes on from what it holds: rows of trials that had ended stay, those
from the first open trial on are made anew, as are all ranks. The result is that of a new file, but
for the room that replaced values take (stale_cells counts them); once they are more than the file's
own, it is written anew. Either way the new file replaces the old one at once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc_hpo.fsio import exact_json, write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.model import FINAL, Trial
from hpc_hpo.results.columns import (
    METRIC,
    Column,
    columns_of,
    parameter_values,
)
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.table import (
    POINT,
    direction_sign,
    on_fronts,
    parameter_names,
    printable,
    ranks,
    strict_json,
    trials_from,
    versions_of,
)
from hpc_hpo.version import __version__

FORMAT, FORMAT_VERSION = "hpc_hpo results", 1

_ABSENT: dict[str, Any] = {"int": 0, "float": float("nan"), "text": "", "bool": False}
_DTYPES = {"int": "i8", "float": "f8", "bool": "?"}
#: Rows of a chunk. The filter leaves nothing of what a chunk of few rows does not fill.
_CHUNK = 1024


def dataset_name(name: str) -> str:
    """`name` as HDF5 can hold it: "." and "" mean other things there, "/" parts groups."""
    if name in ("", "."):
        return "%" + name.encode().hex()
    odd = {c for c in name if c in "%/\0" or "\ud800" <= c <= "\udfff"}
    return "".join(f"%{ord(c):02X}" if c in odd else c for c in name)


def _stored(kind: str, whole: Sequence[Any]) -> str:
    """The kind of a dataset that holds a column of this kind."""
    if kind in ("bool", "int") and any(value is None for value in whole):
        return "float"
    return {"time": "float", "json": "text"}.get(kind, kind)


def _data(values: Sequence[Any], kind: str, stored: str) -> list[Any]:
    if kind == "json":
        return ["" if value is None else exact_json(value) for value in values]
    absent = _ABSENT[stored]
    filled = [absent if value is None else value for value in values]
    return [printable(value) for value in filled] if stored == "text" else filled


class _Table:
    """One group, of whose columns the first `keep` rows stay.

    Args:
        counted: called with the number of values that have been replaced.
    """

    def __init__(self, group: Any, keep: int, counted: Callable[[int], None]) -> None:
        self.group, self.keep, self._counted = group, keep, counted
        self._names: set[str] = set()

    def put(
        self, column: Column, *, whole: Sequence[Any] | None = None, own_kind: bool = False
    ) -> None:
        """Write a column's rows after those that stay.

        Args:
            whole: all its values, where those that stay are not to be taken for absent ones.
            own_kind: leave its kind as an attribute.
        """
        import h5py

        name = dataset_name(column.name)
        self._names.add(name)
        present = self.group.get(name)
        stored = _stored(column.kind, column.values if whole is None else whole)
        if present is not None and present.attrs.get("kind", column.kind) == column.kind:
            same = (
                present.dtype.kind == {"text": "O", "int": "i", "float": "f", "bool": "b"}[stored]
            )
        else:
            same = False
        if same:
            self._counted(len(present) - self.keep)
            present.resize((self.keep + len(column.values),))
            if column.values:
                present[self.keep :] = _data(column.values, column.kind, stored)
            return
        if present is not None:
            self._counted(len(present))
            del self.group[name]
        values = [None] * self.keep + list(column.values) if whole is None else whole
        stored = _stored(column.kind, values)
        dtype = h5py.string_dtype("utf-8") if stored == "text" else _DTYPES[stored]
        dataset = self.group.create_dataset(
            name, (len(values),), dtype=dtype, data=_data(values, column.kind, stored),
            maxshape=(None,), chunks=(_CHUNK,), compression="gzip", compression_opts=1,
        )  # fmt: skip
        if name != column.name:
            dataset.attrs["name"] = printable(column.name)
        if own_kind:
            dataset.attrs["kind"] = column.kind

    def drop_others(self) -> None:
        """Remove the columns that were not put."""
        for name in set(self.group) - self._names:
            del self.group[name]

    def fill_others(self, rows: int) -> None:
        """Give the float columns that were not put their rows, without values."""
        for name in set(self.group) - self._names:
            column = self.group[name]
            self._counted(len(column) - self.keep)
            column.resize((rows,))
            column[self.keep :] = np.nan


def _cells(file: Any) -> int:
    """How many values its columns hold."""
    groups = (file["trials"], file["trials/point"], file["curves"], file["curves/metrics"])
    return sum(
        len(column)
        for group in (*groups, file["slices"])
        for column in group.values()
        if hasattr(column, "dtype")
    )


def _standing(file: Any, state: StudyState) -> int | None:
    """The first trial whose rows have to be made anew; None when it is no file of this study."""
    attributes = file.attrs
    began = attributes.get("began")
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        return None
    if began is None or began != state.began or "stale_cells" not in attributes:
        return None
    if attributes["stale_cells"] > _cells(file):
        return None
    trials = file["trials"]
    numbers, states = trials["trial"][:], trials["state"].asstr()[:]
    final = {each.value for each in FINAL}
    open_ones = [n for n, how in zip(numbers.tolist(), states, strict=True) if how not in final]
    first = min(open_ones, default=int(numbers[-1]) + 1 if len(numbers) else 0)
    keep = int(np.searchsorted(numbers, first))
    # A journal of which records were set aside tells another story.
    kept = [trial for trial in trials_from(state, 0) if trial.id < first]
    told = np.array([(trial.id, _or_nan(trial.loss), _last(trial)) for trial in kept])
    held = np.array([trials[name][:keep] for name in ("trial", "loss", "ended")]).T
    same = all(trial.final for trial in kept) and len(told) == len(held)
    return first if same and np.array_equal(told.reshape(-1, 3), held, equal_nan=True) else None


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _last(trial: Trial) -> float:
    """When the last of its slices ended, as the table of trials has it."""
    ends = [s.ended for s in trial.slices if s.started is not None and s.ended is not None]
    return max(ends, default=np.nan)


def _image(path: Path, state: StudyState) -> tuple[io.BytesIO, int]:
    """What the file holds that may be gone on from, and the first trial to write."""
    import h5py

    try:
        image = io.BytesIO(path.read_bytes())
        with h5py.File(image) as file:
            first = _standing(file, state)
        if first is not None:
            return image, first
    except (OSError, KeyError, AttributeError, ValueError):
        # There is none, or it is of something else: whatever it is, it is replaced.
        pass
    return io.BytesIO(), 0


def _tables(file: Any, first: int, counted: Callable[[int], None]) -> Iterator[_Table]:
    """Those of trials, points, curves, metrics and slices, made where they are not there."""
    for names in (("trials", "point"), ("curves", "metrics"), ("slices",)):
        group = file.require_group(names[0])
        keep = int(np.searchsorted(group["trial"][:], first)) if "trial" in group else 0
        yield _Table(group, keep, counted)
        for inner in names[1:]:
            yield _Table(group.require_group(inner), keep, counted)


def write_hdf5(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write the results in the layout above, going on from the file where it holds earlier ones.

    Raises:
        StorageError: it cannot be written; an older file is left as it was.
    """
    import h5py

    # Made in memory: a disk that fills up under the HDF5 library fails in ways that neither
    # say so nor leave the old file.
    image, first = _image(path, state)
    with h5py.File(image, "a") as file:
        stale = int(file.attrs.get("stale_cells", 0))

        def counted(rows: int) -> None:
            nonlocal stale
            stale += rows

        trials, points, curves, metrics, slices = _tables(file, first, counted)
        _put_trials(state, study, first, trials, points)
        for column in columns_of(state, study, "curves", first):
            if column.name.startswith(METRIC):
                name = column.name.removeprefix(METRIC)
                metrics.put(Column(name, column.kind, column.values))
            else:
                curves.put(column)
        metrics.fill_others(len(curves.group["step"]))
        reports = (r for trial in trials_from(state, 0) for _, r in sorted(trial.reports.items()))
        for order, name in enumerate(dict.fromkeys(name for report in reports for name in report)):
            metrics.group[dataset_name(name)].attrs["order"] = order
        for column in columns_of(state, study, "slices", first):
            slices.put(column)
        _describe(file, state, study, stale)
    write_atomic(path, image.getvalue())


def _put_trials(
    state: StudyState, study: dict[str, Any], first: int, trials: _Table, points: _Table
) -> None:
    for column in columns_of(state, study, "trials", first):
        if column.name.startswith(POINT):
            name = column.name.removeprefix(POINT)
            whole = parameter_values(state, name)
            points.put(Column(name, column.kind, column.values), whole=whole, own_kind=True)
        elif column.name == "parent":
            values = [-1 if value is None else value for value in column.values]
            every = (t.parent for t in trials_from(state, 0))
            whole = [-1 if parent is None else parent["trial"] for parent in every]
            # Whole, for files that were begun by versions without it.
            trials.put(Column("parent", "int", values), whole=whole)
        elif column.name not in ("rank", "pareto"):
            trials.put(column)
    points.drop_others()
    for order, name in enumerate(parameter_names(state)):
        points.group[dataset_name(name)].attrs["order"] = order
    text = [strict_json(trial.point) for trial in trials_from(state, first)]
    trials.put(Column("point_json", "text", text))
    # The best so far moves all others down.
    goals, numbers = goals_of(study), sorted(state.trials)
    place = {} if goals else ranks(state, direction_sign(study))
    anew = _Table(trials.group, 0, lambda rows: None)
    anew.put(Column("rank", "int", [place.get(number, 0) for number in numbers]))
    if goals:
        best = on_fronts(state, goals)
        anew.put(Column("pareto", "bool", [number in best for number in numbers]))


def _describe(file: Any, state: StudyState, study: dict[str, Any], stale: int) -> None:
    import h5py

    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["hpc_hpo"] = __version__
    file.attrs["direction"] = str(study.get("direction", "minimize"))
    file.attrs["versions"] = strict_json(versions_of(state))
    if state.began is not None:
        file.attrs["began"] = state.began
    file.attrs["stale_cells"] = stale
    # No attribute: those end at 64 KiB, and a choice of many values passes that.
    if "study" in file:
        del file["study"]
    file.create_dataset("study", data=strict_json(study), dtype=h5py.string_dtype("utf-8"))
