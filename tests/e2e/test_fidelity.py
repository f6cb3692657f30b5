"""A study under ASHA whose blocks die and whose steering process is killed."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

import pytest

from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.study import load_study
from tests.e2e.conftest import wait_until
from tests.steering.test_fidelity import check_promotions

#: `began` tells from which step on the slice trained.
OBJECTIVE = """
import time

def train(config, trial):
    began = (trial.restore() or {"step": 0})["step"]
    for step in range(began + 1, 10):
        time.sleep(0.4)
        trial.report(step, loss=config["x"] + 1.0 / step, began=began)
        stop = step < 9 and trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint({"step": step})
        if stop:
            return None
    return config["x"] + 1.0 / 9
"""

STUDY = """
name: rungs
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: random
seed: 3
budget: {trials: 18}
fidelity: {policy: asha, min: 1, max: 9, eta: 3}
segments: {list: [{name: a}, {name: b}]}
trial: {max_losses: 50}
checkpoint: {every: 0.3s}
blocks: {workers_per_node: 2, walltime: 10s}
"""
TRIALS = 36


def loss_at(trial, step):
    return trial.point["x"] + 1.0 / step


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_that_a_study_with_rungs_outlives_its_blocks_and_its_steering_process(workshop):
    workshop.study.write_text(STUDY)
    (workshop.folder / "objective.py").write_text(OBJECTIVE)
    folder = workshop.folder / "rungs"
    journal = folder / "journal.jsonl"

    def rungs_reached(process):
        assert process.poll() is None, process.stdout.read()
        events = read_events(journal) if journal.exists() else ()
        return sum(e["e"] == "end" and e.get("reason") == "rung" for e in events)

    for rungs in (6, 18):
        process = workshop.start("run", "study.yaml")
        wait_until(lambda n=rungs, p=process: rungs_reached(p) >= n, 150)
        time.sleep(0.2)  # amid a slice
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = replay(read_events(journal))
    assert any(not t.final for t in before.trials.values()), "killed before its end"

    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    events = list(read_events(journal))
    state = replay(events)
    blocks = [e for e in events if e["e"] == "block" and e["state"] == "ended"]
    assert sum(e["reason"] == "walltime" for e in blocks) >= 1, "blocks died under it"

    # Every trial ended, by the policy's rules alone.
    assert Counter(t.segment for t in state.trials.values()) == {"a": 18, "b": 18}
    states = state.trial_states
    assert states["completed"] + states["stopped"] == TRIALS
    check_promotions(folder, load_study(workshop.study).fidelity)
    for name in ("a", "b"):
        mine = [t for t in state.trials.values() if t.segment == name]
        # A random order sends on a few more than one of three: those that were best for a time.
        reached = [sum(max(t.reports) >= step for t in mine) for step in (1, 3, 9)]
        assert reached[0] == 18
        assert 6 <= reached[1] <= 12
        assert 1 <= reached[2] <= reached[1] - 2
        best = min(mine, key=lambda t: t.point["x"])
        assert best.state is TrialState.COMPLETED
    for trial in state.trials.values():
        last = max(trial.reports)
        assert sorted(trial.reports) == list(range(1, last + 1)), "no step is missing"
        assert last == 9 if trial.state is TrialState.COMPLETED else last in (1, 3)
        assert trial.loss == pytest.approx(loss_at(trial, last))

    # Whoever went on from a rung did so from its checkpoint.
    paused: dict[int, int] = {}
    onward = 0
    for event in (e for e in events if e["e"] == "end"):
        rung = paused.pop(event["trial"], None)
        if rung is not None and event.get("reports"):
            assert [m["began"] for _, m in event["reports"]] == [rung] * len(event["reports"])
            onward += 1
        if event.get("reason") == "rung":
            paused[event["trial"]] = event["checkpoint"]["step"]
            assert event["checkpoint"]["step"] == event["reports"][-1][0]
    assert onward >= 8

    # Whatever is derived of the journal says the same.
    code, output = workshop.call("status", "rungs", "--json")
    assert code == 0, output
    counts = json.loads(output)["trials"]
    assert (counts["completed"], counts["stopped"]) == (states["completed"], states["stopped"])
    wait_until(lambda: not workshop.processes("hpc_hpo.worker"), 15)
