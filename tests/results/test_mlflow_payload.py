"""A payload's own mlruns, from its archive of metrics into its trial's run."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import replay
from hpc_hpo.results.mlflow.export import MlflowExport, Summary
from hpc_hpo.results.mlflow.payload import payload_runs
from hpc_hpo.results.view import StudyView
from hpc_hpo.study.stores import Store
from tests import events as ev
from tests.results.test_mlflow import database, runs_of
from tests.results.test_mlflow import mlflow as mlflow  # the fixture

STUDY = {"name": "grid", "evaluation": {"metrics": "metrics.tgz", "meta": "meta.json"}}
META = "run_id: {}\nrun_name: inner\nstatus: 3\nstart_time: 1000\nend_time: 2000\n"
RUN = {
    "meta.yaml": META.format("a" * 32),
    "params/lr": "0.5",
    "params/depth": "3",
    "metrics/w": "1000 0.25 0\n2000 0.5 1\n",
    "metrics/val/loss": "1000 nan\n",
    "metrics/loss": "1000 9 0\n",
    "tags/model": "cnn",
    "tags/mlflow.user": "someone",
    "artifacts/plot.txt": "a plot",
}


def archive(path: Path, files: Mapping[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def placed(run: Mapping[str, str], where: str = f"mlruns/0/{'a' * 32}/") -> dict[str, str]:
    """Files of one run in the layout."""
    return {"mlruns/0/meta.yaml": "experiment_id: '0'\n", **{where + k: v for k, v in run.items()}}


def export(tmp_path: Path, files: Mapping[str, str]) -> tuple[Summary, Store]:
    """A study of one trial, which has left this archive."""
    archive(tmp_path / "s" / "metrics" / "metrics.tgz_0", files)
    (tmp_path / "s" / "metrics" / "meta.json_0").write_text('{"epochs": 3}')
    events = [ev.run(), ev.asked(0, {"lr": 0.5, "depth": 2}), ev.submit(0)]
    events.append(ev.end(0, 1, "completed", "completed", loss=0.125))
    store = database(tmp_path / "all.db")
    view = StudyView(StudyFolder(tmp_path / "s"), STUDY, replay(events))
    return MlflowExport(view, store).write(), store


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()


def test_that_the_only_run_is_merged_into_its_trial_s(mlflow: Any, tmp_path: Path) -> None:
    found, store = export(tmp_path, placed(RUN))
    assert not found.skipped
    client = mlflow.MlflowClient(store.uri)
    run = runs_of(client, "grid")["trial 0"]
    data = run.data
    assert data.params == {"lr": "0.5", "depth": "2", "payload.depth": "3"}
    assert (data.metrics["loss"], data.metrics["payload.loss"]) == (0.125, 9.0)
    curve = [
        (m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "w")
    ]
    assert curve == [(0, 0.25, 1000), (1, 0.5, 2000)]
    assert data.metrics["val/loss"] != data.metrics["val/loss"]  # NaN
    assert (data.tags["model"], data.tags["hpc_hpo.payload_run"]) == ("cnn", "a" * 32)
    listed = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert "mlflow.user" not in data.tags
    assert listed == {"metrics.tgz", "meta.json", "plot.txt"}


def test_that_several_runs_are_nested_in_it(mlflow: Any, tmp_path: Path) -> None:
    second = {**RUN, "meta.yaml": META.format("b" * 32).replace("inner", "other")}
    files = placed(RUN) | placed(second, f"mlruns/1/{'b' * 32}/")
    _, store = export(tmp_path, files)
    client = mlflow.MlflowClient(store.uri)
    runs = runs_of(client, "grid")
    assert set(runs) == {"grid", "trial 0", "inner", "other"}
    trial = runs["trial 0"]
    assert trial.data.params == {"lr": "0.5", "depth": "2"}
    for name in ("inner", "other"):
        assert runs[name].data.tags["mlflow.parentRunId"] == trial.info.run_id
        assert runs[name].data.metrics["loss"] == 9.0
        assert (runs[name].info.start_time, runs[name].info.end_time) == (1000, 2000)
    again, _ = export(tmp_path, files)
    assert again.runs == {"added": 1} and len(runs_of(client, "grid")) == 4


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (placed({**RUN, "metrics/w": "1000 0.5 0\n1000 zero 1\n"}), "metrics/w, line 2: found"),
        (placed({**RUN, "meta.yaml": "[1, 2"}), "mlruns/0/a"),
        (placed({**RUN, "meta.yaml": "just text"}), "meta.yaml is no mapping"),
        (placed({**RUN, "meta.yaml": "status: 3"}), "it names no run"),
        (placed({**RUN, "meta.yaml": META.format("a") + "start_time: x"}), "invalid literal"),
        ({"mlruns/w": "1 0.5\n"}, "its mlruns holds no run of MLflow"),
        ({"../../out": "x", **placed(RUN)}, "its member '../../out' is refused"),
    ],
)
def test_that_what_is_malformed_is_named_and_the_trial_is_written(
    mlflow: Any, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    found, store = export(tmp_path, files)
    (problem,) = found.skipped
    assert problem.startswith("trial 0: metrics.tgz_0: ") and words in problem
    run = runs_of(mlflow.MlflowClient(store.uri), "grid")["trial 0"]
    assert words in run.data.tags["hpc_hpo.payload_problem"] and run.data.metrics["loss"] == 0.125
    assert not (tmp_path.parent / "out").exists() and run.data.tags["hpc_hpo.written"]


def test_that_one_malformed_run_does_not_spoil_another(tmp_path: Path) -> None:
    bad = {**RUN, "meta.yaml": META.format("b"), "metrics/w": "?"}
    path = archive(tmp_path / "m" / "a.tgz", placed(RUN) | placed(bad, "mlruns/0/b/"))
    with payload_runs(path) as found:
        assert list(found.runs) == ["a" * 32] and len(found.problems) == 1


def test_that_an_archive_of_something_else_is_no_problem(tmp_path: Path) -> None:
    with payload_runs(archive(tmp_path / "m" / "a.tgz", {"history.csv": "1,2"})) as found:
        assert not found.runs and not found.problems


def test_that_a_damaged_archive_is_named(tmp_path: Path) -> None:
    whole = archive(tmp_path / "m" / "a.tgz", placed(RUN))
    whole.write_bytes(whole.read_bytes()[:200])
    with payload_runs(whole) as found:
        (problem,) = found.problems
    assert problem.startswith("a.tgz: ")


def test_that_the_grid_s_example_leaves_a_run_that_mlflow_opens_itself(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Path(__file__).parents[2] / "jobs" / "atlas"
    work = tmp_path / "work"
    (work / "state").mkdir(parents=True)
    (work / "input.json").write_text('{"lr": 0.1, "momentum": 0.5}')
    # Goes on from a checkpoint that was copied while a step was being written.
    (work / "state" / "last").write_text("1 0.6 0.6\n")
    (work / "state" / "w").write_text("1000 0.6 1\n2000 0.9 2\n")
    subprocess.run(
        [shutil.which("bash") or "bash", job / "evaluate.sh"], cwd=work, check=True,
        capture_output=True, env={"PATH": "/usr/bin:/bin", "STEP_S": "0"},
    )  # fmt: skip
    with payload_runs(work / "metrics.tgz") as found:
        ((number, run),) = found.runs.items()
        assert not found.problems
    assert [m.step for m in run.metrics] == list(range(1, 41))
    assert run.params == {"lr": "0.1", "momentum": "0.5"}
    with tarfile.open(work / "metrics.tgz") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    theirs = mlflow.MlflowClient((tmp_path / "out" / "mlruns").as_uri()).get_run(number)
    assert theirs.data.params == run.params
    assert theirs.data.metrics == {"w": run.metrics[-1].value}
    assert theirs.info.status == "FINISHED"
