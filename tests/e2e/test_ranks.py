"""Trials of several ranks by jsrun: the fake of Summit starts real ranks of a real MPI."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import psutil
import pytest

from hpc_hpo import journal
from tests.e2e.conftest import ROOT, wait_until
from tests.fakes.lsf import FakeLsf
from tests.mpi import require_mpiexec

# Each takes a minute at most on a machine that does nothing else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def mpi() -> None:
    """The workers' Python is that of the tests."""
    require_mpiexec()


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
    begun = time.time()
    share = [os.environ["FAKE_HOST"], os.environ["CUDA_VISIBLE_DEVICES"]]
    everyone = trial.comm.gather(share)
    cores = trial.comm.gather([os.environ["FAKE_HOST"], os.environ["FAKE_CORES"]])
    found = trial.comm.gather([state["step"], state["rank"]])
    record = {"size": trial.size, "shares": everyone, "cores": cores, "found": found,
              "begun": begun, "ended": None}
    tell(trial, record)
    loss = None
    for step in range(state["step"], STEPS):
        time.sleep(0.1)
        if trial.should_checkpoint():
            trial.checkpoint({"step": step + 1, "rank": trial.rank}, parts=True)
        if HEEDS and trial.should_stop():
            break
    else:
        loss = trial.reduce(config["x"])
    tell(trial, {**record, "ended": time.time()})
    return loss

def tell(trial, record):
    if trial.rank == 0:
        trial.folder.mkdir(parents=True, exist_ok=True)
        (trial.folder / f"seen-{trial.slice}.json").write_text(json.dumps(record))
"""


def commands() -> list[str]:
    """What runs on this machine."""
    return [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]


def run_study(
    folder: Path,
    lsf: FakeLsf,
    trials: int,
    ranks: str,
    steps: int,
    walltime: str,
    heeds: bool = True,
):
    """Run it; the state and what each slice has seen of its share."""
    (folder / "site.yaml").write_text(SITE)
    study = STUDY.replace("TRIALS", str(trials)).replace("RANKS", ranks)
    (folder / "study.yaml").write_text(study.replace("WALLTIME", walltime))
    (folder / "objective.py").write_text(
        OBJECTIVE.replace("STEPS", str(steps)).replace("HEEDS", str(heeds))
    )
    done = subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--site", "site.yaml",
         "--plain"],
        cwd=folder, env=lsf.env(PYTHONPATH=str(ROOT)), text=True, timeout=280, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    home = folder / "ranks"
    state = journal.replay(journal.read_events(home / "journal.jsonl"))
    seen = [json.loads(path.read_text()) for path in sorted(home.glob("trials/*/seen-*.json"))]
    # No rank outlives its job.
    wait_until(lambda: not any(str(home) in command for command in commands()), 20)
    return state, seen


def test_that_four_ranks_on_two_hosts_that_lsf_kills_at_walltime_go_on_from_their_parts(
    tmp_path: Path,
) -> None:
    """Whoever does not listen to the warning runs until LSF's own KILL."""
    with FakeLsf(tmp_path / "lsf", speed=2, grace=0.5, nodes=2) as lsf:
        state, seen = run_study(
            tmp_path, lsf, trials=1, ranks="4", steps=300, walltime="1m", heeds=False
        )
        reasons = [job["reason"] for job in lsf.jobs().values()]
    trial = state.trials[0]
    assert trial.failures == 0 and trial.loss is not None
    *before, last = trial.slices
    assert before and {slice_.end.value for slice_ in before} == {"lost"}
    assert reasons.count("TERM_RUNLIMIT") >= len(before)
    assert last.end.value == "completed" and last.restored is not None
    assert len(seen) == len(trial.slices)
    for record in seen:
        assert record["size"] == 4
        hosts = [host for host, _ in record["shares"]]
        assert len(set(hosts)) == 2 and sorted(map(hosts.count, set(hosts))) == [2, 2]
        assert [gpu for _, gpu in record["shares"]] == ["0", "1", "0", "1"]
        # All parts are of one step, and each rank has its own.
        assert len({step for step, _ in record["found"]}) == 1
        assert [rank for _, rank in record["found"]] == [0, 1, 2, 3]
    steps = [record["found"][0][0] for record in seen]
    assert steps[0] == 0 and all(a < b for a, b in pairwise(steps))


def test_that_trials_of_one_and_of_four_ranks_share_no_gpu_of_summit(tmp_path: Path) -> None:
    with FakeLsf(tmp_path / "lsf", speed=1, grace=0.5, nodes=2) as lsf:
        state, seen = run_study(
            tmp_path, lsf, trials=16, ranks="1 + 3 * wide", steps=10, walltime="5m"
        )
    assert state.trial_states["completed"] == 16
    assert {record["size"] for record in seen} == {1, 4}
    together = 0
    for one, other in combinations(seen, 2):
        if one["begun"] < other["ended"] and other["begun"] < one["ended"]:
            together += 1
            shares = [{tuple(share) for share in record["shares"]} for record in (one, other)]
            assert not shares[0] & shares[1]
            if one["size"] == other["size"] == 4:
                # (Of a rank alone jsrun does not know which of its node's cores it uses.)
                cores = [{(host, core) for host, cores in record["cores"]
                          for core in cores.split(",")} for record in (one, other)]  # fmt: skip
                assert not cores[0] & cores[1]
    assert together, "they run beside each other"
