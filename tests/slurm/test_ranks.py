"""Trials of several ranks over the nodes of a real Slurm, beside trials of one rank."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from hpc_hpo.worker.checkpoint import verify
from tests.mpi import require_mpiexec

# Each takes a minute at most on a machine that does nothing else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def mpi() -> None:
    """The workers' Python is that of the tests."""
    require_mpiexec()


STUDY = """
name: chain
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}, wide: {int: [0, 1]}}
optimizer: sobol
seed: 3
budget: {trials: TRIALS}
trial: {ranks: RANKS, ranks_per_node: 2, gpus_per_rank: 1}
checkpoint: {every: 0.5s}
site: ./site.yaml
blocks: {nodes: 2, walltime: WALLTIME}
"""

OBJECTIVE = """
import json, os, time
from pathlib import Path

def train(config, trial):
    state = trial.restore() or {"step": 0}
    begun = time.time()
    mine = [os.environ["SLURMD_NODENAME"], os.environ["CUDA_VISIBLE_DEVICES"],
            ",".join(map(str, sorted(os.sched_getaffinity(0))))]
    everyone = trial.comm.gather(mine)
    for step in range(state["step"], STEPS):
        time.sleep(0.1)
        trial.report(step, value=float(step))
        if trial.should_checkpoint():
            trial.checkpoint({"step": step + 1, "rank": trial.rank}, parts=True)
        if trial.should_stop():
            break
    else:
        step = None
    assert state.get("rank", trial.rank) == trial.rank
    if trial.rank == 0:
        record = {"trial": trial.id, "slice": trial.slice, "size": trial.size,
                  "shares": everyone, "begun": begun, "ended": time.time()}
        Path(os.environ["SEEN"], f"{trial.id}-{trial.slice}.json").write_text(
            json.dumps(record))
    return None if step is not None else trial.reduce((config["x"] - 0.3) ** 2)
"""


def records(folder: Path) -> list[dict]:
    """What each slice has seen of its share."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def taken(column: int) -> Callable[[dict], set[tuple[str, str]]]:
    """The GPUs (column 1) or the cores (2) of a slice, with their nodes."""
    return lambda record: {(share[0], share[column]) for share in record["shares"]}


def prepare(
    shop, *, trials: int, ranks: str, steps: int = 0, walltime: str = "1m",
    objective: str = OBJECTIVE,
) -> Path:  # fmt: skip
    """A study of trials of several ranks; the folder into which its slices write."""
    shop.write(objective=objective, steps=steps)
    site = shop.folder / "site.yaml"
    # Time enough for all ranks to pause in, on a machine that does other things, too.
    text = site.read_text().replace("checkpoint_floor: 0.5s", "checkpoint_floor: 4s")
    site.write_text(f"{text}mpi: pmi2\n")
    seen = shop.folder / "seen"
    seen.mkdir()
    study = STUDY.replace("TRIALS", str(trials)).replace("RANKS", ranks)
    study = study.replace("WALLTIME", walltime)
    (shop.folder / "study.yaml").write_text(study + f"env: {{SEEN: '{seen}'}}\n")
    return seen


def test_that_a_trial_over_two_nodes_goes_on_with_its_four_parts_in_the_next_job(shop):
    seen = prepare(shop, trials=1, ranks="4", steps=600)
    shop.start()
    state = shop.finish(240)
    found = records(seen)
    assert [r["size"] for r in found] == [4] * len(found) and len(found) >= 2
    for record in found:
        nodes = [node for node, _, _ in record["shares"]]
        assert len(set(nodes)) == 2 and all(nodes.count(node) == 2 for node in nodes)
        assert len(taken(1)(record)) == 4, "a GPU each"
    trial = state.trials[0]
    assert trial.failures == 0 and trial.loss is not None
    *before, last = trial.slices
    assert {(slice_.end.value, slice_.reason) for slice_ in before} == {("paused", "walltime")}
    assert last.restored is not None
    saved = verify(shop.study / "trials" / "000000" / trial.checkpoint["name"])
    assert sorted(saved.meta["files"]) == [f"parts/rank-{r:06d}.h5" for r in range(4)]


def test_that_trials_of_one_and_of_four_ranks_share_no_gpu_and_no_core(shop):
    seen = prepare(shop, trials=14, ranks="1 + 3 * wide", steps=15)
    shop.start()
    state = shop.finish(240)
    assert state.trial_states["completed"] == 14
    found = records(seen)
    assert {r["size"] for r in found} == {1, 4}
    for one, other in combinations(found, 2):
        if one["begun"] < other["ended"] and other["begun"] < one["ended"]:
            for what in (taken(1), taken(2)):
                assert not what(one) & what(other), (one, other)
    for record in found:
        assert len(taken(1)(record)) == record["size"], "a GPU each"
        if len(os.sched_getaffinity(0)) >= 2:
            assert len(taken(2)(record)) == record["size"], "a core each"
    at_once = [
        (a, b) for a, b in combinations(found, 2)
        if a["begun"] < b["ended"] and b["begun"] < a["ended"]
    ]  # fmt: skip
    assert at_once, "small trials run beside each other"


DEAF = """
import json, os, time
from pathlib import Path

def train(config, trial):
    state = trial.restore() or {"step": 0, "rank": trial.rank}
    everyone = trial.comm.gather([state["step"], state["rank"]])
    if trial.rank == 0:
        Path(os.environ["SEEN"], f"{trial.slice}.json").write_text(json.dumps(everyone))
    for step in range(state["step"], STEPS):
        time.sleep(0.1)
        if trial.should_checkpoint():
            trial.checkpoint({"step": step + 1, "rank": trial.rank}, parts=True)
    return trial.reduce(config["x"])
"""


def test_that_four_ranks_over_two_nodes_that_slurm_kills_at_walltime_go_on_from_their_parts(
    hurried_shop,
):
    """Whoever does not listen to the warning runs until Slurm's own KILL."""
    shop = hurried_shop
    seen = prepare(shop, trials=1, ranks="4", steps=150, walltime="2m", objective=DEAF)
    shop.start()
    state = shop.finish(200)
    shop.wait_until(lambda: not shop.processes(), 20)  # no rank outlives its job
    killed = [job for job, how in shop.cluster.ended().items() if how == "TIMEOUT"]
    trial = state.trials[0]
    assert trial.loss is not None and trial.failures == 0
    *before, last = trial.slices
    assert len(before) >= 1 and {slice_.end.value for slice_ in before} == {"lost"}
    assert len(killed) >= len(before), shop.cluster.ended()
    assert last.end.value == "completed" and last.restored is not None
    begun = [json.loads((seen / f"{slice_.number}.json").read_text()) for slice_ in trial.slices]
    for parts in begun:
        # All parts are of one step, and each rank has its own.
        assert len({step for step, _ in parts}) == 1 and [rank for _, rank in parts] == [0, 1, 2, 3]
    steps = [parts[0][0] for parts in begun]
    assert steps[0] == 0 and all(a < b for a, b in pairwise(steps))


ALONE = """
import json, os
from pathlib import Path

import psutil

def train(config, trial):
    pilot = [p.environ().get("PMI_SIZE") for p in psutil.Process().parents()
             if "hpc_hpo.worker.block" in p.cmdline()]
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()
    record = [pilot[0], MPI.COMM_WORLD.Get_size(), trial.comm.Get_size()]
    Path(os.environ["SEEN"], f"{trial.id}.json").write_text(json.dumps(record))
    return config["x"]
"""


@pytest.mark.parametrize(("launcher", "size"), [("srun", None), ("mpiexec", "2")])
def test_that_a_one_rank_trial_in_a_pilot_of_two_nodes_is_a_world_of_its_own(shop, launcher, size):
    """Where MPI's own launcher starts the pilot, that is a world of two."""
    seen = prepare(shop, trials=4, ranks="1", objective=ALONE)
    with open(shop.folder / "site.yaml", "a") as site:
        site.write(f"launcher: {launcher}\nworker_init: PATH={Path(sys.executable).parent}:$PATH\n")
    shop.start()
    assert shop.finish(120).trial_states["completed"] == 4
    assert [tuple(record) for record in records(seen)] == [(size, 1, 1)] * 4
