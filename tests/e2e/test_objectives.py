"""Whole studies of several objectives, through the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hpc_hpo.journal import read_events, replay
from hpc_hpo.pareto import nondominated

#: Binh and Korn's problem (1997), the second objective turned; the last ten per cent of x fail.
OBJECTIVE = """
def train(config):
    a, b = 5 * config["x"], 3 * config["y"]
    if config["x"] > 0.9:
        return {"near": float("nan"), "far": 1.0}
    return {"far": -((a - 5) ** 2 + (b - 5) ** 2), "near": 4 * a * a + 4 * b * b, "sum": a + b}
"""
COMMAND = """
import json, sys
import objective
found = objective.train({"x": float(sys.argv[1]), "y": float(sys.argv[2])})
print("near =", found.pop("near"))
json.dump(found, open("output.json", "w"))
"""
STUDY = """
name: binh
space: {x: {float: [0, 1]}, y: {float: [0, 1]}}
budget: {trials: 24}
blocks: {workers_per_node: 2}
objectives:
  - {name: near, reference: 140%s}
  - {name: far, direction: maximize, reference: -50}
"""
KINDS = {
    "objective": ("objective: objective.py:train\n", "", "auto"),
    "command": (
        'command: [python3, train.py, "{x}", "{y}"]\n', ', stdout: "near = (\\\\S+)"', "evolution",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["objective", pytest.param("command", marks=pytest.mark.slow)])
def test_that_a_front_is_found_told_and_exported_and_a_second_run_goes_on(workshop, kind):
    payload, extra, optimizer = KINDS[kind]
    folder = workshop.folder
    (folder / "objective.py").write_text(OBJECTIVE)
    (folder / "train.py").write_text(f"import sys\nsys.path.insert(0, r'{folder}')\n" + COMMAND)
    study = payload + STUDY % extra + f"optimizer: {optimizer}\n"
    (folder / "study.yaml").write_text(study.replace("trials: 24", "trials: 12"))
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    (folder / "study.yaml").write_text(study)
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state = replay(read_events(folder / "binh" / "journal.jsonl"))
    done = [t for t in state.trials.values() if t.values]
    assert len(state.trials) == 24 and 0 < len(done) < 24
    failed = [t for t in state.trials.values() if t.state.value == "failed"]
    assert all(t.error["kind"] == "loss" and "near is nan" in t.error["message"] for t in failed)
    values = np.array([t.values for t in done]) * [1, -1]
    front = {t.id for t, on in zip(done, nondominated(values), strict=True) if on}
    assert f"{len(front)} trial" in output and "on the front, hypervolume" in output
    listed = json.loads(workshop.call("best", "--json", "binh")[1])
    assert {one["trial"] for one in listed} == front
    table = folder / "table.csv"
    code, output = workshop.call("export", "binh", "--format", "csv", "-o", str(table))
    assert code == 0, output
    with open(table, newline="") as stream:
        rows = {int(row["trial"]): row for row in csv.DictReader(stream)}
    assert {n for n, row in rows.items() if row["pareto"] == "true"} == front
    assert all(float(rows[t.id]["objective.far"]) == t.values[1] for t in done)
