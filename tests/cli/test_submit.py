"""`hpc-hpo submit`: studies that go on without the terminal they were started from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDY = """\
name: sleepy
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: sobol
budget: {trials: TRIALS}
checkpoint: {every: 0.3s}
blocks: {workers_per_node: 2, walltime: 30s}
"""
OBJECTIVE = """\
import pathlib, time

def train(config, trial):
    # So that no machine is through with a study before its test is.
    allowed = pathlib.Path(__file__).with_name("allowed")
    while trial.id >= int(allowed.read_text()) and not trial.should_stop():
        time.sleep(0.05)
    state = trial.restore() or {"step": 0}
    for step in range(state["step"], 10):
        time.sleep(0.05)
        if trial.should_stop() or trial.should_checkpoint():
            trial.checkpoint({"step": step + 1})
        if trial.should_stop():
            return None
    return config["x"]
"""


class Desk:
    """A folder with a study, at which commands are given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dir = folder / "sleepy"

    def write(self, trials: int) -> None:
        (self.folder / "study.yaml").write_text(STUDY.replace("TRIALS", str(trials)))
        (self.folder / "objective.py").write_text(OBJECTIVE)
        self.allow(trials)

    def allow(self, trials: int) -> None:
        """Let the trials with lower numbers than this be finished."""
        written = self.folder / "allowed.new"
        written.write_text(str(trials))
        written.replace(self.folder / "allowed")

    def __call__(self, *words: str, code: int = 0) -> str:
        """A command's output; its exit code is asserted."""
        done = subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", *words],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def status(self) -> dict:
        return json.loads(self("status", "study.yaml", "--json"))

    def pid(self) -> int | None:
        try:
            return json.loads((self.dir / "holder.json").read_text())["pid"]
        except OSError:
            return None

    def wait(self, condition: Callable[[], object], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    def done_trials(self) -> int:
        path = self.dir / "journal.jsonl"
        return path.read_bytes().count(b'"state":"completed"') if path.exists() else 0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "it's here"
    folder.mkdir()
    desk = Desk(folder)
    yield desk
    pid = desk.pid()
    if pid is not None and Path(f"/proc/{pid}").exists():
        os.kill(pid, signal.SIGTERM)
        desk.wait(lambda: not Path(f"/proc/{pid}").exists())


def test_that_a_study_goes_on_after_its_terminal_until_it_is_stopped_or_done(desk: Desk) -> None:
    desk.write(trials=20)
    desk.allow(6)
    said = desk("submit", "study.yaml")
    pid = desk.pid()
    assert pid is not None and f"process {pid} on {os.uname().nodename}" in said
    assert str(desk.dir / "logs" / "steering.log") in said
    os.kill(pid, signal.SIGHUP)
    desk.wait(lambda: desk.done_trials() >= 2)
    assert desk.status()["steering"]["pid"] == pid
    # A second one says who is there, and disturbs nothing.
    assert f"process {pid} on" in desk("submit", "study.yaml", code=4)
    desk("stop", "study.yaml", "--wait")
    assert desk.status()["state"] == "stopped"
    assert "stopped; the same command goes on" in desk("logs", "study.yaml")
    assert "no steering process is at work any more" in desk("logs", "study.yaml", "-f")
    # It goes on where it was, and again after a death without warning.
    desk.allow(12)
    desk("submit", "study.yaml")
    second, before = desk.pid(), desk.done_trials()
    assert second is not None
    desk.wait(lambda: desk.done_trials() >= before + 2)
    os.kill(second, signal.SIGKILL)
    desk.allow(20)
    assert f"taken over from process {second}" in desk("submit", desk.dir.name)
    desk("logs", desk.dir.name, "-f")
    found = desk.status()
    assert (found["state"], found["trials"]["completed"], found["runs"]) == ("done", 20, 3)


def test_that_a_study_which_is_done_says_so_at_once(desk: Desk) -> None:
    desk.write(trials=2)
    desk("submit", "study.yaml")
    desk.wait(lambda: desk.pid() is None)
    said = desk("submit", "study.yaml")
    assert "has ended already" in said and "done: the budget is used" in said
    assert said.count("---") == 1, "the log of this process only"


def test_that_steering_ends_in_order_before_the_limit_of_cpu_time(desk: Desk) -> None:
    desk.write(trials=20)
    site = desk.folder / "strict.yaml"
    site.write_text("{name: strict, extends: local, cpu_limit: {warn: 0.4s, kill: 1s}}\n")
    said = desk("run", "study.yaml", "--site", "strict.yaml", "--hand-over", code=3)
    assert "slows a process down at 0.4s and kills it at 1s" in said
    assert "stopped before this machine's limit of CPU time" in said
    assert desk.status()["trials"]["running"] == 0


@pytest.mark.parametrize(
    ("old", "new", "options", "words"),
    [
        ("objective.py:train", "absent.py:train", [], "absent.py"),
        ("budget:", "bugdet:", [], "budget"),
        ("budget:", "inputs: [{name: d, source: none.txt}]\nbudget:", [], "inputs[0].source"),
        ("", "", ["--site", "nowhere"], "nowhere"),
        ("", "", ["--steer", "batch"], "site local has no batch system"),
        ("", "", ["--max-jobs", "3"], "goes with --steer batch"),
    ],
)
def test_that_bad_input_is_one_clear_error_before_anything_starts(
    old: str, new: str, options: list[str], words: str, desk: Desk
) -> None:
    desk.write(trials=2)
    file = desk.folder / "study.yaml"
    file.write_text(file.read_text().replace(old, new))
    said = desk("submit", "study.yaml", *options, code=2)
    assert words in said and "Traceback" not in said
    assert not (desk.dir / "logs" / "steering.log").exists()


def test_that_a_folder_which_cannot_be_made_is_told(desk: Desk) -> None:
    desk.write(trials=2)
    desk.dir.write_text("in the way")
    assert "cannot be written" in desk("submit", "study.yaml", code=5)
