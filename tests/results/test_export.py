"""The exported files hold what the journal says, in each format."""

import csv
import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event, StudyState, read_events, replay
from hpc_hpo.results.columns import TRIAL_COLUMNS
from hpc_hpo.results.export import FORMATS
from hpc_hpo.results.hdf5 import write_hdf5
from hpc_hpo.results.table import printable, strict_json, trials_table
from tests import events as ev

STUDY = {"name": "größe", "direction": "minimize", "budget": {"trials": 3}}
NAN = float("nan")
#: Formats that need no further package.
PLAIN = ("csv", "json", "hdf5")
HISTORY = [
    ev.run(),
    ev.asked(
        0, {"lr": 0.1, "act": 'tänh, "q"\n', "deep": True, "shape": [8, 4], "a/b": 1, "drop": True}
    ),
    ev.asked(1, {"lr": 1, "act": "relu", "deep": False, "width": 16, "shape": "flat", "a/b": 2}),
    ev.asked(2, {"lr": 0.3, "act": "", "deep": True, "shape": None, "a/b": 2**63}),
    ev.submit(0),
    ev.submit(1),
    ev.submit(2),
    ev.end(
        0,
        1,
        "paused",
        "paused",
        reason="walltime",
        reports=[[1, {"loss": 0.9}], [0, {"loss": NAN, "größe": 3}]],
    ),
    ev.end(1, 1, "completed", "completed", loss=0.25, reports=[[1, {"loss": float("inf")}]]),
    ev.end(2, 1, "failed", "failed", error={"kind": "exit", "message": "nul \0 and \ud800"}),
    ev.submit(0, 2),
]


def cells(column: h5py.Dataset) -> list[Any]:
    values = column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]
    return list(values.tolist())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """trials_table's rows again, parameters as JSON values."""
    with h5py.File(path) as file:
        trials = file["trials"]
        names = [d.attrs.get("name", key) for key, d in trials["point"].items()]
        table = {name: cells(trials[name]) for name in [*TRIAL_COLUMNS, "point_json"]}
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    for row in rows:
        point = json.loads(row.pop("point_json"))
        for name, value in row.items():
            none = (name == "rank" and value == 0) or (name == "parent" and value == -1)
            if value == "" or value != value or none:
                row[name] = None
        row |= {f"point.{name}": point.get(name) for name in names}
    return rows


def expected_rows(state: StudyState) -> list[dict[str, Any]]:
    rows = trials_table(state, 1)
    for row in rows:
        row["error"] = printable(row["error"]) if row["error"] else None
        for name in [key for key in row if key.startswith("point.")]:
            row[name] = json.loads(strict_json(row[name]))
    return rows


@given(ev.histories())
@ev.ON_FILES
def test_that_a_table_survives_the_way_from_journal_to_hdf5(
    tmp_path: Path, history: Sequence[Event]
) -> None:
    journal, file = tmp_path / "journal.jsonl", tmp_path / "results.h5"
    journal.write_bytes(b"".join(map(seal, history)))
    state = replay(read_events(journal))
    file.unlink(missing_ok=True)  # as of another study, which does not begin at the same moment
    write_hdf5(state, STUDY, file)
    assert read_rows(file) == expected_rows(state)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "results.h5"
    write_hdf5(replay(HISTORY), STUDY, path)
    return path


def test_that_hdf5_columns_have_the_types_of_their_values(file: Path) -> None:
    with h5py.File(file) as h5:
        point = h5["trials/point"]
        assert {name: column.dtype.kind for name, column in point.items()} == {
            "lr": "f",
            "act": "O",
            "deep": "b",
            "width": "f",
            "shape": "O",
            "a%2Fb": "O",
            "drop": "f",
        }
        np.testing.assert_array_equal(point["drop"][:], [1, NAN, NAN])
        np.testing.assert_array_equal(point["width"][:], [NAN, 16, NAN])
        np.testing.assert_array_equal(point["deep"][:], [True, False, True])
        assert cells(point["shape"]) == ["[8, 4]", '"flat"', ""]
        assert point["a%2Fb"].attrs["name"] == "a/b"
        assert h5["trials/loss"].dtype == np.float64
        np.testing.assert_array_equal(h5["trials/loss"][:], [NAN, 0.25, NAN])
        assert cells(h5["trials/error"]) == ["", "", "nul \\x00 and \\ud800"]


def test_that_hdf5_integers_stay_integers(tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    write_hdf5(replay([ev.asked(0, {"n": 2**62 + 1}), ev.asked(1, {"n": -3})]), STUDY, path)
    with h5py.File(path) as h5:
        assert h5["trials/point/n"].dtype == np.int64
        assert cells(h5["trials/point/n"]) == [2**62 + 1, -3]


def test_that_hdf5_curves_are_by_trial_and_step(file: Path) -> None:
    with h5py.File(file) as h5:
        curves = h5["curves"]
        assert cells(curves["trial"]) == [0, 0, 1]
        assert cells(curves["step"]) == [0, 1, 1]
        np.testing.assert_array_equal(curves["metrics/loss"][:], [NAN, 0.9, np.inf])
        np.testing.assert_array_equal(curves["metrics/größe"][:], [3, NAN, NAN])


def test_that_hdf5_slices_tell_where_and_how(file: Path) -> None:
    with h5py.File(file) as h5:
        slices = h5["slices"]
        assert cells(slices["trial"]) == [0, 0, 1, 2]
        assert cells(slices["slice"]) == [1, 2, 1, 1]
        assert cells(slices["end"]) == ["paused", "", "completed", "failed"]
        assert cells(slices["reason"]) == ["walltime", "", "", ""]
        assert cells(slices["block"]) == ["b0", "", "b0", "b0"]
        np.testing.assert_array_equal(slices["ended"][:], [ev.START, NAN, ev.START, ev.START])


def test_that_hdf5_says_what_it_is_and_holds_the_study(file: Path) -> None:
    with h5py.File(file) as h5:
        assert h5.attrs["format"] == "hpc_hpo results"
        assert h5.attrs["format_version"] == 1
        assert h5.attrs["direction"] == "minimize"
        assert json.loads(h5.attrs["versions"]) == {"hpc_hpo": "0.1.0"}
        assert json.loads(h5["study"].asstr()[()]) == STUDY


def test_that_a_study_of_any_size_fits_into_hdf5(tmp_path: Path) -> None:
    study = STUDY | {"space": {"c": {"choice": ["x" * 40 + str(i) for i in range(3000)]}}}
    write_hdf5(replay([]), study, tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as h5:
        assert json.loads(h5["study"].asstr()[()]) == study


@pytest.mark.parametrize("name", PLAIN)
def test_that_an_empty_study_can_be_exported(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    FORMATS[name].write(replay([]), STUDY, path)
    if name == "csv":
        assert path.read_text().splitlines()[0].startswith("trial,segment,state,loss")
        assert len(path.read_text().splitlines()) == 1
    elif name == "json":
        assert json.loads(path.read_text()) == {"study": STUDY, "best": None, "trials": []}
    else:
        assert read_rows(path) == []


@pytest.mark.parametrize("name", PLAIN)
def test_that_a_failed_export_leaves_the_older_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results"
    path.write_text("older")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="make room"):
        FORMATS[name].write(replay(HISTORY), STUDY, path)
    assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", PLAIN)
def test_that_an_export_depends_on_the_journal_alone(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "a", tmp_path / "b"):
        FORMATS[name].write(replay(HISTORY), STUDY, path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_that_csv_reads_back_with_quotes_newlines_and_absent_values(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    FORMATS["csv"].write(replay(HISTORY), STUDY, path)
    with open(path, newline="", encoding="utf-8") as stream:
        first, second, third = csv.DictReader(stream)
    assert first["point.act"] == 'tänh, "q"\n'
    assert (first["point.width"], second["point.width"]) == ("", "16")
    assert (first["point.shape"], first["point.deep"]) == ("[8, 4]", "true")
    assert float(first["point.lr"]) == 0.1
    assert (first["loss"], second["loss"], second["rank"]) == ("", "0.25", "1")
    assert third["error"] == "nul \\x00 and \\ud800"


def test_that_json_holds_points_reports_and_slices(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    FORMATS["json"].write(replay(HISTORY), STUDY, path)
    found = json.loads(path.read_text())
    assert found["study"] == STUDY
    assert found["best"] == found["trials"][1]
    first = found["trials"][0]
    assert first["point"] == HISTORY[1]["point"]
    assert first["reports"] == [
        {"step": 0, "loss": "NaN", "größe": 3},
        {"step": 1, "loss": 0.9},
    ]
    assert [(s["number"], s["end"], s["reason"]) for s in first["slices"]] == [
        (1, "paused", "walltime"),
        (2, None, None),
    ]
    assert found["trials"][2]["error"]["kind"] == "exit"


def test_that_the_best_of_a_maximised_loss_is_the_greatest(tmp_path: Path) -> None:
    history = [ev.run()]
    for trial, loss in enumerate([0.1, 0.7, 0.3]):
        history += [
            ev.asked(trial, {"x": trial}),
            ev.submit(trial),
            ev.end(trial, 1, "completed", "completed", loss=loss),
        ]
    FORMATS["json"].write(replay(history), STUDY | {"direction": "maximize"}, tmp_path / "r")
    assert json.loads((tmp_path / "r").read_text())["best"]["loss"] == 0.7
