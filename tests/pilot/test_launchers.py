"""Launch lines, and job scripts that are really run by bash."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time

import pytest

from hpc_hpo.pilot import launchers
from hpc_hpo.pilot.launchers import JobScript, launch_line
from hpc_hpo.worker import deadline


def option(line, name):
    """The value behind a short option."""
    return line[line.index(name) + 1]


def test_that_srun_starts_one_task_a_node_and_outlives_a_lost_node():
    line = launch_line("srun", 12, 64, 8)
    assert line[0] == "srun"
    assert {"--nodes=12", "--ntasks=12", "--ntasks-per-node=1", "--no-kill"} <= set(line)


def test_that_jsrun_starts_one_task_with_all_of_each_node():
    line = launch_line("jsrun", 45, 42, 6)
    shape = {name: option(line, name) for name in ("-n", "-r", "-a", "-c", "-g")}
    assert shape == {"-n": "45", "-r": "1", "-a": "1", "-c": "42", "-g": "6"}


@pytest.mark.parametrize(("nodes", "line"), [(1, []), (3, ["mpiexec", "-n", "3", "-ppn", "1"])])
def test_that_mpiexec_is_needed_for_several_nodes_only(nodes, line):
    assert launch_line("mpiexec", nodes, 32, 4) == line


def test_that_script_and_supervisor_mean_the_same_variables():
    assert (launchers.JOB_START, launchers.TIME_LEFT, launchers.RESTART) == (
        deadline.JOB_START, deadline.TIME_LEFT, deadline.RESTART,
    )  # fmt: skip


@pytest.fixture
def script(tmp_path):
    """Writes a script around a command, in a folder whose name needs quotes."""
    folder = tmp_path / """it's a "folder" $HOME"""
    folder.mkdir()

    def write(command, *, time_left="", prepare=()):
        path = folder / "job.sh"
        made = JobScript(
            directives=["#SBATCH --nodes=1"], prepare=prepare, time_left=time_left, launch=[],
            command=command, starts=str(folder / "start"), signals=str(folder / "signal"),
        )  # fmt: skip
        path.write_text(made.text())
        return path

    return write


def test_that_a_script_tells_its_command_when_it_began_how_long_it_has_and_which_start_it_is(
    script,
):
    command = shlex.join(["sh", "-c", "echo $HPC_HPO_JOB_START; echo $HPC_HPO_TIME_LEFT; "
                          "echo $HPC_HPO_RESTART $MODULE"])  # fmt: skip
    path = script(command, time_left="echo 1:59:30", prepare=["export MODULE=loaded"])
    before = int(time.time())
    for restart in range(2):
        done = subprocess.run(["bash", path], capture_output=True, text=True, timeout=20)
        start, left, rest = done.stdout.splitlines()
        assert before <= int(start) <= time.time()
        assert left.split()[1:] == ["1:59:30"]
        assert rest.split() == [str(restart), "loaded"]


@pytest.mark.parametrize("status", [0, 3])
def test_that_a_script_ends_with_the_status_of_its_launcher(script, status):
    assert subprocess.run(["bash", script(f"sh -c 'exit {status}'")], timeout=20).returncode == (
        status
    )


@pytest.mark.parametrize("name", ["USR1", "USR2", "TERM", "INT"])
def test_that_a_signal_to_the_script_is_left_in_a_file_and_the_command_goes_on(script, name):
    path = script(shlex.join(["sh", "-c", 'touch "$0"; read x < "$1"; exit 7', "up", "go"]))
    folder = path.parent
    os.mkfifo(folder / "go")
    # A shell cannot trap what it found ignored, and a test run in the background ignores INT.
    job = subprocess.Popen(
        ["bash", str(path)],
        cwd=folder,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: (folder / "up").exists())
        job.send_signal(getattr(signal, f"SIG{name}"))
        wait_for(lambda: (folder / "signal").exists() and (folder / "signal").read_text())
        assert (folder / "signal").read_text().split()[0] == name
        assert job.poll() is None
        (folder / "go").write_text("x\n")
        assert job.wait(20) == 7
    finally:
        job.kill()
        job.wait()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
