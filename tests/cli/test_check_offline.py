"""``hpc-hpo check --offline``: one evaluation without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpc_hpo import rehearsal
from hpc_hpo.cli.main import cli
from tests.mpi import require_mpiexec
from tests.worker.test_offline import C_CONNECT

STUDY = """\
name: fetch
PAYLOAD
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 2}
"""
NOBODY = "192.0.2.1"
Check = Callable[..., Result]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Write a study with this objective, and check it."""

    def run(code: str, *options: str, more: str = "") -> Result:
        (tmp_path / "objective.py").write_text(code)
        study = STUDY.replace("PAYLOAD", "objective: objective.py:train") + more
        (tmp_path / "study.yaml").write_text(study)
        words = ["check", str(tmp_path / "study.yaml"), "--offline", *options]
        return CliRunner().invoke(cli, words)

    return run


def test_that_a_study_without_a_wish_passes_and_its_folder_is_not_touched(
    check: Check, tmp_path: Path
) -> None:
    done = check("def train(config): return 1.5\n")
    assert done.exit_code == 0, done.output
    assert "completed after" in done.output and "loss 1.5" in done.output
    assert "It asked for nothing on the network." in done.output
    assert not (tmp_path / "fetch").exists()


def test_that_each_attempt_is_told_with_its_line_also_a_swallowed_one(check: Check) -> None:
    done = check(f"""
import urllib.request
def train(config):
    try:
        urllib.request.urlopen("http://{NOBODY}/x")
    except OSError:
        return 1.0
""")
    assert done.exit_code == 2, done.output
    assert f"asked for  connection to {NOBODY}:80 (http://{NOBODY}/x) at " in done.output
    assert "objective.py:5" in done.output and "stage what it fetches" in done.output


def test_that_code_which_is_not_python_is_refused_too(check: Check) -> None:
    if not rehearsal.find_namespace():
        pytest.skip("needs network namespaces: unshare -n, unshare -rn or bwrap")
    done = check(C_CONNECT + "\ndef train(config):\n    connect(NOBODY, 80)\n")
    assert done.exit_code == 2, done.output
    assert "Network is unreachable" in done.output


def test_that_loopback_is_up_in_the_namespace(check: Check) -> None:
    done = check("""
import socket
def train(config):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()
    return 1.0
""")
    assert done.exit_code == 0, done.output


def test_that_where_no_namespace_is_had_it_says_that_it_proved_less(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal.rehearse, "__defaults__", ((("false",), ("no-such-program",)),))
    done = check(f"""
import socket
def train(config):
    socket.create_connection(("{NOBODY}", 80))
""")
    assert done.exit_code == 2, done.output
    assert "This proves less" in done.output
    assert f"connection to {NOBODY}:80 at" in done.output


def test_that_an_evaluation_that_outlasts_its_time_is_ended_and_told_of(check: Check) -> None:
    done = check(
        """
import time
def train(config, trial):
    while not trial.should_stop():
        time.sleep(0.05)
    trial.checkpoint({"step": 1})
""",
        "--time", "2s",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "before its end: what comes later was not seen" in done.output


def test_that_a_failing_evaluation_shows_its_traceback(check: Check) -> None:
    done = check("def train(config): raise ValueError('bad')\n")
    assert done.exit_code == 2
    assert "exception: ValueError: bad" in done.output and "objective.py" in done.output


def test_that_inputs_have_to_be_staged_before(check: Check, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("x")
    more = "inputs:\n  - {name: data, source: data.txt}\n"
    code = "def train(config, trial): return float(len(open(trial.inputs['data']).read()))\n"
    done = check(code, more=more)
    assert done.exit_code == 2 and "not staged" in done.output and "data" in done.output
    staged = CliRunner().invoke(cli, ["prestage", str(tmp_path / "study.yaml")])
    assert staged.exit_code == 0, staged.output
    done = check(code, more=more)
    assert done.exit_code == 0 and "loss 1" in done.output, done.output


def test_that_two_ranks_are_evaluated_here(check: Check) -> None:
    require_mpiexec()
    done = check(
        "def train(config, trial): return trial.reduce(1.0, 'sum')\n", more="trial: {ranks: 2}\n"
    )
    assert done.exit_code == 0 and "loss 2" in done.output, done.output


@pytest.mark.parametrize("limit", ["10", "0s", "soon"])
def test_that_a_time_without_sense_is_refused(check: Check, limit: str) -> None:
    done = check("def train(config): return 1.0\n", "--time", limit)
    assert done.exit_code == 2 and "--time" in done.output
