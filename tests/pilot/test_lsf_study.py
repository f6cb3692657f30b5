"""A study on an LSF with jsrun: the fake's real processes, killed at their run limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc_hpo import journal
from tests.fakes.lsf import FakeLsf

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

FILES = {
    "site.yaml": """
name: little-summit
extends: summit
address: 127.0.0.1
interface: lo
poll: 1s
kill_grace: 3s
checkpoint_floor: 0.5s
heartbeat: {period: 1s, threshold: 4s}
""",
    "objective.py": """
import time

def train(config, trial):
    state = trial.restore() or {"step": 0}
    for step in range(state["step"], 120):
        time.sleep(0.1)
        if trial.should_stop() or trial.should_checkpoint():
            trial.checkpoint({"step": step + 1})
        if trial.should_stop():
            return None
    return config["x"]
""",
    "study.yaml": """
name: chain
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: sobol
budget: {trials: 4}
checkpoint: {every: 0.5s}
site: ./site.yaml
account: ABC123
blocks: {nodes: 2, workers_per_node: 2, walltime: 10m}
""",
}


def test_that_a_study_crosses_blocks_that_lsf_kills_at_their_limit(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with FakeLsf(tmp_path / "lsf", nodes=2, speed=60, grace=1.5, real_times=True) as lsf:
        run = subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--plain"],
            cwd=tmp_path, env=lsf.env(PYTHONPATH=str(ROOT), HOME=str(tmp_path)),
            capture_output=True, text=True, timeout=110,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        lsf.wait_for(
            lambda: all(job["state"] in ("DONE", "EXIT") for job in lsf.jobs().values()), "the end"
        )
        reasons = [job["reason"] for job in lsf.jobs().values()]
    state = journal.replay(journal.read_events(tmp_path / "chain" / "journal.jsonl"))
    assert state.trial_states["completed"] == 4
    assert all(trial.failures == 0 for trial in state.trials.values())
    assert any("RUNLIMIT" in (reason or "") for reason in reasons), reasons
    assert state.wasted_s < 0.02 * state.allocated_s(state.last_at)
