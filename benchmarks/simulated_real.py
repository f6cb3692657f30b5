"""Whether the simulator says what a real run does: one study run on this machine, then simulated.

    python benchmarks/simulated_real.py [--trials 100] [--workers 2,4,8] [--json FILE]

For each number of workers a study of sleeping trials (lognormal, sigma 0.5, with checkpoints) runs
on site local in short blocks. Its measured trial times (the table that `export` writes), the usual
start-up of its blocks and what a checkpoint took are all that the simulation is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import machine, write_result

from hpc_hpo.journal import StudyState, read_events, replay
from hpc_hpo.simulate.draws import Draw
from hpc_hpo.simulate.run import Assumptions, prepare, simulate
from hpc_hpo.simulate.table import Table
from hpc_hpo.site import load_site
from hpc_hpo.study import load_study

STEPS = 20
OBJECTIVE = """\
import math, random, time

def train(config, trial):
    whole = {median} * math.exp(0.5 * random.Random(trial.seed).gauss(0, 1))
    state = trial.restore() or {{"step": 0}}
    for step in range(state["step"] + 1, {steps} + 1):
        time.sleep(whole / {steps})
        trial.report(step, value=float(step))
        if trial.should_stop() or (step < {steps} and trial.should_checkpoint()):
            trial.checkpoint({{"step": step}})
        if trial.should_stop() and step < {steps}:
            return None
    return config["x"]
"""
STUDY = """\
name: real
objective: objective.py:train
space: {{x: {{float: [0, 1]}}}}
optimizer: random
budget: {{trials: {trials}}}
trial: {{expected_time: {median}s}}
checkpoint: {{every: 2s}}
blocks: {{workers_per_node: {workers}, walltime: {walltime}s, max: {blocks}}}
"""


def run(folder: Path, **shape: Any) -> StudyState:
    """Run a study in a folder; its journal, replayed."""
    (folder / "objective.py").write_text(OBJECTIVE.format(steps=STEPS, **shape))
    (folder / "study.yaml").write_text(STUDY.format(**shape))
    call(folder, "run", "study.yaml")
    call(folder, "export", "real", "--format", "csv", "-o", "trials.csv")
    return replay(read_events(folder / "real" / "journal.jsonl"))


def call(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "hpc_hpo.cli.main", *arguments], cwd=folder,
                          text=True, capture_output=True, check=False)  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")


def figures(state: StudyState) -> dict[str, float]:
    """What is compared, of a real journal as of a simulated one; times in seconds."""
    slices = [s for trial in state.trials.values() for s in trial.slices if s.ended is not None]
    spans = [(s.ended or 0.0) - (s.started or 0.0) for s in slices if s.started is not None]
    blocks = [b for b in state.blocks.values() if b.started is not None]
    begun = min(b.started or 0.0 for b in blocks)
    ended = max(s.ended or 0.0 for s in slices)
    # Blocks that are held after the last trial has ended are held by steering's own end.
    held = sum(b.workers * (min(b.ended or ended, ended) - (b.started or 0.0)) for b in blocks)
    return {
        "utilisation": sum(spans) / held, "finish_s": ended - begun, "slices": len(slices),
        "blocks": len(blocks), "completed": state.trial_states["completed"],
    }  # fmt: skip


def measured(folder: Path, state: StudyState) -> tuple[float, float]:
    """(start-up of a block, length of a checkpoint), both usual ones, in seconds."""
    first: dict[str, float] = {}
    for trial in state.trials.values():
        for record in trial.slices:
            if record.block is not None and record.started is not None:
                known = first.get(record.block, record.started)
                first[record.block] = min(known, record.started)
    ups = [at - (state.blocks[name].started or at) for name, at in first.items()]
    paces = [e["pace"]["checkpoint_s"] for e in read_events(folder / "real" / "journal.jsonl")
             if e["e"] == "end" and "checkpoint_s" in e.get("pace", {})]  # fmt: skip
    return statistics.median(ups), statistics.median(paces) if paces else 0.0


def simulated(folder: Path, start_up_s: float, checkpoint_s: float) -> dict[str, float]:
    """The same study in virtual time."""
    site = load_site("local")
    study = prepare(load_study(folder / "study.yaml"), site)
    table = Table(folder / "trials.csv", study, 0)
    assert table.mean_s is not None
    given = Assumptions(
        Draw("constant", (table.mean_s,)), steps=STEPS, checkpoint_s=checkpoint_s,
        start_up=Draw("constant", (start_up_s,)), objective=table.maker,
    )  # fmt: skip
    found = figures(simulate(study, site, given).state)
    asked, exact = table.use()
    assert asked == exact, "the same search asks the same points"
    return found


def measure(folder: Path, **shape: Any) -> dict[str, Any]:
    """One study, run and simulated."""
    state = run(folder, **shape)
    start_up_s, checkpoint_s = measured(folder, state)
    return {
        **shape, "start_up_s": start_up_s, "checkpoint_s": checkpoint_s,
        "real": figures(state), "simulated": simulated(folder, start_up_s, checkpoint_s),
    }  # fmt: skip


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", default="2,4,8")
    parser.add_argument("--median", type=float, default=2.0, help="of a trial, in seconds")
    parser.add_argument("--walltime", type=int, default=30, help="of a block, in seconds")
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = []
    print("workers            utilisation  finish s  slices  blocks  completed")
    for workers in map(int, options.workers.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            row = measure(Path(scratch), trials=options.trials, workers=workers, blocks=1,
                          walltime=options.walltime, median=options.median)  # fmt: skip
        rows.append(row)
        for kind in ("real", "simulated"):
            found = row[kind]
            print(f"{workers:7d}  {kind:9s}  {found['utilisation']:10.3f}  {found['finish_s']:8.1f}"
                  f"  {found['slices']:6.0f}  {found['blocks']:6.0f}  {found['completed']:9.0f}",
                  flush=True)  # fmt: skip
        print(json.dumps({k: row[k] for k in ("start_up_s", "checkpoint_s")}))
    write_result(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
