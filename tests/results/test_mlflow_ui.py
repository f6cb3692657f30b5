"""An exported store in the pages of a real MLflow, and in a browser.

The server needs the whole of MLflow, which brings other versions of what this package uses: it is
run by a Python of its own, named by HPC_HPO_MLFLOW, or in `mlflow/` of this virtual environment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated import Shape, write_study
from hpc_hpo.results.mlflow.export import MlflowExport
from hpc_hpo.results.view import open_study
from hpc_hpo.study.stores import Store
from tests.results.test_mlflow import mlflow_module
from tests.results.test_report_browser import browser as browser  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRIALS = 12
#: MLflow's server imports much of Python's world before it answers.
PATIENCE_S = 300.0
#: The picture for the documentation goes here, where that is wanted.
PICTURE = os.environ.get("HPC_HPO_MLFLOW_PICTURE")


def whole_mlflow() -> str:
    """A Python that has the server."""
    python = os.environ.get("HPC_HPO_MLFLOW", str(Path(sys.prefix) / "mlflow" / "bin" / "python"))
    if not Path(python).exists():
        if os.environ.get("HPC_HPO_NEEDS_MLFLOW"):
            pytest.fail(f"there is no {python}")
        pytest.skip(f"there is no {python} with the whole of MLflow (make extras)")
    return python


class Server:
    """`mlflow server` on a free port of this machine."""

    def __init__(self, python: str, store: Store, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self._log = folder / "server.log"
        command = [python, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        env.pop("PYTHONPATH", None)
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None, self._log.read_text()
            try:
                assert self.get("/health") == b"OK"
                return
            except urllib.error.URLError:
                assert time.monotonic() < end, self._log.read_text()
                time.sleep(0.5)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.base + path, timeout=60) as reply:
            content: bytes = reply.read()
        return content

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def end(self) -> None:
        """End it with all that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(15)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mlflow_module()
    python, folder = whole_mlflow(), tmp_path_factory.mktemp("mlflow")
    study = write_study(folder / "study", Shape(TRIALS, steps=12))
    store = Store(folder / "runs.db", files=False)
    found = MlflowExport(open_study(study.path), store).write()
    assert found.runs == {"made": TRIALS}
    server = Server(python, store, folder)
    try:
        server.wait()
        yield server
    finally:
        server.end()


def runs_at(server: Server) -> tuple[str, list[Any]]:
    """The experiment's id, and its runs."""
    api = "/ajax-api/2.0/mlflow"
    found = server.post(f"{api}/experiments/search", {"max_results": 10})["experiments"]
    (number,) = [one["experiment_id"] for one in found if one["name"] == "simulated"]
    body = {"experiment_ids": [number], "max_results": 100}
    return number, server.post(f"{api}/runs/search", body)["runs"]


def test_that_the_server_shows_every_run(server: Server) -> None:
    _, runs = runs_at(server)
    assert {run["info"]["run_name"] for run in runs} == {
        "simulated", *(f"trial {n}" for n in range(TRIALS)),
    }  # fmt: skip
    first = next(run for run in runs if run["info"]["run_name"] == "trial 0")
    assert {"lr", "layers", "activation"} <= {param["key"] for param in first["data"]["params"]}
    assert "loss" in {metric["key"] for metric in first["data"]["metrics"]}
    (parent,) = [run for run in runs if run["info"]["run_name"] == "simulated"]
    number = parent["info"]["run_id"]
    listed = json.loads(server.get(f"/ajax-api/2.0/mlflow/artifacts/list?run_id={number}"))
    assert [file["path"] for file in listed["files"]] == ["study.yaml"]
    content = server.get(f"/get-artifact?run_uuid={number}&path=study.yaml")
    assert b"simulated" in content
    assert b"<html" in server.get("/")


def test_that_the_page_shows_the_trials_below_their_study(server: Server, browser: Any) -> None:
    number, _ = runs_at(server)
    context = browser.new_context(viewport={"width": 1700, "height": 620})
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{server.base}/#/experiments/{number}/runs")
    cell = page.locator(".ag-cell", has=page.get_by_role("link", name="simulated", exact=True))
    cell.first.wait_for()
    last = page.get_by_role("link", name=f"trial {TRIALS - 1}", exact=True)
    assert not last.count()
    cell.first.locator("button, [role=button], svg").first.click()
    last.first.wait_for()
    if PICTURE:
        page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").first.click()
        page.get_by_text("Show more").first.click()
        # Some attributes are chosen: the first click takes all, the second none.
        for group in ("Attributes", "Attributes", "Metrics (", "Parameters ("):
            row = page.locator("[class*=tree-treenode]", has_text=group).first
            row.locator("[class*=tree-checkbox]").first.click()
        page.keyboard.press("Escape")
        page.mouse.click(700, 60)
        page.wait_for_timeout(5000)
        page.screenshot(path=PICTURE)
    outside = [url for url in asked if not url.startswith((server.base, "data:", "blob:"))]
    assert not outside
    context.close()
