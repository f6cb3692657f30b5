"""A Slurm for the tests, and studies run on it by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hpc_hpo import journal
from hpc_hpo.journal import StudyState
from tests.slurm.cluster import SlurmCluster, missing

ROOT = Path(__file__).resolve().parents[2]

SITE = """
name: mini
extends: slurm
node: {cores: 2, gpus: 2}
address: 127.0.0.1
poll: 1s
kill_grace: 2s
checkpoint_floor: 0.5s
warning: {signal: SIGUSR1, ahead: 20s}
heartbeat: {period: 1s, threshold: 4s}
queues:
  debug: {max_queued: LIMIT, bins: [{nodes: [1, 4], walltime: 0:30}]}
"""

OBJECTIVE = """
import time

def train(config, trial):
    state = trial.restore() or {"step": 0}
    for step in range(state["step"], STEPS):
        time.sleep(0.1)
        trial.report(step, value=float(step))
        if trial.should_stop() or trial.should_checkpoint():
            trial.checkpoint({"step": step + 1})
        if trial.should_stop():
            return None
    return (config["x"] - 0.3) ** 2
"""

STUDY = """
name: chain
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: sobol
seed: 3
budget: {trials: TRIALS}
checkpoint: {every: 0.5s}
site: ./site.yaml
blocks: {workers_per_node: 2, nodes: NODES, walltime: 1m}
"""


def pytest_configure(config):
    config.addinivalue_line("markers", "slurm: needs a real Slurm on this machine")


def pytest_collection_modifyitems(items):
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.slurm)


def require(speed: int = 1) -> None:
    """Skip without Slurm, or fail where one is demanded (HPC_HPO_NEEDS_SLURM, set by CI)."""
    absent = missing(speed)
    if absent and os.environ.get("HPC_HPO_NEEDS_SLURM"):
        pytest.fail(absent)
    if absent:
        pytest.skip(absent)


class Shop:
    """A folder with a study in it, run on a cluster in the background."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.study = folder / "chain"
        self.most_queued = 0
        self._process: subprocess.Popen | None = None

    def write(self, *, trials=2, steps=60, nodes=1, limit=2, objective=OBJECTIVE) -> None:
        """The study's files; a step takes 0.1 s."""
        (self.folder / "site.yaml").write_text(SITE.replace("LIMIT", str(limit)))
        code = textwrap.dedent(objective).replace("STEPS", str(steps))
        (self.folder / "objective.py").write_text(code)
        study = STUDY.replace("TRIALS", str(trials)).replace("NODES", str(nodes))
        (self.folder / "study.yaml").write_text(study)

    def start(self) -> subprocess.Popen:
        """Run the study."""
        env = {**self.cluster.env, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        with open(self.folder / "out.txt", "a") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--plain"],
                cwd=self.folder, env=env, text=True, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return self._process

    def output(self) -> str:
        """What the command has printed."""
        return (self.folder / "out.txt").read_text()

    def state(self) -> StudyState:
        """The study by its journal."""
        return journal.replay(journal.read_events(self.study / "journal.jsonl"))

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition, looking at the queue meanwhile."""
        end = time.monotonic() + seconds
        while not condition():
            self.most_queued = max(self.most_queued, len(self.cluster.queue()))
            assert time.monotonic() < end, f"waited in vain; printed so far:\n{self.output()}"
            time.sleep(0.2)

    def finish(self, seconds: float) -> StudyState:
        """Wait for the command's end; the study must be done, its jobs gone."""
        process = self._process
        assert process is not None
        self.wait_until(lambda: process.poll() is not None, seconds)
        assert process.returncode == 0, self.output()
        self.cluster.wait(lambda: not self.cluster.queue())
        return self.state()

    def steps_done(self) -> int:
        """Checkpoints in the study's folder: a sign that slices are at work."""
        return sum(1 for _ in self.study.glob("trials/*/ckpt-*"))

    def processes(self) -> list[psutil.Process]:
        """All that runs for the study, on whichever node."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or [])
        ]

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for process in self.processes():
            process.kill()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Four nodes on a clock that goes as clocks do."""
    require()
    with SlurmCluster(tmp_path_factory.mktemp("slurm") / "c") as cluster:
        yield cluster


@pytest.fixture
def shop(tmp_path, slurm):
    made = Shop(tmp_path, slurm)
    yield made
    made.close()
    slurm.call("scancel", "-f", "--state=PENDING,RUNNING,SUSPENDED")
    slurm.wait(lambda: not slurm.queue())


@pytest.fixture
def hurried_shop(tmp_path, tmp_path_factory):
    """A shop on a cluster of its own, whose controller's clock runs ten times faster."""
    require(speed=10)
    folder = tmp_path_factory.mktemp("hurried") / "c"
    with SlurmCluster(folder, nodes=2, speed=10) as cluster:
        made = Shop(tmp_path, cluster)
        yield made
        made.close()
