"""Useful worker-seconds of batch jobs that end at their walltime, beside plain Parsl.

    python benchmarks/pilot_utilisation.py [--trials 200] [--json FILE]

Needs a Slurm (Debian packages slurmctld slurmd slurm-client); it starts a private one of four
nodes with two cores each. The same trials of 2 to 6 seconds of sleep run over jobs of two nodes
with a limit of one minute, two jobs at a time: by a study that checkpoints before its blocks end,
and by plain Parsl with `retries=100`, whose interrupted tasks begin anew. *Useful* is the work of
the trials, once; *allocated* is what Slurm's own accounting says the jobs held, in worker-seconds.
Goals: at least 0.93 useful, and 1.1 times Parsl's share.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from common import machine, run_study, write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.slurm.cluster import SlurmCluster, missing

OBJECTIVE = """
import time

STEP_S = 0.1

def train(config, trial):
    # The work is time, as in one sleep of the whole length: a step that took longer did more.
    state = trial.restore() or {"done": 0.0}
    done, length = state["done"], LENGTHS[trial.id]
    while done < length:
        begun = time.monotonic()
        time.sleep(min(STEP_S, length - done))
        done += time.monotonic() - begun
        trial.report(round(done / STEP_S), done=done)
        stop = trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint({"done": done})
        if stop:
            return None
    return config["x"]
"""

SITE = """
name: bench
extends: slurm
node: {cores: 2, gpus: 0}
address: 127.0.0.1
poll: 1s
kill_grace: 2s
checkpoint_floor: 0.5s
warning: {signal: SIGUSR1, ahead: 20s}
heartbeat: {period: 1s, threshold: 5s}
queues: {debug: {max_queued: 4, bins: [{nodes: [1, 4], walltime: 0:10}]}}
"""
WORKERS = 2


def held(cluster: SlurmCluster) -> float:
    """Worker-seconds of all jobs, from Slurm's record of ended jobs."""
    total = 0.0
    for line in (cluster.folder / "ended.txt").read_text().splitlines():
        facts = dict(re.findall(r"(\w+)=(\S+)", line))
        begun, ended = (datetime.fromisoformat(facts[k]) for k in ("StartTime", "EndTime"))
        total += (ended - begun).total_seconds() * int(facts["NodeCnt"]) * WORKERS
    return total


def ours(folder: Path, lengths: list[float]) -> dict[str, float]:
    """The study's useful share."""
    with SlurmCluster(folder / "slurm") as cluster:
        os.environ.update({k: cluster.env[k] for k in ("PATH", "SLURM_CONF")})
        (folder / "site.yaml").write_text(SITE)
        spec = {
            "name": "bench",
            "objective": "objective.py:train",
            "space": {"x": {"float": [0.0, 1.0]}},
            "optimizer": "random",
            "budget": {"trials": len(lengths)},
            "trial": {"expected_time": "4s"},
            "checkpoint": {"every": "5s"},
            "site": str(folder / "site.yaml"),
            "blocks": {"nodes": 2, "workers_per_node": WORKERS, "walltime": "1m", "max": 2},
        }
        begun = time.time()
        state = run_study(folder / "study", spec, OBJECTIVE.replace("LENGTHS", repr(lengths))).state
        took = time.time() - begun
        cluster.wait(lambda: not cluster.queue())
        assert state.trial_states["completed"] == len(lengths)
        return {
            "allocated_s": held(cluster), "useful_s": sum(lengths), "took_s": took,
            "jobs": len(state.blocks), "lost_s": state.wasted_s,
        }  # fmt: skip


def nap(seconds: float) -> None:
    """A trial of plain Parsl."""
    import time

    time.sleep(seconds)


def plain(folder: Path, lengths: list[float]) -> dict[str, float]:
    """Plain Parsl's useful share."""
    import parsl
    from parsl import python_app
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SrunLauncher
    from parsl.providers import SlurmProvider

    with SlurmCluster(folder / "slurm") as cluster:
        environment = {k: cluster.env[k] for k in ("PATH", "SLURM_CONF")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        os.environ.update(environment)
        provider = SlurmProvider(
            nodes_per_block=2, init_blocks=2, max_blocks=2, walltime="00:01:00",
            exclusive=False, launcher=SrunLauncher(),
            worker_init=f"export PATH={environment['PATH']}",
        )  # fmt: skip
        executor = HighThroughputExecutor(
            label="plain", address="127.0.0.1", max_workers_per_node=WORKERS,
            cores_per_worker=1e-3, heartbeat_period=1, heartbeat_threshold=5,
            provider=provider, block_error_handler=False,
        )  # fmt: skip
        config = Config(executors=[executor], run_dir=str(folder / "run"), retries=100)
        begun = time.time()
        with parsl.load(config):
            app = python_app(nap)
            for future in [app(length) for length in lengths]:
                future.result()
            took = time.time() - begun
        cluster.call("scancel", "-u", os.environ.get("USER", "root"))
        cluster.wait(lambda: not cluster.queue())
        jobs = len(cluster.ended())
        return {
            "allocated_s": held(cluster), "useful_s": sum(lengths), "took_s": took, "jobs": jobs,
        }  # fmt: skip


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json")
    options = parser.parse_args()
    absent = missing()
    if absent:
        raise SystemExit(absent)
    chance = random.Random(1)
    lengths = [round(chance.uniform(2, 6), 1) for _ in range(options.trials)]
    result: dict[str, object] = {"machine": machine(), "trials": options.trials}
    print("             useful  allocated s  useful s  took s  jobs")
    shares = {}
    with tempfile.TemporaryDirectory() as scratch:
        for word, run in (("hpc_hpo", ours), ("plain Parsl", plain)):
            folder = Path(scratch) / word.replace(" ", "-")
            folder.mkdir()
            row = run(folder, lengths)
            shares[word] = row["useful_s"] / row["allocated_s"]
            result[word] = row
            print(
                f"{word:11s}  {shares[word]:6.3f}  {row['allocated_s']:11.0f}"
                f"  {row['useful_s']:8.0f}  {row['took_s']:6.0f}  {row['jobs']:4.0f}"
            )
    ratio = shares["hpc_hpo"] / shares["plain Parsl"]
    print(f"goals: useful at least 0.93; {ratio:.2f} times Parsl's share (goal 1.1)")
    write_result(options.json, result)


if __name__ == "__main__":
    main()
