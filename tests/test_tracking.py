"""Runs shown in MLflow while a study goes on: beside the loop, and never in its way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hpc_hpo import tracking as room
from hpc_hpo.errors import InputError, StorageError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import seal
from hpc_hpo.launch import SteeringRun, check, open_study, site_of
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.results.mlflow import live
from hpc_hpo.results.mlflow.export import MlflowExport, Summary
from hpc_hpo.results.view import StudyView
from hpc_hpo.results.view import open_study as view_of
from hpc_hpo.study import load_study
from hpc_hpo.study.stores import Store
from hpc_hpo.tracking import Tracker, check_tracking
from tests import events as ev
from tests.results.test_mlflow import database, runs_of
from tests.results.test_mlflow import mlflow as mlflow  # the fixture

STUDY = """name: small
objective: objective.py:train
space: {x: {float: [0, 1]}}
optimizer: random
budget: {trials: 5}
tracking: {mlflow: runs.db}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "objective.py").write_text("def train(config, trial):\n    return config['x']\n")
    return tmp_path


def completed(request: Any) -> Any:
    return {
        "run": request["run"], "trial": request["trial"], "slice": request["slice"],
        "end": "completed", "loss": request["point"]["x"], "started": 1.0, "ended": 2.0,
        "reports": [[0, {"loss": 1.0}]],
    }  # fmt: skip


def steer(place: Path) -> tuple[Any, list[str]]:
    study, folder = open_study(place / "study.yaml")
    run, said = SteeringRun(study, site_of(study), folder), []
    run.open()
    try:
        return run.steer(pilot=InlinePilot(completed, 2), say=said.append), said
    finally:
        run.close()


@pytest.mark.slow
def test_that_a_study_s_runs_are_in_the_store_when_it_is_done(
    mlflow: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LAST_WAIT_S", 100.0)
    store = database(place / "runs.db")
    outcome, said = steer(place)
    assert (outcome.reason, outcome.shown, said) == ("budget", "all runs are written", [])
    client = mlflow.MlflowClient(store.uri)
    runs = runs_of(client, "small")
    assert len(runs) == 6 and {run.info.status for run in runs.values()} == {"FINISHED"}
    # A later process finds them by their tags; an export has nothing to add.
    (place / "study.yaml").write_text(STUDY.replace("trials: 5", "trials: 7"))
    outcome, _ = steer(place)
    assert outcome.shown == "all runs are written"
    assert len(runs_of(client, "small")) == 8
    assert MlflowExport(view_of(place / "small"), store).write().runs == {"same": 7}


@pytest.mark.slow
def test_that_a_store_which_cannot_be_written_is_said_and_costs_no_trial(
    mlflow: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LAST_WAIT_S", 100.0)
    (place / "runs.db").write_text("no database " * 100)
    outcome, _ = steer(place)
    assert outcome.exit_code == 0 and outcome.state.trial_states["completed"] == 5
    assert "ended after" in outcome.shown and "runs.db: MLflow could not write" in outcome.shown
    assert "hpc-hpo export --format mlflow" in outcome.shown


@pytest.mark.slow
def test_that_the_follower_ends_with_its_parent(mlflow: Any, place: Path) -> None:
    store = database(place / "runs.db")
    folder = place / "small"
    folder.mkdir()
    (folder / "logs").mkdir()
    (folder / "study.yaml").write_text(STUDY)
    events = [ev.run(), ev.asked(0, {"x": 0.5}), ev.submit(0)]
    (folder / "journal.jsonl").write_bytes(b"".join(map(seal, events)))
    command = [sys.executable, "-m", "hpc_hpo.cli.main", "export", str(folder)]
    command += ["--format", "mlflow", "-o", store.uri, "--follow"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        end = time.monotonic() + 80
        while not (folder / "logs" / room.REPORT).exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
        with open(folder / "journal.jsonl", "ab") as stream:
            stream.write(seal(ev.end(0, 1, "completed", "completed", loss=0.5)))
        assert process.stdin is not None
        process.stdin.close()  # as the kernel does for a parent that is killed
        assert process.wait(80) == 0
    finally:
        process.kill()
        process.wait()
    assert runs_of(mlflow.MlflowClient(store.uri), "small")["trial 0"].info.status == "FINISHED"


def tracker_of(
    tmp_path: Path, code: str, now: Callable[[], float] = time.monotonic
) -> tuple[Tracker, list[str]]:
    (tmp_path / "logs").mkdir()
    said: list[str] = []
    command = [sys.executable, "-c", code]
    return Tracker(command, StudyFolder(tmp_path), now, said.append), said


def test_that_a_process_that_hangs_is_ended_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SHORT_WAIT_S", 0.2)
    tracker, _ = tracker_of(tmp_path, "import time; time.sleep(1000)")
    tracker.start()
    process = tracker._process
    assert process is not None
    assert tracker.finish(done=False).startswith("was not done in time; `hpc-hpo export")
    assert process.poll() is not None


def test_that_a_process_that_dies_is_said_once(tmp_path: Path) -> None:
    clock = iter(range(0, 10_000, 100))
    tracker, said = tracker_of(tmp_path, "import sys; sys.exit('boom')", lambda: next(clock))
    tracker.start()
    assert tracker._process is not None
    tracker._process.wait()
    for _ in range(3):
        tracker.observe()
    assert said == [f"mlflow: ended: boom; {room.MEND}"]
    assert tracker.finish(done=True) == f"ended: boom; {room.MEND}"


def test_that_a_trouble_of_the_process_is_said_once(tmp_path: Path) -> None:
    clock = iter(range(0, 10_000, 100))
    tracker, said = tracker_of(tmp_path, "input()", lambda: next(clock))
    tracker.start()
    (tmp_path / "logs" / room.REPORT).write_text('{"error": "disk full", "failed": 3}')
    for _ in range(3):
        tracker.observe()
    tracker.end()
    assert said == ["mlflow: disk full"]


def test_that_a_process_that_does_not_start_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "logs").mkdir()
    tracker = Tracker([str(tmp_path / "none")], StudyFolder(tmp_path), time.time, said.append)
    tracker.start()
    tracker.observe()
    assert len(said) == 1 and tracker.finish(done=True).startswith("was not started")


class FakeExport:
    """Fails so many times; remembers what it was given."""

    failures = 0
    given: ClassVar[list[list[int]]] = []

    def __init__(self, view: StudyView, store: Store) -> None:
        self.view = view

    def write(self, trials: list[int]) -> Summary:
        type(self).given.append(list(trials))
        if FakeExport.failures:
            FakeExport.failures -= 1
            raise StorageError("the disk is full")
        return Summary()


def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[list[Any]], failures: int
) -> tuple[live.LiveExport, list[list[int]]]:
    """Passes over a journal that grows by one part before each; then the steering ends."""
    monkeypatch.setattr(live, "MlflowExport", FakeExport)
    monkeypatch.setattr(FakeExport, "failures", failures)
    monkeypatch.setattr(FakeExport, "given", [])
    (tmp_path / "logs").mkdir()
    left = list(parts)

    def ended(rest: float) -> bool:
        if not left:
            return True
        with open(tmp_path / "journal.jsonl", "ab") as stream:
            stream.write(b"".join(map(seal, left.pop(0))))
        return False

    view = StudyView(StudyFolder(tmp_path), {"name": "s"}, None)  # type: ignore[arg-type]
    store = Store(tmp_path / "x.db", files=False)
    return live.LiveExport(view, store, lambda: 0.0, ended, lambda s: None), FakeExport.given


PARTS = [
    [ev.run(), ev.asked(0, {"x": 1}), ev.submit(0)],
    [ev.asked(1, {"x": 2}), ev.submit(1), {"e": "tick", "at": ev.START}],
    [{"e": "tick", "at": ev.START}],
    [ev.end(0, 1, "completed", "completed", loss=1.0)],
]


def test_that_only_trials_that_have_changed_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, given = follow(tmp_path, monkeypatch, PARTS, failures=0)
    follower.run()
    assert given == [[0], [1], [0]]


def test_that_what_failed_is_tried_again_with_what_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    follower, given = follow(tmp_path, monkeypatch, PARTS, failures=3)
    follower.run()
    assert given == [[0], [0, 1], [0, 1], [0, 1]]
    assert capsys.readouterr().out == "the disk is full\n", "said once"
    assert '"failed": 3' in (tmp_path / "logs" / room.REPORT).read_text()


def test_that_a_last_pass_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, given = follow(tmp_path, monkeypatch, PARTS[:1], failures=99)
    with pytest.raises(StorageError, match="the disk is full"):
        follower.run()
    assert len(given) == 1 + live.LAST_TRIES


def test_that_a_segment_begun_again_changes_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = {"e": "segment", "op": "rerun", "segment": None, "at": ev.START}
    follower, given = follow(tmp_path, monkeypatch, [*PARTS, [again]], failures=0)
    follower.run()
    assert given[-1] == [0, 1]


def test_that_a_missing_mlflow_is_found_before_anything_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "alembic" else object())
    study = load_study(place / "study.yaml")
    (problem,) = check_tracking(study)
    assert str(problem).startswith(f"{place}/study.yaml:6: tracking: it needs the package alembic")
    assert "pip install 'hpc_hpo[mlflow]'" in str(problem)
    assert problem.problem in [p.problem for p in check(study, site_of(study))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wandb", "nothing of that name"),
        ("{mlflow: 'http://host:5000'}", "results are not written to such a store"),
        ("{wandb: x}", "unknown key"),
        ("3", "tracking"),
    ],
)
def test_that_other_places_are_refused_by_name(place: Path, text: str, words: str) -> None:
    (place / "study.yaml").write_text(STUDY.replace("{mlflow: runs.db}", text))
    with pytest.raises(InputError, match=r"study.yaml:6: tracking") as error:
        load_study(place / "study.yaml")
    assert words in str(error.value)


def test_that_the_store_lies_beside_the_study_file_or_in_the_study(place: Path) -> None:
    for text, where in (("{mlflow: runs.db}", place / "runs.db"), ("mlflow", place / "s/mlflow")):
        (place / "study.yaml").write_text(STUDY.replace("{mlflow: runs.db}", text))
        tracking = load_study(place / "study.yaml").tracking
        assert tracking is not None
        store = tracking.store(place, place / "s")
        assert store.place in (where, where / "mlflow.db")
