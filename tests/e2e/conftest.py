"""Studies run by the real command, in processes of their own, through real Parsl pilots."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

SLEEPY = """
import time

def train(config, trial):
    state = trial.restore() or {"step": 0}
    for step in range(state["step"], STEPS):
        time.sleep(0.05)
        trial.report(step, value=float(step))
        if trial.should_stop() or trial.should_checkpoint():
            trial.checkpoint({"step": step + 1})
        if trial.should_stop():
            return None
    return (config["x"] - 0.3) ** 2 + config["k"]
"""

STUDY = """
name: {name}
objective: objective.py:train
space:
  x: {{float: [0.0, 1.0]}}
  k: {{int: [0, 5]}}
optimizer: sobol
seed: 7
budget: {{trials: {trials}}}
checkpoint: {{every: {every}}}
blocks: {{workers_per_node: 2, walltime: {walltime}}}
"""


class Workshop:
    """A folder with a study in it, and the commands to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = folder / "study.yaml"
        #: where the command's Python looks for packages first
        self.paths = [ROOT]
        self._running: list[subprocess.Popen] = []

    def write(self, *, name="sleepy", trials=8, steps=20, walltime="30s", every="0.3s"):
        self.study.write_text(
            STUDY.format(name=name, trials=trials, walltime=walltime, every=every)
        )
        (self.folder / "objective.py").write_text(SLEEPY.replace("STEPS", str(steps)))

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """The command in the background; killed at the end of the test."""
        paths = os.pathsep.join(map(str, self.paths))
        environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(self.folder)}
        process = subprocess.Popen(
            [sys.executable, "-m", "hpc_hpo.cli.main", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        self._running.append(process)
        return process

    def call(self, *arguments: str, timeout=100) -> tuple[int, str]:
        """The command to its end: exit code and output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def processes(self, word: str) -> list[psutil.Process]:
        """Live processes begun in this folder whose command line holds `word`."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            place = f"{process.info['cwd']} {line}"
            if str(self.folder) in place and word in line and process.info["status"] != "zombie":
                found.append(process)
        return found

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


@pytest.fixture
def workshop(tmp_path):
    shop = Workshop(tmp_path)
    yield shop
    shop.close()
    # Blocks of killed runs end within the heartbeat, or 30 s after they found no interchange.
    wait_until(lambda: not shop.processes(""), 45)


def wait_until(condition, seconds):
    """Wait for a condition; the test fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
