"""A population trained by real workers, whose steering process is killed on the way."""

from __future__ import annotations

import signal
import time

import pytest

from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import INHERITED, SliceEnd, TrialState

OBJECTIVE = """
import time

def train(config, trial):
    # The expected loss of gradient descent on a noisy quadratic: the best rate falls with it.
    state = trial.restore() or {"step": 0, "x": 1.0, "rates": []}
    x, rates, rate = state["x"], state["rates"], config["lr"]
    for step in range(state["step"] + 1, 81):
        time.sleep(0.003)
        x = (1 - rate) ** 2 * x + rate**2
        rates = [*rates, rate]
        trial.report(step, loss=x)
        if trial.should_stop():
            trial.checkpoint({"step": step, "x": x, "rates": rates})
            return None
    return x
"""
STUDY = """
name: pbt
objective: objective.py:train
space: {lr: {method: loguniform, dimension: {low: 0.003, high: 1.0}}}
optimizer: random
seed: 4
fidelity: {policy: pbt, population: 6, every: 8, max: 80}
budget: {epochs: 600}
blocks: {workers_per_node: 2, walltime: 60s}
"""


def alone(rate: float) -> float:
    x = 1.0
    for _ in range(80):
        x = (1 - rate) ** 2 * x + rate**2
    return x


@pytest.mark.timeout(180)
def test_that_a_killed_population_goes_on_and_beats_its_random_members(workshop):
    workshop.study.write_text(STUDY)
    (workshop.folder / "objective.py").write_text(OBJECTIVE)
    journal = workshop.folder / "pbt" / "journal.jsonl"
    process = workshop.start("run", "study.yaml")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.1)
        if journal.exists() and any(t.parent for t in replay(read_events(journal)).trials.values()):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = replay(read_events(journal))
    copies = {t.id: (t.point, t.parent) for t in before.trials.values() if t.parent}
    assert copies
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state = replay(read_events(journal))
    assert state.runs == 2
    assert {n: (state.trials[n].point, state.trials[n].parent) for n in copies} == copies
    assert "the population is trained" in output
    done = [t for t in state.trials.values() if t.state is TrialState.COMPLETED]
    members = [t for t in state.trials.values() if t.parent is None]
    assert len(done) == len(members) == 6
    for trial in state.trials.values():
        if trial.parent is not None and trial.reports:
            # A slice that was lost with its worker tells nothing of where it began.
            known = [s for s in trial.slices[:1] if s.end is not SliceEnd.LOST]
            assert all(s.restored == INHERITED for s in known)
            assert min(trial.reports) == trial.parent["step"] + 1
    replaced = [t.parent["replaces"] for t in state.trials.values() if t.parent]
    assert len(replaced) == len(set(replaced))
    best = min(alone(t.point["lr"]) for t in members)
    assert state.best().loss < best
    code, output = workshop.call("show", "pbt", str(state.best().id))
    assert code == 0, output
    if (parent := state.best().parent) is not None:
        assert f"trial {parent['trial']} at step {parent['step']}" in output
