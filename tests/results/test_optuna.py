"""The Optuna export, as Optuna itself reads it."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.journal import Event, StudyState, replay
from hpc_hpo.results.optuna_file import MOST_REPORTS, write_optuna
from tests import events as ev
from tests.extras import needs


class Silent(WSGIRequestHandler):
    """A server's handler that tells nothing of its requests."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


STUDY = {
    "name": "digits",
    "direction": "maximize",
    "budget": {"trials": 30},
    "space": {
        "lr": {"float": [1e-5, 1e-1], "log": True},
        "layers": {"int": [1, 4]},
        "width": {"int": [8, 128], "condition": "layers >= 2"},
        "act": {"choice": ["relu", [1, 2], None]},
        "drop": {"method": "normal", "dimension": {"mu": 0.0, "sigma": 1.0}},
    },
}


@pytest.fixture
def optuna() -> Any:
    """Optuna, demanded in CI."""
    return needs("optuna")


def point(n: int) -> dict[str, Any]:
    layers = n % 4 + 1
    found = {"lr": 10.0 ** (-1 - n % 5), "layers": layers, "act": ["relu", [1, 2], None][n % 3]}
    return found | ({"width": 8 + n} if layers >= 2 else {}) | {"drop": 0.1 * n - 1.0}


def history(count: int = 24) -> list[Event]:
    events = [ev.run()]
    for n in range(count):
        events += [ev.asked(n, point(n)), ev.submit(n)]
        events.append(ev.end(n, 1, "completed", "completed", loss=float(n * 7 % count)))
    reports = [[step, {"acc": 1.0, "loss": 1.0 / (1 + step)}] for step in range(100)]
    return [
        *events,
        ev.asked(count, point(0)),
        ev.asked(count + 1, point(1)), ev.submit(count + 1),
        ev.asked(count + 2, point(2)), ev.submit(count + 2),
        ev.end(count + 2, 1, "failed", "failed", error={"kind": "exit", "message": "no\0pe"}),
        ev.asked(count + 3, point(3)), ev.submit(count + 3),
        ev.end(count + 3, 1, "paused", "paused", reports=reports),
    ]  # fmt: skip


def load(optuna: Any, file: Path, name: str = "digits") -> Any:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{file}")


def test_that_optuna_finds_the_same_best_and_the_same_counts(optuna: Any, tmp_path: Path) -> None:
    state, file = replay(history()), tmp_path / "study.db"
    write_optuna(state, STUDY, file)
    study = load(optuna, file)
    best = state.best(-1)
    assert best is not None and study.best_value == best.loss
    assert study.best_trial.number == best.id
    counts = [trial.state.name for trial in study.trials]
    assert {name: counts.count(name) for name in counts} == {
        "COMPLETE": 24, "WAITING": 1, "RUNNING": 2, "FAIL": 1,
    }  # fmt: skip
    for trial in study.trials:
        expected = state.trials[trial.number].point
        assert trial.params == {**expected, "act": {"[1, 2]": "[1, 2]"}.get(
            str(expected["act"]), expected["act"])}  # fmt: skip


def test_that_distributions_conditions_and_reports_are_there(optuna: Any, tmp_path: Path) -> None:
    write_optuna(replay(history()), STUDY, tmp_path / "s.db")
    trials = load(optuna, tmp_path / "s.db").trials
    kinds = optuna.distributions
    own = trials[1].distributions
    assert own["lr"] == kinds.FloatDistribution(1e-5, 1e-1, log=True)
    assert own["layers"] == kinds.IntDistribution(1, 4)
    assert own["width"] == kinds.IntDistribution(8, 128)
    assert own["act"] == kinds.CategoricalDistribution(("relu", "[1, 2]", None))
    assert "width" not in trials[0].params and "width" in trials[1].params
    curve = trials[27].intermediate_values
    assert len(curve) == MOST_REPORTS and min(curve) == 0 and max(curve) == 99
    assert all(value == 1.0 / (1 + step) for step, value in curve.items())
    assert trials[26].user_attrs["error"] == "no\\x00pe"
    assert trials[1].user_attrs["slices"] == 1
    assert trials[1].datetime_complete.timestamp() == ev.START


def test_that_a_copy_s_parent_and_step_are_told(optuna: Any, tmp_path: Path) -> None:
    parent = {"trial": 0, "checkpoint": "ckpt-1-1", "step": 7, "replaces": 0}
    state = replay([ev.run(), ev.asked(0, point(0)), {**ev.asked(1, point(1)), "parent": parent}])
    write_optuna(state, STUDY, tmp_path / "s.db")
    first, copy = load(optuna, tmp_path / "s.db").trials
    assert (copy.user_attrs["parent"], copy.user_attrs["parent_step"]) == (0, 7)
    assert "parent" not in first.user_attrs


def test_that_a_trial_stopped_early_is_a_pruned_one(optuna: Any, tmp_path: Path) -> None:
    paused = ev.end(0, 1, "paused", "paused", reason="rung", reports=[[1, {"loss": 0.5}]])
    early = {"e": "early", "trial": 0, "loss": 0.5, "at": ev.START + 90}
    state = replay([ev.run(), ev.asked(0, point(0)), ev.submit(0), paused, early])
    write_optuna(state, STUDY, tmp_path / "s.db")
    (trial,) = load(optuna, tmp_path / "s.db").trials
    assert trial.state.name == "PRUNED" and trial.intermediate_values == {1: 0.5}


def test_that_optuna_s_importance_and_plots_work_with_it(optuna: Any, tmp_path: Path) -> None:
    write_optuna(replay(history()), STUDY, tmp_path / "s.db")
    study = load(optuna, tmp_path / "s.db")
    found = optuna.importance.get_param_importances(study)
    assert set(found) >= {"lr", "layers", "act", "drop"}
    assert sum(found.values()) == pytest.approx(1.0)
    empty = [
        name
        for name in (
            "optimization_history", "param_importances", "parallel_coordinate", "slice",
            "contour", "intermediate_values", "edf", "timeline",
        )
        if not getattr(optuna.visualization, f"plot_{name}")(study).data
    ]  # fmt: skip
    assert not empty


@pytest.mark.slow
def test_that_optuna_dashboard_serves_the_storage(optuna: Any, tmp_path: Path) -> None:
    dashboard = needs("optuna_dashboard", of="OPTUNA")
    file = tmp_path / "s.db"
    write_optuna(replay(history()), STUDY, file)
    server = make_server("127.0.0.1", 0, dashboard.wsgi(f"sqlite:///{file}"), handler_class=Silent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}") as answer:
            found: bytes = answer.read()
        return found

    try:
        assert b"Optuna Dashboard" in get("/dashboard/")
        (study,) = json.loads(get("/api/studies"))["study_summaries"]
        assert study["study_name"] == "digits"
        found = json.loads(get(f"/api/studies/{study['study_id']}"))
        states = [trial["state"] for trial in found["trials"]]
        assert {state: states.count(state) for state in states} == {
            "Complete": 24, "Waiting": 1, "Running": 2, "Fail": 1,
        }  # fmt: skip
        assert found["best_trials"][0]["number"] == load(optuna, file).best_trial.number
        assert len(found["trials"][27]["intermediate_values"]) == MOST_REPORTS
        importance = json.loads(get(f"/api/studies/{study['study_id']}/param_importances"))
        assert {p["name"] for p in importance["param_importances"][0]} >= {"lr", "layers"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_that_each_segment_is_a_study(optuna: Any, tmp_path: Path) -> None:
    space = {"x": {"float": [0, 1]}}
    study = {"name": "many", "space": space, "budget": {"trials": 2},
             "segments": {"list": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}  # fmt: skip
    events = [ev.run()]
    for n, segment in enumerate("aabb"):
        events += [{**ev.asked(n, {"x": n / 4}), "segment": segment}, ev.submit(n)]
        events.append(ev.end(n, 1, "completed", "completed", loss=float(n)))
    events.append({"e": "segment", "op": "rerun", "segment": "a", "at": ev.START})
    write_optuna(replay(events), study, tmp_path / "s.db")
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 's.db'}")
    assert sorted(names) == ["many/a", "many/a (begun again)", "many/b", "many/c"]
    assert load(optuna, tmp_path / "s.db", "many/b").best_value == 2.0
    assert load(optuna, tmp_path / "s.db", "many/a").trials == []


def test_that_a_segment_s_study_has_the_distributions_of_its_own_space(
    optuna: Any, tmp_path: Path
) -> None:
    space = {"x": {"float": [0, 1]}, "depth": {"int": [1, 9]}}
    study = {"name": "many", "space": space,
             "segments": {"list": [{"name": "a", "space": {"depth": None}}]}}  # fmt: skip
    lr = {"float": [1e-7, 0.5], "log": True}
    events = [ev.run(), {"e": "segment", "op": "add", "segment": "z", "at": ev.START,
                         "spec": {"name": "z", "space": {"lr": lr}}}]  # fmt: skip
    for n, (name, values) in enumerate((("a", {"x": 0.5}), ("z", {"x": 0.1, "lr": 1e-3}))):
        events += [{**ev.asked(n, values), "segment": name}, ev.submit(n)]
    write_optuna(replay(events), study, tmp_path / "s.db")
    first, last = (load(optuna, tmp_path / "s.db", f"many/{n}").trials[0] for n in "az")
    assert set(first.distributions) == {"x"}
    assert last.distributions["lr"] == optuna.distributions.FloatDistribution(1e-7, 0.5, log=True)


def test_that_an_older_file_is_replaced_and_nothing_else_is_left(
    optuna: Any, tmp_path: Path
) -> None:
    file = tmp_path / "s.db"
    file.write_text("older")
    write_optuna(StudyState(), {"name": "empty"}, file)
    assert load(optuna, file, "empty").trials == []
    assert list(tmp_path.iterdir()) == [file]


def test_that_a_missing_optuna_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"hpc_hpo\[optuna\]"):
        write_optuna(StudyState(), STUDY, tmp_path / "s.db")
