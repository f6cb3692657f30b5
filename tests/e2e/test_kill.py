"""SIGKILL of the steering process at random moments."""

from __future__ import annotations

import random
import signal
import time

import pytest

from hpc_hpo.journal import read_events, replay
from tests.e2e.conftest import wait_until


def results(folder):
    state = replay(read_events(folder / "journal.jsonl"))
    return state, {t.id: (t.point, t.loss, sorted(t.reports)) for t in state.trials.values()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_that_twenty_kills_lose_no_result_and_keep_none_twice(workshop):
    workshop.write(name="calm", trials=30, steps=40, every="0.2s")
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    _, expected = results(workshop.folder / "calm")

    workshop.write(name="wild", trials=30, steps=40, every="0.2s")
    folder = workshop.folder / "wild"
    chance = random.Random(20)
    kept: dict[int, float] = {}
    for _ in range(20):
        process = workshop.start("run", "study.yaml")
        # From before the first block to well into the work.
        time.sleep(chance.uniform(0.3, 6.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "journal.jsonl").exists():
            state, now = results(folder)
            for number, loss in kept.items():
                assert now[number][1] == loss, "a result that was there is gone or changed"
            kept = {t.id: t.loss for t in state.trials.values() if t.loss is not None}
        if len(kept) == 30:
            break
    killed = results(folder)[0].runs
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state, found = results(folder)
    assert found == expected
    assert killed >= 10, "the study lasted for many kills"
    ends = [e for e in read_events(folder / "journal.jsonl") if e["e"] == "end"]
    finals = [e["trial"] for e in ends if e["end"] == "completed"]
    assert sorted(finals) == sorted(set(finals)) == list(range(30))
    assert all(t.failures == 0 for t in state.trials.values())
    wait_until(lambda: not workshop.processes("hpc_hpo.worker"), 15)


def test_that_workers_of_a_killed_run_end_within_the_heartbeat(workshop):
    workshop.write(trials=2, steps=2000, walltime="300s")
    process = workshop.start("run", "study.yaml")
    spool = workshop.folder / "sleepy" / "spool"
    wait_until(lambda: len(list(spool.glob("r1-b0-*"))) == 2, 30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Threshold of 6 s, its period, and the time to end.
    wait_until(lambda: not workshop.processes(""), 20)
