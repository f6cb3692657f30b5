"""Whether free workers wait for steering, from 100 workers to all of Summit: in virtual time.

    python benchmarks/machine_scale.py [--nodes 17,91,921,4608] [--hours H] [--json FILE]

For each size one block of the study's trials (lognormal, 10 min in the mean, with checkpoints) runs
from its start to its walltime under the simulator, with the default optimiser; the loop's CPU time
is charged to the virtual clock. The walltime is the longest that Summit's bin for the size allows,
from 2 h to 24 h, or `--hours`. Goal: at least 0.98 of the time in trials. The whole machine
for 24 h is 4 million trials: an hour of computing and 10 GB of memory.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import yaml
from common import machine, write_result

from hpc_hpo.pilot.queues import longest_walltime
from hpc_hpo.simulate.draws import Draw
from hpc_hpo.simulate.run import Assumptions, prepare, simulate
from hpc_hpo.site import load_site
from hpc_hpo.study.load import load_study

SIGMA = 0.5
MEAN_S = 600.0


def measure(folder: Path, nodes: int, hours: float | None, optimizer: str) -> dict[str, float]:
    """One size."""
    spec = {
        "name": "scale", "objective": "objective.py:train", "optimizer": optimizer,
        "space": {name: {"float": [0.0, 1.0]} for name in "abcdef"},
        "budget": {"trials": 100_000_000},
        "trial": {"cores_per_rank": 7, "gpus_per_rank": 1},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    site = load_site("summit")
    walltime = longest_walltime(site, None, nodes) if hours is None else 3600.0 * hours
    assert walltime is not None, "Summit's bins have walltimes"
    study = prepare(
        load_study(folder / "study.yaml"), site, nodes=nodes, walltime_s=walltime, blocks=1
    )
    wait = Draw("constant", (walltime,))
    given = Assumptions(
        trial_time=Draw("lognormal", (MEAN_S / math.exp(SIGMA**2 / 2), SIGMA)), queue_wait=wait,
        # Its successor, which waits as long, is not to begin.
        stop_s=2 * walltime - 1e-3,
    )  # fmt: skip
    begun = time.perf_counter()
    found = simulate(study, site, given)
    done = found.state.trial_states["completed"]
    row = {"workers": 6.0 * nodes, "hours": walltime / 3600, "utilisation": found.utilisation}
    row |= {name: value / found.allocated_s for name, value in found.parts.items()}
    row |= {
        "completed": done, "wait_p50_s": found.waits[0], "wait_p99_s": found.waits[1],
        "cpu_ms_per_trial": 1000 * found.steering_cpu_s / max(done, 1), "fits": found.fits,
        "took_s": time.perf_counter() - begun,
    }  # fmt: skip
    return row


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", default="17,91,921,4608")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--optimizer", default="auto")
    parser.add_argument("--json")
    options = parser.parse_args()
    facts, rows = machine(), []
    print(
        "workers  hours  completed  utilisation  checkpoints  start-up  waiting    ends"
        "  p50 s  p99 s  ms/trial"
    )
    for nodes in map(int, options.nodes.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            row = measure(Path(scratch), nodes, options.hours, options.optimizer)
        rows.append(row)
        print(
            f"{row['workers']:7.0f}  {row['hours']:5.1f}  {row['completed']:9.0f}"
            f"  {row['utilisation']:11.4f}  {row['checkpoints']:11.4f}  {row['start-up']:8.4f}"
            f"  {row['waiting for points']:7.4f}  {row['ends of blocks']:.4f}"
            f"  {row['wait_p50_s']:5.3f}  {row['wait_p99_s']:5.2f}  {row['cpu_ms_per_trial']:8.2f}",
            flush=True,
        )
    write_result(options.json, {"machine": facts, "optimizer": options.optimizer, "sizes": rows})


if __name__ == "__main__":
    main()
