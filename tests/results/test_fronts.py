"""Several objectives in tables, files and Optuna's own eyes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Event, StudyState, replay
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.results.columns import columns_of
from hpc_hpo.results.csv_file import write_csv
from hpc_hpo.results.fronts import Front, front_of, fronts, goals_of, volume
from hpc_hpo.results.hdf5 import write_hdf5
from hpc_hpo.results.hdf5_reading import read_columns
from hpc_hpo.results.json_file import write_json
from hpc_hpo.results.mlflow.records import trial_record
from hpc_hpo.results.optuna_file import write_optuna
from hpc_hpo.results.segments import segment_rows
from hpc_hpo.results.table import columns, trials_table
from tests import events as ev
from tests.extras import needs

STUDY: dict[str, Any] = {
    "name": "two",
    "direction": "minimize",
    "objectives": [
        {"name": "error", "direction": "minimize", "reference": 10},
        {"name": "a/b", "direction": "maximize", "reference": 0},
    ],
    "budget": {"trials": 9},
    "space": {"x": {"float": [0, 20]}},
}
GOALS = goals_of(STUDY)
#: error, gain; on the front are 1, 3, 4 and 6.
VALUES = [[5.0, 1.0], [1.0, 1.0], [4.0, 1.0], [2.0, 2.0], [9.0, 5.0], [9.5, 5.0], [1.0, 1.0]]


def history(values: list[list[float]] = VALUES) -> list[Event]:
    events = [ev.run()]
    for n, both in enumerate(values):
        events += [ev.asked(n, {"x": float(n)}), ev.submit(n)]
        events.append(ev.end(n, 1, "completed", "completed", loss=both[0], values=both))
    n = len(values)
    failed = ev.end(n, 1, "failed", "failed", error={"kind": "loss", "message": "nan"})
    return [*events, ev.asked(n, {"x": 0.5}), ev.submit(n), failed, ev.asked(n + 1, {"x": 0.7})]


@pytest.fixture(name="state")
def _state() -> StudyState:
    return replay(history())


def ids(trials: Any) -> list[int]:
    return [trial.id for trial in trials]


def test_that_the_front_is_in_the_order_of_the_first_objective(state: StudyState) -> None:
    front = fronts(state, GOALS)[None]
    assert ids(front) == [1, 6, 3, 4]
    # Up to error 10 and gain 0: 1 from error 1 on, 2 from 2 on, 5 from 9 on.
    assert volume(front, GOALS) == pytest.approx(1 * 1 + 7 * 2 + 1 * 5)
    assert fronts(state, []) == {}


def test_that_an_old_journal_of_one_loss_has_no_front() -> None:
    state = replay([ev.run(), ev.asked(0, {}), ev.submit(0),
                    ev.end(0, 1, "completed", "completed", loss=1.0)])  # fmt: skip
    assert fronts(state, GOALS) == {None: []}
    assert trials_table(state, 1, goals=GOALS)[0]["objective.error"] is None


NUMBER = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=25))
def test_that_a_front_that_grows_is_the_front_of_all(values: list[tuple[float, ...]]) -> None:
    study = {"objectives": [{"name": "a"}, {"name": "b", "direction": "maximize"}, {"name": "c"}]}
    goals = goals_of(study)
    trials = [
        Trial(n, {}, state=TrialState.COMPLETED, loss=v[0], values=list(v))
        for n, v in enumerate(values)
    ]
    front = Front(goals)
    for n, trial in enumerate(trials):
        assert front.add(trial) == (trial in front.trials)
        assert set(ids(front.trials)) == set(ids(front_of(trials[: n + 1], goals)))


def test_that_rows_have_a_column_for_each_and_no_rank(state: StudyState) -> None:
    rows = trials_table(state, 1, goals=GOALS)
    assert [row["pareto"] for row in rows] == [n in (1, 3, 4, 6) for n in range(9)]
    assert [row["objective.a/b"] for row in rows[:3]] == [1.0, 1.0, 1.0]
    assert {row["rank"] for row in rows} == {None}
    assert rows[7]["objective.error"] is None
    assert all(list(row) == columns(state, GOALS) for row in rows)


def test_that_files_hold_them(state: StudyState, tmp_path: Path) -> None:
    write_csv(state, STUDY, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert (rows[3]["objective.error"], rows[3]["objective.a/b"], rows[3]["pareto"]) == (
        "2.0", "2.0", "true",
    )  # fmt: skip
    assert rows[7]["objective.error"] == ""
    write_json(state, STUDY, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["front"] == {"trials": [1, 6, 3, 4], "hypervolume": 20.0}
    assert content["trials"][3]["objectives"] == {"error": 2.0, "a/b": 2.0}
    assert content["trials"][7]["objectives"] == {}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), max_size=6))
def test_that_hdf5_gives_the_same_columns_also_when_it_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]]
) -> None:
    path = tmp_path_factory.mktemp("h") / "results.h5"
    events = history(values)
    for part in (events[: 3 * (len(values) // 2) + 1], events):
        state = replay(part)
        write_hdf5(state, STUDY, path)
        for column, read in zip(
            columns_of(state, STUDY, "trials"), read_columns(path, "trials"), strict=True
        ):
            assert (column.name, column.kind, list(column.values)) == (
                read.name, read.kind, list(read.values),
            )  # fmt: skip


def test_that_optuna_finds_the_same_front(state: StudyState, tmp_path: Path) -> None:
    optuna = needs("optuna")
    write_optuna(state, STUDY, tmp_path / "a.db")
    study = optuna.load_study(study_name="two", storage=f"sqlite:///{tmp_path / 'a.db'}")
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["error", "a/b"]
    assert {t.user_attrs["trial"] for t in study.best_trials} == {1, 3, 4, 6}
    assert [t.state.name for t in study.trials[7:]] == ["FAIL", "WAITING"]
    assert study.trials[3].values == [2.0, 2.0]


def test_that_mlflow_has_a_metric_for_each(state: StudyState, tmp_path: Path) -> None:
    record = trial_record(state.trials[3], StudyFolder(tmp_path), ev.START, GOALS)
    found = {m.key: m.value for m in record.metrics}
    assert (found["loss"], found["objective.error"], found["objective.a/b"]) == (2.0, 2.0, 2.0)


def test_that_each_segment_has_its_own_front() -> None:
    events = [ev.run()]
    for n, both in enumerate(VALUES[:4]):
        events += [{**ev.asked(n, {"x": 1.0 * n}), "segment": "ab"[n % 2]}, ev.submit(n)]
        events.append(ev.end(n, 1, "completed", "completed", loss=both[0], values=both))
    study = {**STUDY, "segments": {"list": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}
    rows = {row.name: row for row in segment_rows(replay(events), study)}
    assert {name: ids(row.front) for name, row in rows.items()} == {"a": [2], "b": [1, 3], "c": []}
    assert rows["b"].plain()["front"] == {"trials": [1, 3], "hypervolume": 8 * 2 + 1 * 1}
    assert not math.isnan(rows["a"].plain()["front"]["hypervolume"])
