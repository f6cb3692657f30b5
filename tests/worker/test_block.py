"""The supervisor of a node, with real processes below it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc_hpo.fsio import read_sealed

ROOT = Path(__file__).resolve().parents[2]

#: A pool that tells what it was given, starts an escaping grandchild, and waits for a notice.
POOL = """
import json, os, subprocess, sys, time
from pathlib import Path
out = Path(sys.argv[1])
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
seen = {"child": child.pid, "end": os.environ.get("HPC_HPO_BLOCK_END"),
        "block": os.environ.get("HPC_HPO_BLOCK")}
(out / "pool.tmp").write_text(json.dumps(seen))
os.replace(out / "pool.tmp", out / "pool.json")
notice = Path(os.environ["HPC_HPO_NOTICE"])
while True:
    if notice.exists() and not (out / "notice.json").exists():
        (out / "notice.tmp").write_text(notice.read_text())
        os.replace(out / "notice.tmp", out / "notice.json")
    time.sleep(0.02)
"""


def below(pid):
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture
def node(tmp_path):
    started = []

    def start(*options, pool=POOL, **job):
        for room in ("spool", "control", "out"):
            (tmp_path / room).mkdir(exist_ok=True)
        (tmp_path / "pool.py").write_text(pool)
        process = subprocess.Popen(
            [
                sys.executable, "-m", "hpc_hpo.worker.block", "--dir", str(tmp_path), "--run", "1",
                "--block", "7", "--workers", "2", "--kill-grace", "0.2", "--poll", "0.1",
                *options, "--", sys.executable, str(tmp_path / "pool.py"), str(tmp_path / "out"),
            ],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **job},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        # All at once: what is below a supervisor that was killed would live on.
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [psutil.Process(process.pid), *below(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait()


def read_when_there(path, process, seconds=20):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path.name} never came"
        time.sleep(0.02)
    return json.loads(path.read_text())


def records(tmp_path):
    (spool,) = (tmp_path / "spool").glob("block-r1-b7-*")
    return [record for _, record in read_sealed(spool)]


def test_that_a_block_ends_at_its_walltime_with_everything_below_it(node, tmp_path):
    process = node("--walltime", "2", "--enforce")
    seen = read_when_there(tmp_path / "out" / "pool.json", process)
    assert process.wait(20) == 0
    begun, ended = records(tmp_path)
    assert ended["reason"] == "walltime"
    assert begun["deadline"] == float(seen["end"])
    assert ended["at"] - begun["at"] > 1.5
    assert not psutil.pid_exists(seen["child"]), "a grandchild in a session of its own dies too"


def test_that_a_stop_file_becomes_a_notice(node, tmp_path):
    process = node("--walltime", "60", "--enforce")
    read_when_there(tmp_path / "out" / "pool.json", process)
    (tmp_path / "control" / "stop-r1").touch()
    notice = read_when_there(tmp_path / "out" / "notice.json", process)
    assert notice["reason"] == "stop"
    assert notice["deadline"] <= records(tmp_path)[0]["deadline"]
    assert process.poll() is None, "the block goes on until its slices have paused"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_that_a_warning_signal_becomes_a_notice_and_the_block_lasts_until_its_deadline(
    node, tmp_path, number
):
    process = node("--warn-grace", "1.5")
    read_when_there(tmp_path / "out" / "pool.json", process)
    process.send_signal(number)
    notice = read_when_there(tmp_path / "out" / "notice.json", process)
    assert notice["reason"] == "preempted"
    assert process.wait(20) == 0
    assert records(tmp_path)[-1]["at"] >= notice["deadline"]


def test_that_a_released_block_ends_at_once(node, tmp_path):
    process = node("--term-grace", "60")
    seen = read_when_there(tmp_path / "out" / "pool.json", process)
    (tmp_path / "control" / "release-r1-b7").touch()
    process.terminate()
    assert process.wait(20) == 0
    assert records(tmp_path)[-1]["reason"] == "released"
    assert not psutil.pid_exists(seen["child"])


def test_that_blocks_of_a_dead_run_are_told_to_leave_soon(node, tmp_path):
    process = node()
    read_when_there(tmp_path / "out" / "pool.json", process)
    (tmp_path / "control" / "stop-r1").write_text("leave")
    notice = read_when_there(tmp_path / "out" / "notice.json", process)
    assert notice["deadline"] - time.time() < 5
    assert process.wait(20) == 0


def test_that_a_pool_that_fails_is_reported(node, tmp_path):
    process = node(pool="import sys; sys.exit(3)")
    assert process.wait(20) == 3
    assert records(tmp_path)[-1]["reason"] == "pool-failed"
    assert records(tmp_path)[-1]["status"] == 3


def test_that_a_signal_left_by_the_job_script_counts_as_one_of_ours(node, tmp_path):
    process = node("--term-grace", "1.5")
    read_when_there(tmp_path / "out" / "pool.json", process)
    (tmp_path / "control" / "signal-r1-b7").write_text(f"TERM {int(time.time()) + 1}\n")
    notice = read_when_there(tmp_path / "out" / "notice.json", process)
    assert notice["reason"] == "preempted"
    assert process.wait(20) == 0
    assert records(tmp_path)[-1]["reason"] == "preempted"


def test_that_what_a_requeued_job_s_former_life_was_sent_does_not_count(node, tmp_path):
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "signal-r1-b7").write_text(f"TERM {int(time.time()) - 60}\n")
    process = node("--walltime", "3", "--enforce", HPC_HPO_RESTART="1")
    seen = read_when_there(tmp_path / "out" / "pool.json", process)
    assert process.wait(20) == 0
    assert seen["block"] == "7.1", "its managers are those of a new block"
    (spool,) = (tmp_path / "spool").glob("block-r1-b7.1-*")
    reasons = [record.get("reason") for _, record in read_sealed(spool)]
    assert reasons == [None, "walltime"]


def test_that_the_warning_of_an_end_that_is_known_changes_nothing(node, tmp_path):
    process = node("--walltime", "3", "--enforce", "--warn-grace", "2")
    read_when_there(tmp_path / "out" / "pool.json", process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    assert not (tmp_path / "out" / "notice.json").exists()
    assert records(tmp_path)[-1]["reason"] == "walltime"


def test_that_a_warning_long_before_the_known_end_means_preemption(node, tmp_path):
    process = node("--walltime", "3600", "--enforce", "--warn-grace", "1")
    read_when_there(tmp_path / "out" / "pool.json", process)
    process.send_signal(signal.SIGUSR1)
    assert read_when_there(tmp_path / "out" / "notice.json", process)["reason"] == "preempted"
    assert process.wait(20) == 0


def test_that_a_scheduler_that_leaves_less_time_than_was_asked_for_is_believed(node, tmp_path):
    left = f"{int(time.time())} 0:03"
    process = node("--walltime", "3600", "--enforce", HPC_HPO_TIME_LEFT=left)
    read_when_there(tmp_path / "out" / "pool.json", process)
    assert process.wait(20) == 0
    assert records(tmp_path)[-1]["reason"] == "walltime"


def test_that_a_release_needs_no_signal(node, tmp_path):
    process = node()
    read_when_there(tmp_path / "out" / "pool.json", process)
    (tmp_path / "control" / "release-r1-b7").touch()
    assert process.wait(20) == 0
    assert records(tmp_path)[-1]["reason"] == "released"
