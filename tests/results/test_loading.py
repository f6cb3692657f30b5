"""hpc_hpo.load, and what the files that go with it hold: the same table on every way."""

from __future__ import annotations

import builtins
import importlib.util
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpc_hpo
from hpc_hpo.errors import InputError
from hpc_hpo.fsio import exact_json, seal
from hpc_hpo.journal import Event, replay
from hpc_hpo.results import hdf5
from hpc_hpo.results.columns import TABLES, Column, columns_of
from hpc_hpo.results.export import FORMATS
from hpc_hpo.results.hdf5 import write_hdf5
from hpc_hpo.results.hdf5_reading import read_columns
from tests import events as ev
from tests.extras import needs

STUDY = {"name": "größe", "direction": "minimize", "budget": {"trials": 3}}
NAN = float("nan")


def plain(columns: Sequence[Column]) -> str:
    """Columns as text, in their order, in which equal values of unlike types differ; NaN of a
    metric is none."""
    return exact_json([
        [
            column.name,
            column.kind,
            [None if column.name[:7] == "metric." and v != v else v for v in column.values],
        ]
        for column in columns
    ])  # fmt: skip


@given(ev.histories())
@ev.ON_FILES
def test_that_tables_read_from_hdf5_are_those_made_from_the_journal(
    tmp_path: Path, history: Sequence[Event]
) -> None:
    state, file = replay(history), tmp_path / "results.h5"
    file.unlink(missing_ok=True)
    write_hdf5(state, STUDY, file)
    for table in TABLES:
        assert plain(read_columns(file, table)) == plain(columns_of(state, STUDY, table))


def test_that_nan_empty_text_lists_and_absent_values_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "r.h5"
    values: list[Any] = ["", "NaN", NAN, None, [NAN, {"é": math.inf}], 2**70, True, 1, 1.0]
    points = [{"mixed": value, "x": value if value != value else 0.5} for value in values]
    points.append({"text": ""})
    state = replay([ev.run(), *(ev.asked(n, point) for n, point in enumerate(points))])
    write_hdf5(state, STUDY, file)
    found = {column.name: column for column in read_columns(file, "trials")}
    assert exact_json(found["point.mixed"].values) == exact_json([*values, None])
    assert exact_json(found["point.x"].values) == exact_json([p.get("x") for p in points])
    assert found["point.text"].values == [None] * 9 + [""]


def test_that_metrics_keep_their_order(tmp_path: Path) -> None:
    reports = [[1, {"loss": 2.0, "acc": 0.5}], [2, {"loss": 1.0, "a": 0.0}]]
    history = [ev.run(), ev.asked(0, {"x": 0.5}), ev.submit(0)]
    state = replay([*history, ev.end(0, 1, "paused", "paused", reports=reports)])
    write_hdf5(state, STUDY, tmp_path / "r.h5")
    names = [column.name for column in read_columns(tmp_path / "r.h5", "curves")]
    assert names == ["trial", "step", "metric.loss", "metric.acc", "metric.a"]


def test_that_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("trial,loss\n")
    with pytest.raises(InputError, match=r"results\.csv: is no study.*a study's folder"):
        hpc_hpo.load(tmp_path / "results.csv")


def content(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file but what is of no study."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
            found[name] = (str(item.dtype), repr(np.asarray(value).tolist()), dict(item.attrs))

    with h5py.File(path) as file:
        file.visititems(visit)
        found["attributes"] = {k: v for k, v in file.attrs.items() if k != "stale_cells"}
    return found


@given(ev.histories(), st.data())
@ev.ON_FILES
def test_that_a_file_gone_on_with_holds_what_a_new_one_does(
    tmp_path: Path, history: Sequence[Event], data: st.DataObject
) -> None:
    grown, new = tmp_path / "grown.h5", tmp_path / "new.h5"
    grown.unlink(missing_ok=True)
    new.unlink(missing_ok=True)
    for end in sorted(data.draw(st.lists(st.integers(1, len(history)), max_size=3))):
        write_hdf5(replay(history[:end]), STUDY, grown)
    write_hdf5(replay(history), STUDY, grown)
    write_hdf5(replay(history), STUDY, new)
    assert content(grown) == content(new)


def ended(trials: range, *, began: float = ev.START, x: Any = 0.5) -> Iterator[Event]:
    yield ev.run(at=began)
    for trial in trials:
        yield ev.asked(trial, {"x": x})
        yield ev.submit(trial)
        yield ev.end(trial, 1, "completed", "completed", loss=1.0 / (1 + trial))


def made_anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of first trials for which write_hdf5 makes rows, as it goes."""
    firsts: list[int] = []

    def counted(state: Any, study: Any, table: str, first: int = 0) -> list[Column]:
        firsts.append(first)
        return columns_of(state, study, table, first)

    monkeypatch.setattr(hdf5, "columns_of", counted)
    return firsts


def test_that_rows_of_trials_that_had_ended_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, firsts = tmp_path / "r.h5", made_anew(monkeypatch)
    write_hdf5(replay([*ended(range(5)), ev.asked(5, {"x": 1.0})]), STUDY, file)
    write_hdf5(replay(ended(range(8))), STUDY, file)
    assert firsts == [0, 0, 0, 5, 5, 5]
    with h5py.File(file) as h5:
        assert h5["trials/rank"][:].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("what", ["another study", "another story", "another file"])
def test_that_nothing_is_kept_of_a_file_of_something_else(tmp_path: Path, what: str) -> None:
    file, new = tmp_path / "r.h5", tmp_path / "new.h5"
    if what == "another file":
        file.write_bytes(b"some text")
    else:
        other = ended(range(3), began=1.0) if what == "another study" else ended(range(0, 6, 2))
        write_hdf5(replay(other), STUDY, file)
    state = replay(ended(range(6)))
    write_hdf5(state, STUDY, file)
    write_hdf5(state, STUDY, new)
    assert content(file) == content(new)


def test_that_a_file_written_again_and_again_stays_small(tmp_path: Path) -> None:
    file, new = tmp_path / "r.h5", tmp_path / "new.h5"
    text = "x" * 500
    state = replay([*ended(range(1, 40), x=text), ev.asked(0, {"x": text})])
    for _ in range(30):
        write_hdf5(state, STUDY, file)
    write_hdf5(state, STUDY, new)
    assert file.stat().st_size < 3 * new.stat().st_size


# ---------------------------------------------------------------- hpc_hpo.load

HISTORY = [
    ev.run(),
    ev.asked(0, {"lr": 0.1, "act": "tänh", "deep": True, "shape": [8, 4]}),
    ev.asked(1, {"lr": 1, "act": "relu", "deep": False, "width": 16, "shape": "flat"}),
    ev.submit(0),
    ev.submit(1),
    ev.end(1, 1, "completed", "completed", loss=0.25, reports=[[1, {"step": 2.5}], [0, {"l": 3}]]),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"".join(map(seal, HISTORY)))
    return folder


@pytest.fixture
def no_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pandas is not installed."""
    real_spec, real_import = importlib.util.find_spec, builtins.__import__

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "pandas" else real_spec(name, package)

    def load(name: str, *rest: Any) -> Any:
        assert name.split(".")[0] != "pandas"
        return real_import(name, *rest)

    monkeypatch.setattr("hpc_hpo.results.loading.find_spec", find)
    monkeypatch.setattr(builtins, "__import__", load)


@pytest.mark.usefixtures("no_pandas")
def test_that_a_study_is_loaded_as_dicts_without_pandas(folder: Path) -> None:
    first, second = hpc_hpo.load(folder)
    assert (second["trial"], second["loss"], second["rank"]) == (1, 0.25, 1)
    assert first["point.shape"] == [8, 4] and first["point.width"] is None
    file = folder / "results.h5"
    write_hdf5(replay(HISTORY), STUDY, file)
    for table in TABLES:
        assert hpc_hpo.load(file, table) == hpc_hpo.load(folder, table)
    assert hpc_hpo.load(folder, "curves") == [
        {"trial": 1, "step": 0, "metric.l": 3.0, "metric.step": None},
        {"trial": 1, "step": 1, "metric.l": None, "metric.step": 2.5},
    ]


def test_that_a_frame_has_the_types_of_its_values(folder: Path) -> None:
    pandas = needs("pandas")
    table = hpc_hpo.load(folder)
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} | {
        "started": "", "ended": ""
    } == {
        "trial": "int64", "segment": "string", "state": "string", "loss": "float64",
        "rank": "Int64", "slices": "int64", "failures": "int64", "lost": "int64",
        "busy_s": "float64", "started": "", "ended": "", "error": "string",
        "parent": "Int64",
        "point.lr": "float64", "point.act": "string", "point.deep": "bool",
        "point.shape": "object", "point.width": "Int64",
    }  # fmt: skip
    assert table["ended"][1] == pandas.Timestamp(ev.START, unit="s", tz="UTC")
    assert table["loss"].isna().tolist() == [True, False]
    write_hdf5(replay(HISTORY), STUDY, folder / "results.h5")
    for name in TABLES:
        again = hpc_hpo.load(folder / "results.h5", name)
        pandas.testing.assert_frame_equal(again, hpc_hpo.load(folder, name))


def test_that_a_study_without_trials_has_a_table_with_its_columns(tmp_path: Path) -> None:
    needs("pandas")
    (tmp_path / "journal.jsonl").write_bytes(seal(ev.run()))
    table = hpc_hpo.load(tmp_path)
    assert len(table) == 0 and list(table)[:3] == ["trial", "segment", "state"]


@pytest.mark.parametrize(
    ("name", "table", "problem"),
    [
        ("digits", "trails", "no such table; found 'trails'; valid: trials, curves, slices"),
        ("nowhere", "trials", "nowhere: does not exist"),
        ("digits/none.h5", "trials", "none.h5: cannot be read: "),
        ("digits/journal.h5", "trials", "journal.h5: cannot be read: "),
        ("digits/other.h5", "trials", "is no results file of version 1; valid: a results.h5"),
    ],
)
def test_that_what_cannot_be_loaded_is_one_clear_error(
    folder: Path, name: str, table: str, problem: str
) -> None:
    (folder / "journal.h5").write_bytes((folder / "journal.jsonl").read_bytes())
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError) as caught:
        hpc_hpo.load(folder.parent / name, table)
    assert problem in str(caught.value)


def test_that_importing_the_package_imports_no_results() -> None:
    code = "import hpc_hpo, sys; print([m for m in sys.modules if m.startswith('hpc_hpo.')])"
    done = os.popen(f'{sys.executable} -c "{code}"').read()
    assert done.strip() == "['hpc_hpo.version']"


# ---------------------------------------------------------------- Parquet


def test_that_parquet_has_typed_columns_and_nulls(tmp_path: Path) -> None:
    needs("pyarrow")
    import pyarrow.parquet

    FORMATS["parquet"].write(replay(HISTORY), STUDY, tmp_path / "r.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "r.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["trial"] == types["rank"] == types["point.width"] == "int64"
    assert types["loss"] == types["point.lr"] == "double"
    assert types["point.deep"] == "bool" and types["point.act"] == types["error"] == "string"
    assert types["ended"] == "timestamp[us, tz=UTC]"
    assert table["rank"].to_pylist() == [None, 1]
    assert table["point.shape"].to_pylist() == ["[8, 4]", '"flat"']
    assert table["ended"].to_pylist()[1].timestamp() == ev.START
    assert json.loads(table.schema.metadata[b"hpc_hpo.study"]) == STUDY


def test_that_parquet_without_pyarrow_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow.*pip install 'hpc_hpo\[parquet\]'"):
        FORMATS["parquet"].write(replay(HISTORY), STUDY, tmp_path / "r.parquet")
    assert not list(tmp_path.iterdir())


@given(ev.histories())
@ev.ON_FILES
def test_that_every_history_fits_into_parquet(tmp_path: Path, history: Sequence[Event]) -> None:
    needs("pyarrow")
    import pyarrow.parquet

    state, path = replay(history), tmp_path / "r.parquet"
    FORMATS["parquet"].write(state, STUDY, path)
    table = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
    expected = {column.name: column.values for column in columns_of(state, STUDY, "trials")}
    assert table["trial"].to_pylist() == expected["trial"]
    assert table["loss"].to_pylist() == expected["loss"]
    assert table.num_columns == len(expected)
