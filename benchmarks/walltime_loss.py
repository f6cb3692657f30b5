"""Worker-seconds lost to walltime, with and without checkpoints.

    python benchmarks/walltime_loss.py [--block 30] [--trials 4] [--json FILE]

Trials three times longer than a block, in steps of 50 ms, on two workers. *Lost* is work that
has to be done again, or was done for nothing, over the worker-seconds of all blocks; *idle* is
what no slice used: blocks starting up, and the time between the last checkpoint and the kill.
Without checkpoints no trial can end: each is given up after `max_losses` slices. Goal: under
2 % lost with checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import machine, run_study, write_result

OBJECTIVE = """
import time

def train(config, trial):
    state = trial.restore() or {"step": 0} if CHECKPOINTS else {"step": 0}
    for step in range(state["step"], STEPS):
        time.sleep(0.05)
        trial.report(step, value=float(step))
        if CHECKPOINTS and trial.should_checkpoint():
            trial.checkpoint({"step": step + 1})
        if CHECKPOINTS and trial.should_stop():
            return None
    return config["x"]
"""


def measure(folder: Path, checkpoints: bool, block_s: int, trials: int) -> dict[str, float]:
    """Shares of the allocated worker-seconds, and counts."""
    steps = round(3 * block_s / 0.05)
    source = OBJECTIVE.replace("CHECKPOINTS", str(checkpoints)).replace("STEPS", str(steps))
    spec = {
        "name": "long",
        "objective": "objective.py:train",
        "space": {"x": {"float": [0.0, 1.0]}},
        "optimizer": "random",
        "budget": {"trials": trials},
        "trial": {"max_losses": 3},
        "checkpoint": {"every": "5s"},
        "blocks": {"workers_per_node": 2, "walltime": f"{block_s}s"},
    }
    state = run_study(folder, spec, source).state
    allocated = state.allocated_s(state.last_at or 0.0)
    return {
        "lost": state.wasted_s / allocated,
        "busy": state.busy_s / allocated,
        "idle": 1 - state.busy_s / allocated,
        "completed": state.trial_states["completed"],
        "failed": state.trial_states["failed"],
        "blocks": len(state.blocks),
        "paused": state.slice_ends["paused"],
        "slices_lost": state.slice_ends["lost"],
        "allocated_s": allocated,
    }


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", type=int, default=30, help="walltime of a block in seconds")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--json")
    options = parser.parse_args()
    facts = machine()
    result: dict[str, object] = {"machine": facts, "block_s": options.block}
    print("checkpoints     lost     busy     idle  completed  failed  blocks  paused  lost slices")
    with tempfile.TemporaryDirectory() as scratch:
        for word, checkpoints in (("with", True), ("without", False)):
            row = measure(Path(scratch) / word, checkpoints, options.block, options.trials)
            result[word] = row
            print(
                f"{word:11s}  {row['lost']:7.2%}  {row['busy']:7.2%}  {row['idle']:7.2%}"
                f"  {row['completed']:9.0f}  {row['failed']:6.0f}  {row['blocks']:6.0f}"
                f"  {row['paused']:6.0f}  {row['slices_lost']:11.0f}"
            )
    write_result(options.json, result)


if __name__ == "__main__":
    main()
