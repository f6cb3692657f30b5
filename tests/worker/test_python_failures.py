"""How slices of Python objectives fail, time out and are lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.worker.bench import Bench, is_running

SLEEPER = """
import subprocess, sys, time, pathlib
def train(config, trial):
    child = subprocess.Popen([sys.executable, "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    child.stdout.readline()
    (trial.folder / "pid").write_text(str(child.pid))
    trial.checkpoint({"epoch": 1})
    time.sleep(60)
"""


def test_that_none_without_a_stop_is_a_failure(bench: Bench) -> None:
    bench.objective("def train(config, trial): pass")
    outcome = bench.run()
    assert outcome["end"] == "failed"
    assert "returned None" in outcome["error"]["message"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("float('nan')", "loss"),
        ("float('-inf')", "loss"),
        ("'0.5'", "output"),
        ("{'accuracy': 1}", "output"),
        ("[1]", "output"),
        ("True", "output"),
    ],
)
def test_that_a_loss_that_is_no_finite_number_is_a_failure(
    bench: Bench, value: str, kind: str
) -> None:
    bench.objective(f"def train(config, trial): return {value}")
    outcome = bench.run()
    assert (outcome["end"], outcome["loss"]) == ("failed", None)
    assert outcome["error"]["kind"] == kind


def test_that_an_exception_fails_with_the_user_s_own_frames(bench: Bench) -> None:
    bench.objective(
        """
        def inner(config):
            try:
                config["width"]
            except KeyError as error:
                raise RuntimeError("no width") from error
        def train(config, trial):
            print("about to fail: ärger")
            inner(config)
        """
    )
    error = bench.run()["error"]
    assert error["kind"] == "exception"
    assert error["message"] == "RuntimeError: no width"
    assert "in inner" in error["traceback"] and "KeyError" in error["traceback"]
    assert os.path.join("hpc_hpo", "worker") not in error["traceback"]
    assert "about to fail: ärger" in error["log_tail"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import missing_module", "No module named 'missing_module'"),
        ("def other(config): pass", "has no 'train'"),
        ("train = 3", "not a function"),
        ("def train(:", "invalid syntax"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_that_an_objective_that_does_not_import_says_so(
    bench: Bench, code: str, message: str
) -> None:
    bench.objective(code)
    outcome = bench.run()
    assert outcome["error"]["kind"] == "import"
    assert message in outcome["error"]["message"]


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        ("sys.exit(3)", "exit", 3),
        ("sys.exit('bye')", "exit", 1),
        ("os._exit(4)", "exit", 4),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", -signal.SIGKILL),
    ],
)
def test_that_a_payload_that_ends_its_process_fails_and_the_worker_goes_on(
    bench: Bench, code: str, kind: str, exit_code: int
) -> None:
    bench.objective(
        f"""
        import os, signal, sys
        def train(config, trial):
            print("last words")
            if config["x"] > 0:
                trial.report(1, loss=1.0)
                trial.checkpoint({{}})
                {code}
            return 1.0
        """
    )
    worker = bench.worker()
    outcome = bench.run(worker)
    assert outcome["end"] == "failed"
    assert (outcome["error"]["kind"], outcome["error"]["exit_code"]) == (kind, exit_code)
    assert "last words" in outcome["error"]["log_tail"]
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001"
    assert outcome["reports"] == [[1, {"loss": 1.0}]], "known from the checkpoint"
    assert bench.run(worker, trial=8, point={"x": 0})["end"] == "completed"


def test_that_a_payload_killed_as_its_block_ends_is_lost_not_failed(bench: Bench) -> None:
    bench.objective(
        """
        import os, pathlib, signal
        def train(config, trial):
            pathlib.Path(config["notice"]).write_text('{"deadline": null, "reason": "preempted"}')
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    outcome = bench.run(point={"notice": str(bench.notice)})
    assert (outcome["end"], outcome["reason"]) == ("lost", "preempted")


def test_that_a_timeout_kills_the_grandchildren_too(bench: Bench) -> None:
    bench.objective(SLEEPER)
    bench.task["max_time_s"] = 101.5
    outcome = bench.run(spent_s=100.0)
    assert outcome["end"] == "failed"
    assert outcome["error"]["kind"] == "timeout"
    assert not is_running(int((bench.trial / "pid").read_text()))
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001"


def test_that_a_trial_without_time_left_is_not_started(bench: Bench) -> None:
    bench.objective("def train(config, trial): return 1.0")
    bench.task["max_time_s"] = 10.0
    assert bench.run(spent_s=10.0)["error"]["kind"] == "timeout"


def test_that_an_objective_that_never_stops_is_lost_at_the_deadline(bench: Bench) -> None:
    bench.objective(SLEEPER)
    end = time.time() + 3.0
    outcome = bench.run(worker=bench.worker(block_end=end))
    assert (outcome["end"], outcome["reason"]) == ("lost", "walltime")
    assert outcome["ended"] <= end + 0.2
    assert "should_stop" in outcome["error"]["message"]
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001"
    assert not is_running(int((bench.trial / "pid").read_text()))
