"""Each segment with its best point, as status, lists and exports show it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState, replay
from hpc_hpo.results.csv_file import write_csv
from hpc_hpo.results.hdf5 import write_hdf5
from hpc_hpo.results.json_file import write_json
from hpc_hpo.results.segments import segment_counts, segment_rows, spaces
from hpc_hpo.results.summary import summary
from tests import events

NAMES = ("a", "b", "c", "d", "e")
STUDY = {
    "name": "many",
    "budget": {"trials": 2},
    "segments": {
        "list": [
            {"name": "a", "values": {"k": 1}}, {"name": "b", "budget": {"trials": 1}},
            {"name": "c"}, {"name": "d"}, {"name": "e", "budget": {"target_loss": 1.0}},
        ]
    },
}  # fmt: skip


def told(trial: int, segment: str, loss: float | None, at: float = events.START) -> list:
    asked = {**events.asked(trial, {"x": trial / 10}), "segment": segment}
    how = "failed" if loss is None else "completed"
    return [asked, events.submit(trial), events.end(trial, 1, how, how, loss=loss, at=at)]


def segment(op: str, name: str, **facts) -> dict:
    return {"e": "segment", "op": op, "segment": name, "at": events.START, **facts}


@pytest.fixture
def state() -> StudyState:
    return replay(
        [
            events.run(),
            *told(0, "a", 3.0), *told(1, "a", 2.0), *told(2, "b", None), *told(3, "e", 0.5),
            {**events.asked(4, {"x": 0.4}), "segment": "c"},
            segment("fail", "d", problem="input data: no such file"),
        ]
    )  # fmt: skip


def test_that_every_segment_has_its_state_and_its_best(state: StudyState) -> None:
    rows = {row.name: row for row in segment_rows(state, STUDY)}
    assert {name: row.state for name, row in rows.items()} == {
        "a": "done", "b": "failed", "c": "running", "d": "failed", "e": "target",
    }  # fmt: skip
    best = rows["a"].best
    assert best is not None and (best.id, best.loss) == (1, 2.0)
    assert rows["b"].problem == "all its 1 trials have failed"
    assert rows["d"].problem == "input data: no such file"
    assert [rows[name].budget for name in NAMES] == [2, 1, 2, 2, 2]
    assert rows["a"].plain()["values"] == {"k": 1}


def test_that_the_largest_loss_is_best_when_it_is_maximised(state: StudyState) -> None:
    rows = segment_rows(state, {**STUDY, "direction": "maximize"})
    assert rows[0].best is not None and rows[0].best.loss == 3.0
    assert rows[4].state == "running", "its target of 1.0 is not reached"


def test_that_counts_and_problems_are_in_the_summary(state: StudyState, tmp_path: Path) -> None:
    found = summary(StudyFolder(tmp_path), state, STUDY, events.START)
    assert found["trials"]["budget"] == 9
    assert found["segments"] == {
        "new": 0, "running": 1, "done": 1, "target": 1, "stopped": 0, "failed": 2, "total": 5,
        "problems": {
            "b": "all its 1 trials have failed", "d": "input data: no such file",
        },
    }  # fmt: skip
    assert segment_counts(segment_rows(StudyState(), STUDY))["new"] == 5


def test_that_a_study_without_segments_says_nothing_of_them(tmp_path: Path) -> None:
    state = replay([events.run(), events.asked(0, {"x": 1.0})])
    study = {"name": "one", "budget": {"trials": 3}}
    assert summary(StudyFolder(tmp_path), state, study, 0.0)["segments"] is None
    (row,) = segment_rows(state, study)
    assert (row.name, row.state, row.budget) == (None, "running", 3)


def test_that_ranks_are_within_a_segment_in_every_export(state: StudyState, tmp_path: Path) -> None:
    write_csv(state, STUDY, tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["segment"], r["rank"]) for r in rows] == [
        ("a", "2"), ("a", "1"), ("b", ""), ("e", "1"), ("c", ""),
    ]  # fmt: skip
    write_hdf5(state, STUDY, tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert [s.decode() for s in file["trials/segment"]] == ["a", "a", "b", "e", "c"]
        assert list(file["trials/rank"]) == [2, 1, 0, 1, 0]
    write_json(state, STUDY, tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["best"]["trial"] == 3
    assert [row["segment"] for row in content["segments"]] == list(NAMES)
    assert content["segments"][0]["best"] == {"trial": 1, "loss": 2.0, "point": {"x": 0.1}}


def test_that_trials_of_a_segment_that_was_begun_again_have_no_rank(state: StudyState) -> None:
    state.apply(segment("rerun", "a"))
    for event in told(5, "a", 9.0):
        state.apply(event)
    rows = {row.name: row for row in segment_rows(state, STUDY)}
    best = rows["a"].best
    assert rows["a"].state == "running" and best is not None and best.loss == 9.0
    state.apply(segment("stop", "a"))
    assert segment_rows(state, STUDY)[0].state == "stopped"


def test_that_a_segment_that_was_added_is_listed_with_what_it_is(state: StudyState) -> None:
    spec = {"name": "z", "values": {"k": 7}, "budget": {"trials": 5}}
    state.apply(segment("add", "z", spec=spec))
    state.apply(segment("budget", "c", trials=30))
    rows = {row.name: row for row in segment_rows(state, STUDY)}
    assert (rows["z"].state, rows["z"].budget, rows["z"].values) == ("new", 5, {"k": 7})
    assert rows["c"].budget == 30


def test_that_spaces_are_those_that_segments_search(state: StudyState) -> None:
    state.apply(segment("add", "z", spec={"name": "z", "space": {"y": {"choice": [1, 2]}}}))
    x = {"float": [0, 1]}
    own = {"list": [{"name": "a", "space": {"x": None, "w": x}}, {"name": "b"}]}
    found = spaces(state, {"space": {"x": x}, "segments": own})
    assert found["a"] == {"w": x} and found["b"] == {"x": x}
    assert found["z"] == {"x": x, "y": {"choice": [1, 2]}}
    assert spaces(replay([]), {"space": {"x": x}}) == {None: {"x": x}}


def test_that_a_run_forgets_what_was_missing(state: StudyState) -> None:
    state.apply(events.run(2))
    assert {row.name: row.state for row in segment_rows(state, STUDY)}["d"] == "new"


def test_that_a_segment_with_less_than_its_budget_is_done_when_the_study_is() -> None:
    history = [events.run(), *told(0, "a", 3.0)]
    assert segment_rows(replay(history), STUDY)[0].state == "running"
    end = {"e": "stop", "run": 1, "at": events.START, "reason": "exhausted"}
    assert segment_rows(replay([*history, end]), STUDY)[0].state == "done"
