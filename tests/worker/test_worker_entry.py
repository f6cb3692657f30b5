"""The worker itself: requests in, outcomes out and into its spool, TERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import from_json, read_sealed
from tests.worker.bench import Bench, is_running, wait_for

SIMPLE = "def train(config, trial): return config['x']"
LOOP = """
import os, time
def train(config, trial):
    (trial.folder / "pid").write_text(str(os.getpid()))
    while config.get("deaf") or not trial.should_stop():
        time.sleep(0.01)
    trial.checkpoint({"epoch": 1})
"""
#: A worker process as the pool runs it: one request a line of stdin, one outcome a line.
POOL = """
import sys
from hpc_hpo.worker.entry import run_request
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(run_request(line) + b"\\n")
    sys.stdout.buffer.flush()
"""


def start_pool(bench: Bench, **variables: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HPC_HPO_NOTICE": str(bench.notice)}
    return subprocess.Popen(
        [sys.executable, "-c", POOL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment, **variables},
    )


def ask(pool: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert pool.stdin is not None
    pool.stdin.write(json.dumps(request).encode() + b"\n")
    pool.stdin.flush()


def finish(pool: subprocess.Popen[bytes]) -> None:
    pool.kill()
    pool.communicate()


def test_that_a_slice_leaves_its_start_and_its_outcome_in_the_spool(bench: Bench) -> None:
    bench.objective(SIMPLE)
    outcome = bench.run(worker=bench.worker(block="b1", worker="4"))
    begin, end = bench.spooled()
    assert begin == {
        **{"e": "start", "run": 1, "trial": 7, "slice": 1, "block": "b1", "worker": "4"},
        **{"host": "node1", "at": begin["at"]},
    }
    assert begin["at"] <= outcome["ended"]
    assert {k: v for k, v in end.items() if k != "e"} == outcome
    assert end["e"] == "end"


def test_that_a_slice_that_does_not_fit_is_declined_without_a_trace(bench: Bench) -> None:
    bench.objective(SIMPLE)
    worker = bench.worker(block_end=time.time() + 10)
    outcome = bench.run(worker, needs_s=11.0)
    assert (outcome["end"], outcome["loss"], outcome["trial"]) == ("declined", None, 7)
    assert os.listdir(bench.dir) == ["task.json"]
    assert bench.run(worker, needs_s=5.0)["end"] == "completed"


def test_that_slices_after_a_notice_are_declined(bench: Bench) -> None:
    bench.objective(SIMPLE)
    bench.notice.write_text('{"deadline": 9e9, "reason": "stop"}')
    assert bench.run()["end"] == "declined"


def test_that_a_spool_that_cannot_be_written_loses_no_outcome(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(self: object, lines: bytes) -> None:
        raise StorageError("spool: No space left on device")

    monkeypatch.setattr("hpc_hpo.worker.spool.SealedWriter.append", full)
    bench.objective(SIMPLE)
    assert bench.run()["loss"] == 2.0
    bench.objective("def train(config, trial): raise ValueError('mine')")
    message = bench.run()["error"]["message"]
    assert "mine" in message and "not spooled" in message
    assert "No space left" in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_that_a_task_file_that_cannot_be_read_is_not_the_payload_s_fault(
    bench: Bench, content: str | None
) -> None:
    request = bench.request(task="other.json")
    if content is not None:
        (bench.dir / "other.json").write_text(content)
    outcome = dict(bench.worker().run(request))
    assert outcome["end"] == "failed"
    assert outcome["error"]["transient"] is True


def test_that_a_changed_task_file_is_read_again(bench: Bench) -> None:
    bench.objective(SIMPLE)
    worker = bench.worker()
    bench.run(worker)
    bench.task["target"] = "objective:nothing"
    bench.request()
    os.utime(bench.dir / "task.json", ns=(1, 1))
    assert bench.run(worker, trial=8)["error"]["kind"] == "import"


def test_that_a_trial_folder_that_cannot_be_written_costs_no_attempt(bench: Bench) -> None:
    bench.objective(SIMPLE)
    (bench.dir / "trials").write_text("a file, not a folder")
    error = bench.run(slice=2)["error"]
    assert error["transient"] is True


def test_that_a_worker_told_to_end_pauses_spools_and_ends(bench: Bench) -> None:
    bench.objective(LOOP)
    pool = start_pool(bench)
    try:
        ask(pool, bench.request())
        wait_for((bench.trial / "pid").exists)
        pool.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert pool.wait(5) == -signal.SIGTERM
        assert time.monotonic() - begun < 1.0, "the pool kills after one second"
        end = bench.spooled()[-1]
        assert (end["e"], end["end"], end["reason"]) == ("end", "paused", "stop")
        assert bench.checkpoints() == [end["checkpoint"]["name"]]
        runner = int((bench.trial / "pid").read_text())
        wait_for(lambda: not is_running(runner))
    finally:
        finish(pool)


def test_that_an_objective_survives_a_term_to_all_processes_of_its_job(bench: Bench) -> None:
    bench.objective(LOOP)
    pool = start_pool(bench)
    try:
        ask(pool, bench.request())
        runner = int(wait_for(lambda: (bench.trial / "pid").exists() and _text(bench)))
        for process in (runner, pool.pid):
            os.kill(process, signal.SIGTERM)
        assert pool.wait(5) == -signal.SIGTERM
        assert bench.spooled()[-1]["end"] == "paused", "it could still checkpoint"
    finally:
        finish(pool)


def test_that_a_worker_told_to_end_kills_a_slice_that_does_not_pause(bench: Bench) -> None:
    bench.objective(LOOP)
    pool = start_pool(bench)
    try:
        ask(pool, bench.request(point={"deaf": True}))
        pid = int(wait_for(lambda: (bench.trial / "pid").exists() and _text(bench)))
        pool.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert pool.wait(5) == -signal.SIGTERM
        assert time.monotonic() - begun < 1.0
        end = bench.spooled()[-1]
        assert (end["end"], end["reason"]) == ("lost", "stop")
        assert not is_running(pid)
    finally:
        finish(pool)


def _text(bench: Bench) -> str:
    return (bench.trial / "pid").read_text()


def test_that_an_idle_worker_ends_at_once_with_its_runner(bench: Bench) -> None:
    bench.objective("import os\ndef train(config, trial): return os.getpid()")
    pool = start_pool(bench)
    try:
        ask(pool, bench.request())
        assert pool.stdout is not None
        runner = int(from_json(pool.stdout.readline())["loss"])
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(5) == -signal.SIGTERM
        assert not is_running(runner)
    finally:
        finish(pool)


def test_that_a_killed_worker_takes_its_payload_with_it(bench: Bench) -> None:
    bench.objective(LOOP)
    pool = start_pool(bench)
    try:
        ask(pool, bench.request(point={"deaf": True}))
        pid = int(wait_for(lambda: (bench.trial / "pid").exists() and _text(bench)))
    finally:
        finish(pool)  # SIGKILL
    wait_for(lambda: not is_running(pid))
    lines = [r for p in (bench.dir / "spool").iterdir() for _, r in read_sealed(p)]
    assert [r["e"] for r in lines if r is not None] == ["start"]


def test_that_the_worker_process_imports_nothing_heavy(bench: Bench) -> None:
    code = "import sys, hpc_hpo.worker.entry; print(' '.join(sys.modules))"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"skopt", "sklearn", "numpy", "h5py", "pydantic", "yaml", "click", "rich", "parsl"}
    assert not loaded & heavy


def test_that_a_parsl_worker_imports_no_optimiser_and_none_of_the_command_line():
    """The worker process itself: Parsl's pool and what a slice adds to it."""
    code = (
        "import sys, parsl.executors.high_throughput.process_worker_pool, hpc_hpo.worker.entry\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for name in ("skopt", "sklearn", "pydantic", "yaml", "click", "rich", "numpy", "h5py"):
        assert f"'{name}'" not in found
    assert "'parsl'" in found and "'hpc_hpo'" in found
