"""Steering on a login node: in the background, and within the limits of CPU time."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from hpc_hpo.errors import StorageError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.site import CpuLimit
from hpc_hpo.steerer.background import spawn, wait_until_steering
from hpc_hpo.steerer.manners import CpuWatch
from tests.steerer.conftest import Clock

LIMIT = CpuLimit.model_construct(warn=1000.0, kill=2000.0)


def test_that_the_limit_of_cpu_time_is_told_once_and_then_heeded() -> None:
    clock, said = Clock(), []
    watch = CpuWatch(LIMIT, clock, said.append, Clock.cpu)
    wishes = []
    for used in (0.0, 700.0, 760.0, 800.0, 940.0, 960.0, 0.0):
        clock.used = used
        clock.sleep(10.0)
        wishes.append(watch.wish())
    assert wishes == ["", "", "", "", "", "drain", "drain"]
    assert len(said) == 1 and "12m40s of CPU time" in said[0] and "16m40s" in said[0]


def test_that_cpu_time_is_read_seldom_and_only_where_it_is_limited() -> None:
    clock, reads = Clock(), []

    def used(asked: Clock) -> float:
        reads.append(asked.now())
        return 0.0

    limited = CpuWatch(LIMIT, clock, print, used)
    free = CpuWatch(None, clock, print, used)
    for _ in range(100):
        assert limited.wish() == free.wish() == ""
        clock.sleep(0.25)
    assert len(reads) == 3


def test_that_a_process_in_the_background_has_no_terminal_and_ignores_a_hangup(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n")
    code = (
        "import os, signal, sys\n"
        "print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('alive', file=sys.stderr)\n"
    )
    before = signal.getsignal(signal.SIGHUP)
    process = spawn([sys.executable, "-c", code], log)
    assert process.wait(20) == 0
    lines = log.read_text().splitlines()
    assert lines[0] == "earlier" and lines[1].startswith("--- ")
    assert lines[-2:] == ["True ''", "alive"]
    assert signal.getsignal(signal.SIGHUP) is before


def test_that_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        spawn(["true"], tmp_path / "nowhere" / "log")


def test_that_the_one_who_waits_sees_whose_sign_of_life_it_is(folder: StudyFolder) -> None:
    class Process:
        pid = os.getpid()

        def __init__(self, ended: bool) -> None:
            self.ended = ended

        def poll(self) -> int | None:
            return 3 if self.ended else None

    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "process_start": float(stat[19])}
    waiting, clock = Process(False), Clock()
    assert not wait_until_steering(waiting, folder, clock, 5.0)  # type: ignore[arg-type]
    assert sum(clock.sleeps) > 4.9
    folder.holder.write_text(json.dumps(holder))
    assert wait_until_steering(waiting, folder, Clock(), 5.0)  # type: ignore[arg-type]
    assert not wait_until_steering(Process(True), folder, Clock(), 5.0)  # type: ignore[arg-type]
