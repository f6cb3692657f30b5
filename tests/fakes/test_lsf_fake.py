"""The fake LSF: jobs from their start to their end, and what the commands say of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parsl.jobs.states import JobState
from parsl.providers import LSFProvider

from tests.fakes.conftest import MakeLsf
from tests.fakes.jobs import STUBBORN, bsub, output, stat, submit
from tests.fakes.lsf import FakeLsf
from tests.fakes.lsf.run import JOB_MARK, marked_processes

WAIT = "while [ ! -e stop ]; do sleep 0.05; done"


def running(lsf: FakeLsf, body: str = "sleep 60", *options: str) -> int:
    """A job whose script is at work: `body` begins by saying something, or is ready soon."""
    job = submit(lsf, f"echo begun\n{body}", *options)
    lsf.wait_for(lambda: output(lsf, job), f"output of {job}")
    return job


# ---- the end of a job


def test_that_the_walltime_ends_a_job_with_usr2_int_term_and_kill(lsf: FakeLsf) -> None:
    job = submit(lsf, STUBBORN, "-W", "1")
    ended = lsf.wait_state(job, "EXIT")
    assert output(lsf, job) == ["ready", "USR2", "INT", "TERM"]
    assert (ended["exit_code"], ended["reason"]) == (137, "TERM_RUNLIMIT")
    # Sixty seconds of the cluster's clock, and three times the real time between signals.
    assert 60 <= ended["finished"] - ended["started"] < 60 + 120 * 3
    text = lsf.run("bjobs", "-noheader", "-o", "stat exit_code exit_reason", str(job)).stdout
    assert text == "EXIT 137 TERM_RUNLIMIT: job killed after reaching LSF run time limit\n"


def test_that_a_script_without_handlers_dies_of_the_first_signal(lsf: FakeLsf) -> None:
    job = submit(lsf, "sleep 60", "-W", "1")
    # 128 + SIGUSR2, the exit code known of jobs killed at their limit.
    assert lsf.wait_state(job, "EXIT")["exit_code"] == 140
    report = (lsf.folder / f"out.{job}").read_text()
    assert "TERM_RUNLIMIT: job killed after reaching LSF run time limit.\n" in report
    assert "Exited with exit code 140.\n" in report


def test_that_a_job_that_saves_itself_at_its_limit_still_counts_as_killed(lsf: FakeLsf) -> None:
    job = submit(lsf, f"trap 'echo saved; exit 0' USR2\n{WAIT}", "-W", "1")
    assert lsf.wait_state(job, "EXIT")["reason"] == "TERM_RUNLIMIT"
    assert output(lsf, job) == ["saved"]


def test_that_a_warning_signal_comes_ahead_of_the_limit(lsf: FakeLsf) -> None:
    job = submit(
        lsf, f"trap 'echo warned; exit 5' USR1\n{WAIT}", "-W", "3", "-wt", "2", "-wa", "USR1"
    )
    ended = lsf.wait_state(job, "EXIT")
    assert output(lsf, job) == ["warned"] and ended["exit_code"] == 5
    assert ended["reason"] is None and 60 <= ended["finished"] - ended["started"] < 180


def test_that_bkill_sends_int_term_and_kill_in_turn(lsf: FakeLsf) -> None:
    job = running(lsf, STUBBORN)
    lsf.wait_for(lambda: "ready" in output(lsf, job), "the handlers")
    assert lsf.run("bkill", str(job)).stdout == f"Job <{job}> is being terminated\n"
    assert lsf.wait_state(job, "EXIT")["reason"] == "TERM_OWNER"
    assert output(lsf, job) == ["begun", "ready", "INT", "TERM"]
    again = lsf.run("bkill", str(job))
    assert again.returncode == 255 and "already finished" in again.stderr


def test_that_bkill_can_send_any_signal(lsf: FakeLsf) -> None:
    job = running(lsf, f"trap 'echo heard' USR1; echo ready\n{WAIT}")
    lsf.wait_for(lambda: "ready" in output(lsf, job), "the handler")
    assert lsf.run("bkill", "-s", "USR1", str(job)).returncode == 0
    lsf.wait_for(lambda: "heard" in output(lsf, job), "the signal")
    (lsf.folder / "stop").touch()
    assert lsf.wait_state(job, "DONE")["reason"] is None


def test_that_bkill_ends_pending_jobs_and_knows_no_others(lsf: FakeLsf) -> None:
    lsf.occupy(4, 60)
    job = submit(lsf)
    killed = lsf.run("bkill", str(job), "99")
    assert killed.returncode == 255 and killed.stderr == "Job <99>: No matching job found\n"
    assert stat(lsf, job) == "EXIT" and lsf.job(job)["started"] is None


def test_that_bkill_0_ends_every_job(lsf: FakeLsf) -> None:
    jobs = [running(lsf), submit(lsf, "true", "-nnodes", "4")]
    assert lsf.run("bkill", "0").returncode == 0
    for job in jobs:
        assert lsf.wait_state(job, "EXIT")["reason"] == "TERM_OWNER"


def test_that_the_report_is_mailed_and_not_written_with_n(lsf: FakeLsf) -> None:
    job = submit(lsf, "echo only this", "-N")
    lsf.wait_state(job, "DONE")
    assert (lsf.folder / f"out.{job}").read_text() == "only this\n"


def test_that_processes_a_job_leaves_behind_end_with_it(lsf: FakeLsf) -> None:
    job = submit(lsf, "setsid sleep 300 & echo $!; env > seen")
    lsf.wait_state(job, "DONE")
    (mark,) = (e for e in (lsf.folder / "seen").read_text().split("\n") if e.startswith(JOB_MARK))
    # They have been told to by then; a busy machine takes a moment over it.
    lsf.wait_for(lambda: not marked_processes(JOB_MARK, mark.partition("=")[2]), "their end")


# ---- what bjobs and bhist say


def test_that_times_are_told_in_hours_and_minutes(lsf: FakeLsf) -> None:
    job = running(lsf, WAIT, "-W", "2:00")
    fields = "jobid stat queue time_left run_time exit_code delimiter=','"
    words = lsf.run("bjobs", "-noheader", "-o", fields, str(job)).stdout.strip().split(",")
    number, state, queue, left, spent, code = words
    assert (number, state, queue, code) == (str(job), "RUN", "batch", "-")
    assert left.startswith("1:5") and left.endswith(" L") and spent.endswith(" second(s)")
    exact = lsf.run("bjobs", "-noheader", "-hms", "-o", "time_left", str(job)).stdout
    assert exact.startswith("01:5") and len(exact) == len("01:59:00\n")
    header = lsf.run("bjobs", "-o", "jobid start_time finish_time").stdout.splitlines()[0]
    assert header == "JOBID START_TIME FINISH_TIME"


def test_that_a_cluster_can_tell_its_times_in_real_ones(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(real_times=True)
    job = running(lsf, WAIT, "-W", "2:00")
    left = lsf.run("bjobs", "-noheader", "-hms", "-o", "time_left", str(job)).stdout
    assert "00:00:50" <= left.strip() <= "00:01:00"


def test_that_a_finished_job_ages_out_of_bjobs_but_not_of_bhist(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(clean_period=60)
    job = submit(lsf, "exit 4")
    lsf.wait_state(job, "EXIT")
    other = running(lsf, WAIT)
    lsf.wait_for(lambda: not stat(lsf, job), "the job to age out")
    both = lsf.run("bjobs", "-noheader", "-o", "jobid stat", str(job), str(other))
    # One unknown job spoils the exit code; the others are listed all the same.
    assert (both.returncode, both.stdout) == (255, f"{other} RUN\n")
    assert both.stderr == f"Job <{job}> is not found\n"
    history = lsf.run("bhist", "-l", str(job)).stdout
    assert "Exited with exit code 4;" in history and "Completed <exit>;" in history
    late = bsub(lsf, "true", "-w", f"ended({job})")
    assert late.returncode == 255 and "never satisfied" in late.stderr


def test_that_bhist_sums_up_a_jobs_time(lsf: FakeLsf) -> None:
    job = submit(lsf, "sleep 60", "-W", "1")
    lsf.wait_state(job, "EXIT")
    number, user, name, pend, run, total = lsf.run("bhist", str(job)).stdout.split("\n")[2].split()
    assert (number, user, name) == (str(job), "user", "job.lsf")
    assert int(run) >= 60 and int(pend) + int(run) <= int(total) <= int(pend) + int(run) + 1
    unknown = lsf.run("bhist", "99")
    assert (unknown.returncode, unknown.stderr) == (255, "No matching job found\n")


def test_that_bjobs_without_jobs_says_so(lsf: FakeLsf) -> None:
    done = lsf.run("bjobs")
    assert (done.stdout, done.stderr) == ("", "No unfinished job found\n")
    assert lsf.run("bjobs", "-o", "colour").returncode == 255


def test_that_a_pending_job_may_become_psusp_and_pending_again(lsf: FakeLsf) -> None:
    lsf.occupy(4, 2)
    job = submit(lsf)
    lsf.hold(job)
    assert stat(lsf, job) == "PSUSP"
    other = submit(lsf)
    lsf.wait_state(other, "DONE")
    assert stat(lsf, job) == "PSUSP"
    lsf.release(job)
    lsf.wait_state(job, "DONE")


def test_that_a_running_job_may_be_stopped_and_go_on(lsf: FakeLsf) -> None:
    job = running(lsf, WAIT)
    lsf.hold(job)
    (lsf.folder / "stop").touch()
    assert stat(lsf, job) == "SSUSP"
    lsf.release(job)
    lsf.wait_state(job, "DONE")


def test_that_a_job_whose_folder_is_gone_is_held(lsf: FakeLsf, tmp_path: Path) -> None:
    lsf.occupy(4, 1)
    place = tmp_path / "place"
    place.mkdir()
    (lsf.folder / "job.lsf").write_text("#!/bin/sh\ntrue\n")
    words = ["bsub", "-P", "a", "-W", "5", "-nnodes", "1", str(lsf.folder / "job.lsf")]
    assert lsf.run(*words, cwd=place).returncode == 0
    shutil.rmtree(place)
    assert "Failed to start" in lsf.wait_state(1001, "PSUSP")["pend_reason"]


# ---- preemption


def test_that_a_preempted_job_is_requeued_under_its_own_id(lsf: FakeLsf) -> None:
    body = f"echo run ${{LSB_RESTART:-N}}\ntrap 'echo saved; exit 1' TERM INT\n{WAIT}"
    job = submit(lsf, body, "-q", "killable", "-W", "24:00")
    lsf.wait_for(lambda: "run N" in output(lsf, job), "the first run")
    lsf.preempt(job)
    lsf.wait_for(lambda: "run Y" in output(lsf, job), "the second run")
    (lsf.folder / "stop").touch()
    ended = lsf.wait_state(job, "DONE")
    assert ended["runs"] == 2 and output(lsf, job) == ["run N", "saved", "run Y"]
    states = [event["state"] for event in lsf.events() if event["id"] == job]
    assert states == ["PEND", "RUN", "PEND", "RUN", "DONE"]


def test_that_a_job_with_rn_ends_when_it_is_preempted(lsf: FakeLsf) -> None:
    job = running(lsf, "sleep 60", "-q", "killable", "-rn")
    lsf.preempt(job)
    ended = lsf.wait_state(job, "EXIT")
    assert (ended["reason"], ended["runs"]) == ("TERM_PREEMPT", 1)


def test_that_jobs_of_other_queues_are_not_preempted(lsf: FakeLsf) -> None:
    job = running(lsf)
    with pytest.raises(ValueError, match="not preempted"):
        lsf.preempt(job)


# ---- faults


@pytest.mark.parametrize(("kind", "said"), [("refuse", "rejected"), ("down", "LSF is down")])
def test_that_a_command_can_be_made_to_fail(lsf: FakeLsf, kind: str, said: str) -> None:
    lsf.fault("bsub", kind, times=2)
    for _ in range(2):
        done = bsub(lsf)
        assert done.returncode == 255 and said in done.stderr
    assert not lsf.jobs()
    assert bsub(lsf).returncode == 0


@pytest.mark.parametrize("kind", ["garbled", "empty"])
def test_that_the_reply_can_be_spoilt_after_the_work_is_done(lsf: FakeLsf, kind: str) -> None:
    lsf.fault("bsub", kind)
    done = bsub(lsf)
    assert done.returncode == 0 and "Job <" not in done.stdout
    lsf.mend("bsub")
    assert bsub(lsf).stdout.startswith("Job <1002>")
    lsf.wait_state(1001, "DONE")


def test_that_a_hanging_command_may_be_killed_without_harm(lsf: FakeLsf) -> None:
    lsf.fault("bjobs", "hang", times=1)
    with pytest.raises(subprocess.TimeoutExpired):
        lsf.run("bjobs", timeout=0.3)
    job = submit(lsf)
    lsf.wait_state(job, "DONE")


def test_that_commands_say_so_when_the_daemon_is_gone(lsf: FakeLsf) -> None:
    lsf.stop()
    done = lsf.run("bjobs")
    assert (done.returncode, done.stderr) == (255, "LSF is down. Please wait ...\n")


# ---- the daemon


def test_that_nothing_is_left_when_the_cluster_stops(lsf: FakeLsf) -> None:
    job = running(lsf, f"jsrun -n 2 sleep 300 &\nenv > seen\n{STUBBORN}")
    lsf.wait_for(lambda: "ready" in output(lsf, job), "the job")
    (mark,) = (e for e in (lsf.folder / "seen").read_text().split("\n") if e.startswith(JOB_MARK))
    value = mark.partition("=")[2]
    lsf.wait_for(lambda: len(marked_processes(JOB_MARK, value)) >= 4, "the step")
    lsf.stop()
    assert not marked_processes(JOB_MARK, value)


def test_that_the_daemon_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from tests.fakes.lsf import FakeLsf;"
        "lsf = FakeLsf(pathlib.Path(sys.argv[1])); lsf.start(); print(lsf.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", code, str(tmp_path / "lsf")]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    # The orphan is gone, or waits only to be collected by whoever inherited it.
    while "daemon" in _command_line(int(done.stdout)):
        assert time.monotonic() < deadline, "the daemon goes on"
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def test_that_parsls_own_provider_finds_its_way(
    lsf: FakeLsf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{lsf.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    provider = LSFProvider(project="abc123", walltime="01:00:00")
    provider.script_dir = str(tmp_path)
    job = provider.submit("sleep 60", 1)
    lsf.wait_state(int(job), "RUN")
    assert provider.status([job])[0].state == JobState.RUNNING
    assert provider.cancel([job]) == [True]
    lsf.wait_state(int(job), "EXIT")
