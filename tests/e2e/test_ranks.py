"""Trials of several ranks by jsrun: the fake of Summit starts real ranks of a real MPI."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import psutil
import pytest

from hpc_hpo import journal
from tests.e2e.conftest import ROOT
from tests.fakes.lsf import FakeLsf

# Each takes a minute at most on a machine that does nothing else.
pytestmark = [pytest.mark.slow, pytest.mark.batch, pytest.mark.timeout(300)]

SITE = """\
name: small-summit
extends: summit
arch: auto
address: 127.0.0.1
heartbeat: {period: 1s, threshold: 4s}
kill_grace: 2s
checkpoint_floor: 1s
poll: 0.5s
warning: {signal: SIGUSR2, ahead: 10s}
directives: []
"""
STUDY = """\
name: ranks
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}, wide: {int: [0, 1]}}
optimizer: sobol
seed: 1
budget: {trials: TRIALS}
trial: {ranks: RANKS, ranks_per_node: 2, cores_per_rank: 7, gpus_per_rank: 1}
checkpoint: {every: 0.5s}
account: ABC123
blocks: {nodes: 2, walltime: WALLTIME}
"""
OBJECTIVE = """
import json, os, time
from pathlib import Path

def train(config, trial):
    state = trial.restore() or {"step": 0, "rank": trial.rank}
    assert state["rank"] == trial.rank
    begun = time.time()
    share = [os.environ["FAKE_HOST"], os.environ["CUDA_VISIBLE_DEVICES"]]
    everyone = trial.comm.gather(share)
    loss = None
    for step in range(state["step"], STEPS):
        time.sleep(0.1)
        if trial.should_checkpoint():
            trial.checkpoint({"step": step + 1, "rank": trial.rank}, parts=True)
        if trial.should_stop():
            break
    else:
        loss = trial.reduce(config["x"])
    if trial.rank == 0:
        record = {"size": trial.size, "shares": everyone, "begun": begun, "ended": time.time()}
        name = f"seen-{trial.slice}.json"
        (trial.folder / name).write_text(json.dumps(record))
    return loss
"""


def run_study(folder: Path, lsf: FakeLsf, trials: int, ranks: str, steps: int, walltime: str):
    """Run it; the state and what each slice has seen of its share."""
    (folder / "site.yaml").write_text(SITE)
    study = STUDY.replace("TRIALS", str(trials)).replace("RANKS", ranks)
    (folder / "study.yaml").write_text(study.replace("WALLTIME", walltime))
    (folder / "objective.py").write_text(OBJECTIVE.replace("STEPS", str(steps)))
    done = subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--site", "site.yaml",
         "--plain"],
        cwd=folder, env=lsf.env(PYTHONPATH=str(ROOT)), text=True, timeout=200, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    home = folder / "ranks"
    state = journal.replay(journal.read_events(home / "journal.jsonl"))
    seen = [json.loads(path.read_text()) for path in sorted(home.glob("trials/*/seen-*.json"))]
    keepers = [p for p in psutil.process_iter(["cmdline"]) if str(home) in
               " ".join(p.info["cmdline"] or [])]  # fmt: skip
    assert not keepers, "no rank outlives its job"
    return state, seen


def test_that_four_ranks_on_two_hosts_are_killed_at_walltime_and_resume_with_their_parts(
    tmp_path: Path,
) -> None:
    with FakeLsf(tmp_path / "lsf", speed=4, grace=0.5, nodes=2) as lsf:
        state, seen = run_study(tmp_path, lsf, 1, "4", 250, "1m")
    trial = state.trials[0]
    assert len(trial.slices) >= 2 and trial.failures == 0 and trial.loss is not None
    assert {s.end.value for s in trial.slices[:-1]} <= {"paused", "lost"}
    assert trial.slices[-1].restored is not None
    for record in seen:
        assert record["size"] == 4
        hosts = [host for host, _ in record["shares"]]
        assert len(set(hosts)) == 2 and sorted(map(hosts.count, set(hosts))) == [2, 2]
        assert [gpu for _, gpu in record["shares"]] == ["0", "1", "0", "1"]


def test_that_trials_of_one_and_of_four_ranks_share_no_gpu_of_summit(tmp_path: Path) -> None:
    with FakeLsf(tmp_path / "lsf", speed=1, grace=0.5, nodes=2) as lsf:
        state, seen = run_study(tmp_path, lsf, 16, "1 + 3 * wide", 10, "5m")
    assert state.trial_states["completed"] == 16
    assert {record["size"] for record in seen} == {1, 4}
    together = 0
    for one, other in combinations(seen, 2):
        if one["begun"] < other["ended"] and other["begun"] < one["ended"]:
            together += 1
            shares = [{tuple(share) for share in record["shares"]} for record in (one, other)]
            assert not shares[0] & shares[1]
    assert together, "they run beside each other"
