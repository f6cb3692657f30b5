"""Studies in a store of MLflow, as MLflow itself reads them."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.cli.main import cli
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event, replay
from hpc_hpo.results.mlflow.export import MlflowExport
from hpc_hpo.results.mlflow.records import key_of
from hpc_hpo.results.mlflow.store import RunStore
from hpc_hpo.results.view import StudyView, open_study
from hpc_hpo.study.stores import Store, read_store
from tests import events as ev
from tests.extras import needs

STUDY = """name: digits
command: [python, train.py]
space:
  lr: {float: [0, 1]}
  act: {choice: [relu, [1, 2]]}
budget: {trials: 5}
"""
NAN = float("nan")


def history() -> list[Event]:
    at = ev.START
    curve = [[step, {"loss": 1.0 / (1 + step), "odd?": NAN}] for step in range(3)]
    more = [[step, {"loss": 1.0 / (1 + step)}] for step in range(3, 6)]
    return [
        {**ev.run(), "site": "local"},
        ev.asked(0, {"lr": 0.5, "act": [1, 2]}), ev.submit(0),
        ev.end(0, 1, "paused", "paused", reason="walltime", reports=curve, at=at + 20,
               checkpoint=ev.checkpoint(1, 2)),
        ev.submit(0, 2),
        ev.end(0, 2, "completed", "completed", loss=0.125, reports=more, at=at + 40,
               host="node2", checkpoint=ev.checkpoint(2, 5)),
        ev.asked(1, {"lr": 0.25, "act": "relu"}), ev.submit(1),
        ev.end(1, 1, "failed", "failed", at=at + 50,
               error={"kind": "exit", "message": "no\0pe", "traceback": "line 3"}),
        ev.asked(2, {"lr": 0.125, "act": "relu"}), ev.submit(2),
    ]  # fmt: skip


def mlflow_module() -> Any:
    """MLflow, demanded in CI."""
    mlflow = needs("mlflow")
    needs("alembic", of="MLFLOW")
    return mlflow


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, for tests that use it."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return mlflow_module()


def study(folder: Path, events: list[Event]) -> StudyView:
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "journal.jsonl").write_bytes(b"".join(seal(event) for event in events))
    return open_study(folder)


def client_of(mlflow: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient(store.uri)


def runs_of(client: Any, name: str = "digits") -> dict[str, Any]:
    """All runs of an experiment, by name; each name is there once."""
    experiment = client.get_experiment_by_name(name)
    runs = list(client.search_runs([experiment.experiment_id], max_results=5000))
    found = {run.info.run_name: run for run in runs}
    assert len(found) == len(runs)
    return found


@functools.cache
def empty_database() -> bytes:
    """A store without studies; MLflow takes seconds to make its tables."""
    with tempfile.TemporaryDirectory() as room:
        store = Store(Path(room) / "empty.db", files=False)
        with RunStore(store, "none", "").open_for_writing():
            pass
        return store.place.read_bytes()


def database(path: Path) -> Store:
    """A database that is there already."""
    if not path.exists():
        path.write_bytes(empty_database())
    return Store(path, files=False)


@pytest.fixture(params=["sqlite", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return database(tmp_path / "runs.db")
    return read_store(f"file:{tmp_path}/mlruns", tmp_path, "-o")


def test_that_each_trial_is_a_run_nested_in_the_study_s(
    mlflow: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = MlflowExport(study(tmp_path / "s", history()), store).write()
    assert found.runs == {"made": 3} and not found.skipped
    client = client_of(mlflow, store, monkeypatch)
    runs = runs_of(client)
    parent = runs.pop("digits")
    assert parent.data.tags["hpc_hpo.trials_failed"] == "1"
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["study.yaml"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {name: run.info.status for name, run in runs.items()} == {
        "trial 0": "FINISHED", "trial 1": "FAILED", "trial 2": "RUNNING",
    }  # fmt: skip
    first = runs["trial 0"]
    assert first.data.params == {"lr": "0.5", "act": "[1, 2]"}
    assert first.info.start_time == (ev.START + 10) * 1000
    assert first.info.end_time == (ev.START + 40) * 1000
    tags = first.data.tags
    assert (tags["hpc_hpo.state"], tags["hpc_hpo.slices"]) == ("completed", "2")
    assert (tags["hpc_hpo.host"], tags["hpc_hpo.block"]) == ("node1, node2", "b0")
    assert runs["trial 1"].data.tags["hpc_hpo.error"] == "no\\x00pe"


def test_that_metrics_have_their_steps_and_times_between_a_slice_s_ends(
    mlflow: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowExport(study(tmp_path / "s", history()), store).write()
    client = client_of(mlflow, store, monkeypatch)
    run = runs_of(client)["trial 0"]
    curve = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda m: m.timestamp)
    values = [(m.step, m.value) for m in curve]
    assert values == [*((step, 1.0 / (1 + step)) for step in range(6)), (5, 0.125)]
    times = [m.timestamp / 1000 - ev.START for m in curve]
    assert times == sorted(times) and times[2] == 20.0 and times[5] == 40.0
    assert all(10 < moment <= 20 for moment in times[:3])
    assert run.data.metrics["loss"] == 0.125
    assert math.isnan(run.data.metrics[key_of("odd?")])
    parent = runs_of(client)["digits"]
    best = client.get_metric_history(parent.info.run_id, "best_loss")
    assert [(m.step, m.value) for m in best] == [(1, 0.125)]


def test_that_checkpoints_and_errors_are_artifacts(
    mlflow: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowExport(study(tmp_path / "s", history()), store).write()
    client = client_of(mlflow, store, monkeypatch)
    runs = runs_of(client)
    name = ev.checkpoint(2, 5)["name"]
    assert runs["trial 0"].data.tags["hpc_hpo.checkpoint"] == name
    room = tmp_path / "got"
    room.mkdir()
    file = client.download_artifacts(runs["trial 0"].info.run_id, "checkpoint.json", str(room))
    assert f"trials/000000/{name}" in Path(file).read_text()
    file = client.download_artifacts(runs["trial 1"].info.run_id, "error.txt", str(room))
    assert Path(file).read_text() == "no\\x00pe\n\nline 3\n"


def test_that_writing_again_adds_what_is_new_and_nothing_twice(
    mlflow: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, counts = history(), []
    for end in (4, 5, 7, 9, len(events), len(events)):
        counts.append(dict(MlflowExport(study(tmp_path / "s", events[:end]), store).write().runs))
    assert counts == [
        {"made": 1}, {"added": 1}, {"added": 1, "made": 1}, {"same": 1, "added": 1},
        {"same": 2, "made": 1}, {"same": 3},
    ]  # fmt: skip
    once = database(tmp_path / "once.db")
    MlflowExport(study(tmp_path / "s", events), once).write()
    found = [client_of(mlflow, each, monkeypatch) for each in (store, once)]
    grown, whole = (runs_of(client) for client in found)
    assert set(grown) == set(whole)
    for name, run in whole.items():
        other = grown[name]
        assert (other.info.status, other.info.end_time) == (run.info.status, run.info.end_time)
        assert other.data.params == run.data.params and set(other.data.metrics) == set(
            run.data.metrics
        )
        for key in run.data.metrics:
            histories = [
                [
                    (m.step, m.timestamp, repr(m.value))
                    for m in c.get_metric_history(r.info.run_id, key)
                ]
                for c, r in zip(found, (other, run), strict=True)
            ]
            assert sorted(histories[0]) == sorted(histories[1])


def test_that_a_write_cut_off_in_the_middle_is_gone_on_with(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database(tmp_path / "store.db")
    view = study(tmp_path / "s", history())
    MlflowExport(view, store).write()
    client = client_of(mlflow, store, monkeypatch)
    run = runs_of(client)["trial 0"]
    # As it is before the tag that is written last.
    client.delete_tag(run.info.run_id, "hpc_hpo.written")
    before = client.get_metric_history(run.info.run_id, "loss")
    assert MlflowExport(view, store).write().runs == {"same": 2, "added": 1}
    assert len(client.get_metric_history(run.info.run_id, "loss")) == len(before) == 7
    assert runs_of(client)["trial 0"].data.tags["hpc_hpo.written"]


def test_that_a_writer_finds_what_another_has_written_meanwhile(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database(tmp_path / "store.db")
    view = study(tmp_path / "s", history())
    one, other = MlflowExport(view, store), MlflowExport(view, store)
    assert one.write([0]).runs == {"made": 1}
    assert other.write().runs == {"same": 1, "made": 2}
    assert one.write().runs == {"same": 3}
    assert len(runs_of(client_of(mlflow, store, monkeypatch))) == 4


def test_that_two_studies_of_one_name_are_kept_apart(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database(tmp_path / "store.db")
    MlflowExport(study(tmp_path / "s", history()), store).write()
    later = [{**event, "at": event["at"] + 1} for event in history()]
    assert MlflowExport(study(tmp_path / "t", later), store).write().runs == {"made": 3}


def test_that_a_deleted_experiment_is_named(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database(tmp_path / "store.db")
    view = study(tmp_path / "s", history())
    MlflowExport(view, store).write()
    client = client_of(mlflow, store, monkeypatch)
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    with pytest.raises(InputError, match="'digits' was deleted in MLflow"):
        MlflowExport(view, store).write()


def test_that_what_is_no_database_is_an_error_without_a_traceback(
    mlflow: Any, tmp_path: Path
) -> None:
    study(tmp_path / "s", history())
    (tmp_path / "x.db").write_text("no database " * 100)
    result = CliRunner().invoke(
        cli, ["export", str(tmp_path / "s"), "--format", "mlflow", "-o", str(tmp_path / "x.db")]
    )
    assert result.exit_code == 5 and "x.db: MLflow could not write" in result.output


def test_that_the_command_tells_what_it_did(mlflow: Any, tmp_path: Path) -> None:
    study(tmp_path / "s", history())
    for words in ("3 runs made, 0 added to, 0 as they were", "0 runs made, 0 added to, 3 as"):
        result = CliRunner().invoke(cli, ["export", str(tmp_path / "s"), "--format", "mlflow"])
        assert result.exit_code == 0 and words in result.output, result.output
    assert (tmp_path / "s" / "mlflow" / "mlflow.db").is_file()


#: Runs a command and fails if Python asks for a name or opens a connection.
LISTENING = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print("CALLS", event, args, file=sys.stderr, flush=True)
sys.addaudithook(hook)
from hpc_hpo.cli.main import main
main()
"""


def test_that_nothing_is_asked_of_the_network(mlflow: Any, tmp_path: Path) -> None:
    study(tmp_path / "s", history())
    env = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_DISABLE_TELEMETRY", "CI")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING, "export", str(tmp_path / "s"), "--format", "mlflow"],
        env=env, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 runs made" in done.stdout and "CALLS" not in done.stderr


def test_that_a_missing_mlflow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(InputError, match=r"hpc_hpo\[mlflow\]"):
        MlflowExport(study(tmp_path / "s", history()), Store(tmp_path / "x.db", files=False))


@pytest.mark.parametrize(
    ("text", "place", "files"),
    [
        ("out", "out/mlflow.db", False),
        ("out/runs.db", "out/runs.db", False),
        ("sqlite:///runs.sqlite", "runs.sqlite", False),
        ("sqlite:////abs/runs.db", "/abs/runs.db", False),
        ("file:old", "old", True),
        ("file:///abs/a%20b", "/abs/a b", True),
        ("mlruns", "mlruns", True),
    ],
)
def test_that_a_store_is_what_it_says(tmp_path: Path, text: str, place: str, files: bool) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("experiment_id: '0'\n")
    assert read_store(text, tmp_path, "-o") == Store(tmp_path / place, files)


@pytest.mark.parametrize(
    "text", ["", "http://host:5000", "postgresql://x/y", "sqlite://", "sqlite:///:memory:", "file:"]
)
def test_that_other_stores_are_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"-o: .*valid: a folder, sqlite:///FILE"):
        read_store(text, tmp_path, "-o")


@given(st.lists(st.text(st.characters(codec=None), max_size=300), min_size=2, max_size=2))
def test_that_names_become_keys_which_mlflow_takes_and_stay_different(names: list[str]) -> None:
    validation = needs("mlflow.utils.validation")
    one, other = map(key_of, names)
    assert len(one) <= 250
    validation._validate_metric_name(one)
    validation._validate_param_name(one)
    assert (one == other) == (names[0] == names[1])


def test_that_a_history_of_any_kind_can_be_written(mlflow: Any, tmp_path: Path) -> None:
    """Odd names and values: lists, unicode, what is not finite, a trial that never began."""
    odd = {"größe": "a\ud800\0", "a//b": 2**70, "c": float("inf"), "d": None, "": True,
           "long" * 90: "x" * 9000}  # fmt: skip
    events = [ev.run(), ev.asked(0, odd), ev.submit(0)]
    reports = [[n, {"a?": float("-inf"), "b" * 300: 1.0}] for n in range(2500)]
    events += [ev.end(0, 1, "lost", "paused", reports=reports), ev.asked(1, {})]
    store = database(tmp_path / "store.db")
    folder = StudyFolder(tmp_path)
    found = MlflowExport(StudyView(folder, {"name": "o"}, replay(events)), store).write()
    assert found.runs == {"made": 2} and not found.skipped
