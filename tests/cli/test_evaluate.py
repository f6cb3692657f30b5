"""One point of a payload, evaluated by the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]
ROOT = Path(__file__).parents[2]
#: Counts to five; at three it waits for a file that the test brings.
PAYLOAD = """
n=$(cat count 2>/dev/null || echo 0)
while [ $n -lt 5 ]; do
  n=$((n + 1)); echo $n > count.new; mv count.new count
  while [ $n = 3 ] && [ ! -e "$GO" ]; do sleep 0.05; done
done
tar czf metrics.tgz count
x=$(sed 's/.*"x": *\\([0-9.]*\\).*/\\1/' input.json)
echo "{\\"status\\": ${STATUS:-0}, \\"loss\\": $x, \\"message\\": \\"as told\\"}" > output.json
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "count.sh").write_text(PAYLOAD)
    (tmp_path / "go").touch()
    space = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    keys = {
        "evaluationExec": f"GO={tmp_path}/go sh count.sh",
        "searchSpaceFile": "space.json",
        "evaluationMetrics": "metrics.tgz",
        "checkPointToSave": "count",
    }
    path = tmp_path / "phpo.json"
    path.write_text(json.dumps(keys))
    return path


def test_that_status_and_loss_are_printed(hpc_hpo: Command, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = hpc_hpo(
        "evaluate", study, "--point", '{"x": 0.25}', "--dir", tmp_path / "d", "--out", out
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert json.loads(out.read_text()) == result
    assert (result["status"], result["loss"], result["slices"]) == (0, 0.25, 1)
    assert Path(result["metrics"]).name == "metrics.tgz_0"
    # Once more: what came out is known, and nothing is run.
    study.with_name("go").unlink()
    again = hpc_hpo("evaluate", study, "--point", '{"x": 0.25}', "--dir", tmp_path / "d")
    assert json.loads(again.stdout) == result


def test_that_a_payload_s_own_failure_is_an_exit_code(
    hpc_hpo: Command, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUS", "1")
    point = tmp_path / "point.json"
    point.write_text('{"x": 0.5}')
    done = hpc_hpo("evaluate", study, "--point", point, "--dir", tmp_path / "d")
    assert done.exit_code == 8
    result = json.loads(done.stdout)
    assert (result["status"], result["loss"], result["slices"]) == (1, None, 3)
    assert result["message"] == "the evaluation ended with status 1: as told"


def test_that_a_command_needs_no_study(
    hpc_hpo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("7\n")
    line = "printf '{\"loss\": %s}' $(cat $(tr -d '[]\"' < input_ds.json)) > output.json"
    arguments = ("evaluate", "--exec", line, "--point", '{"a": 1, "b": "x"}', "--data", "d.csv")
    done = hpc_hpo(*arguments)
    assert (done.exit_code, json.loads(done.stdout)["loss"]) == (0, 7.0), done.output
    assert hpc_hpo("evaluate", "--exec", "true", "--point", '{"a": 1}').exit_code == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", '{"x": 2}'], "x: not a valid value; found 2"),
        (["--point", '{"x": 0.5'], "--point:1: not valid JSON"),
        (["--point", "none.json"], "none.json: --point: cannot be read"),
        (["--point", '[0, {"x": 0.5}]'], "the study has no segments"),
        (["--point", '{"x": 0.5}', "--data", "f"], "--data: goes with --exec"),
        (["--point", "[1]", "--exec", "true"], "--point: not a point"),
    ],
)
def test_that_mistakes_are_told(
    hpc_hpo: Command, study: Path, arguments: list[str], message: str
) -> None:
    done = hpc_hpo("evaluate", study, *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_that_a_study_of_another_kind_is_refused(hpc_hpo: Command, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: s\ncommand: [sh]\nspace: {x: {float: [0, 1]}}\nbudget: {trials: 1}\n"
    )
    done = hpc_hpo("evaluate", tmp_path, "--point", '{"x": 0.5}')
    assert (done.exit_code, "no evaluation payload" in done.output) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_that_a_killed_evaluation_goes_on_from_its_checkpoint(
    study: Path, tmp_path: Path, number: int
) -> None:
    study.with_name("go").unlink()
    keys = json.loads(study.read_text())
    study.write_text(json.dumps(keys))
    command = [
        *(sys.executable, "-m", "hpc_hpo.cli.main", "evaluate", str(study)),
        *("--point", '{"x": 0.5}', "--dir", str(tmp_path / "d")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    count = tmp_path / "d" / "trials" / "000000" / "s000001" / "count"
    limit = time.monotonic() + 30
    while not (count.exists() and count.read_text() == "3\n"):
        assert time.monotonic() < limit
        time.sleep(0.05)
    first.send_signal(number)
    output, _ = first.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert first.returncode == 3
        assert json.loads(output)["checkpoint"] == "ckpt-000001-000001"
    study.with_name("go").touch()
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    result = json.loads(second.stdout)
    assert (result["loss"], result["slices"]) == (0.5, 2)
    restored = (tmp_path / "d" / "journal.jsonl").read_text()
    assert ('"restored":"ckpt-000001-000001"' in restored) is (number == signal.SIGTERM)
