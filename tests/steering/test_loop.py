"""The steering loop with an inline pilot and a clock of its own: nothing sleeps, nothing forks."""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import SealedWriter
from hpc_hpo.journal import Journal, StudyState, read_events, replay
from hpc_hpo.optimizers.registry import create
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.space import Space
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import Search
from hpc_hpo.steering.terms import Terms

SPACE = Space.parse({"x": {"float": [0.0, 1.0]}})


class FakeClock:
    """Time moves by a second at every look."""

    def __init__(self):
        self._ticks = itertools.count(1000)

    def now(self):
        return float(next(self._ticks))

    def cpu(self):
        return 0.0

    def sleep(self, seconds):
        raise AssertionError("the loop must not sleep on the clock")

    def next_of(self, items, seconds):
        return items.get(timeout=seconds) if seconds > 0 else items.get_nowait()


def completed(request, loss):
    return {
        "run": request["run"],
        "trial": request["trial"],
        "slice": request["slice"],
        "end": "completed",
        "loss": loss,
        "started": 1.0,
        "ended": 2.0,
    }


def ended(request, end, **facts):
    return {
        "run": request["run"],
        "trial": request["trial"],
        "slice": request["slice"],
        "end": end,
        "started": 1.0,
        "ended": 2.0,
        **facts,
    }


def alone(state, optimizer="random", *, trials, seed=1, space=SPACE, sign=1, target=None):
    """The searches of a study without segments."""

    def make(begun_again):
        return create(optimizer, space, seed, budget=trials)

    return Portfolio([Search(None, trials, make, target)], state, sign=sign)


def steer(
    tmp_path, execute, *, trials=10, terms=None, optimizer="random", workers=1, writer=None,
    pilot=None, target=None, **options,
):  # fmt: skip
    path = tmp_path / "journal.jsonl"
    state = replay(read_events(path))
    journal = Journal(path, writer=writer)
    run = {"e": "run", "run": state.runs + 1, "at": 999.0}
    journal.append(run)
    state.apply(run)
    terms = terms or Terms(sign=1, task="task.json")
    steering = Steering(
        terms,
        str(tmp_path),
        state,
        journal,
        alone(state, optimizer, trials=trials, sign=terms.sign, target=target),
        pilot or InlinePilot(execute, workers),
        FakeClock(),
        **options,
    )
    try:
        reason = steering.run()
    finally:
        journal.close()
    assert replay(read_events(path)) == state, "the journal replays to what the loop saw"
    return reason, state


def test_that_a_study_runs_to_its_budget(tmp_path):
    reason, state = steer(tmp_path, lambda r: completed(r, r["point"]["x"]))
    assert reason == "budget"
    assert state.trial_states["completed"] == 10
    best = state.best()
    assert best.loss == min(t.point["x"] for t in state.trials.values())


@pytest.mark.parametrize(("parallel", "most"), [(None, 5), (3, 3), (1, 1), (9, 5)])
def test_that_no_more_trials_run_at_one_time_than_the_study_allows(tmp_path, parallel, most):
    running, highest = set(), 0

    def execute(request):
        return completed(request, request["point"]["x"])

    class Watched(InlinePilot):
        def submit(self, request, priority):
            nonlocal highest
            running.add(request["trial"])
            highest = max(highest, len(running))
            future = super().submit(request, priority)
            future.add_done_callback(lambda f: running.discard(f.result()["trial"]))
            return future

        def want(self, slices):
            assert parallel is None or slices <= parallel

    terms = Terms(sign=1, task="t", parallel=parallel)
    _, state = steer(tmp_path, execute, terms=terms, pilot=Watched(execute, 5))
    assert state.trial_states["completed"] == 10
    assert highest == most


def test_that_points_are_plain_and_distinct(tmp_path):
    _, state = steer(tmp_path, lambda r: completed(r, r["point"]["x"]), optimizer="sobol")
    points = [t.point["x"] for t in state.trials.values()]
    assert len(set(points)) == 10
    assert all(type(x) is float for x in points)


def test_that_a_maximising_study_finds_the_largest_loss(tmp_path):
    terms = Terms(sign=-1, task="t")
    _, state = steer(tmp_path, lambda r: completed(r, r["point"]["x"]), trials=8, terms=terms)
    assert state.best(-1).loss == max(t.loss for t in state.trials.values())


def test_that_a_failing_payload_gets_its_attempts_and_the_study_goes_on(tmp_path):
    def execute(request):
        if request["trial"] == 3:
            return ended(request, "failed", error={"kind": "exception", "message": "boom"})
        return completed(request, 1.0)

    reason, state = steer(tmp_path, execute)
    assert reason == "budget"
    assert state.trials[3].state.value == "failed"
    assert state.trials[3].failures == 3
    assert state.trials[3].error["message"] == "boom"
    assert state.trial_states["completed"] == 9


@pytest.mark.parametrize("kind", ["loss", "timeout", "import"])
def test_that_an_error_the_point_would_meet_again_is_not_tried_again(tmp_path, kind):
    def execute(request):
        return ended(request, "failed", error={"kind": kind, "message": "no use"})

    _, state = steer(tmp_path, execute, trials=2)
    assert [len(t.slices) for t in state.trials.values()] == [1, 1]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_that_a_loss_that_is_no_number_fails_the_trial(tmp_path, loss):
    _, state = steer(tmp_path, lambda r: completed(r, loss if r["trial"] == 0 else 0.5))
    assert state.trials[0].state.value == "failed"
    assert "finite" in state.trials[0].error["message"]
    assert state.best().loss == 0.5


def test_that_losses_of_the_node_spend_no_attempt(tmp_path):
    losses = Counter()

    def execute(request):
        losses[request["trial"]] += 1
        if losses[request["trial"]] <= 4:
            return ended(request, "lost", reason="walltime")
        return completed(request, 0.5)

    _, state = steer(tmp_path, execute, trials=3)
    assert all(t.failures == 0 and t.state.value == "completed" for t in state.trials.values())
    assert state.slice_ends == {"lost": 12, "completed": 3}


def test_that_a_trial_that_keeps_killing_its_node_is_given_up_with_the_reason(tmp_path):
    def execute(request):
        if request["trial"] == 0:
            return ended(request, "lost", reason="node died")
        return completed(request, 0.5)

    _, state = steer(tmp_path, execute, trials=2, terms=Terms(sign=1, task="t", max_losses=4))
    assert state.trials[0].state.value == "failed"
    assert len(state.trials[0].slices) == 4
    assert "4 slices in a row" in state.trials[0].error["message"]
    assert "node died" in state.trials[0].error["message"]


def test_that_a_paused_trial_goes_on_and_its_new_checkpoints_reset_the_losses(tmp_path):
    def execute(request):
        number = request["slice"]
        if number < 20:
            info = {"name": f"ckpt-{number}", "slice": number, "at": 1.5, "step": number}
            return ended(
                request,
                "paused",
                reason="walltime",
                checkpoint=info,
                reports=[[number, {"loss": 1.0 / number}]],
            )
        return completed(request, 0.1)

    _, state = steer(tmp_path, execute, trials=1, terms=Terms(sign=1, task="t", max_losses=2))
    trial = state.trials[0]
    assert trial.state.value == "completed"
    assert [s.number for s in trial.slices] == list(range(1, 21))
    assert sorted(trial.reports) == list(range(1, 20))
    assert state.wasted_s == pytest.approx(19 * 0.5), "half a second after each checkpoint"


def test_that_a_target_ends_the_study(tmp_path):
    reason, state = steer(
        tmp_path, lambda r: completed(r, r["point"]["x"]), trials=1000, target=0.2
    )
    assert reason == "target"
    assert len(state.trials) < 1000
    assert state.best().loss <= 0.2


def test_that_an_exhausted_space_ends_the_study(tmp_path):
    space = Space.parse({"k": {"int": [1, 3]}})
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    state = StudyState()
    steering = Steering(
        Terms(sign=1, task="t"),
        str(tmp_path),
        state,
        journal,
        alone(state, "grid", trials=50, space=space),
        InlinePilot(lambda r: completed(r, r["point"]["k"]), 4),
        FakeClock(),
    )
    assert steering.run() == "exhausted"
    journal.close()
    assert sorted(t.point["k"] for t in state.trials.values()) == [1, 2, 3]


def test_that_a_stop_request_leaves_open_trials_for_the_next_run(tmp_path):
    turns = itertools.count()
    reason, state = steer(
        tmp_path,
        lambda r: completed(r, r["point"]["x"]),
        stop=lambda: "drain" if next(turns) >= 3 else "",
    )
    assert reason == "stop"
    assert 0 < state.trial_states["completed"] < 10
    before = {t.id: t.loss for t in state.trials.values() if t.loss is not None}
    reason, state = steer(tmp_path, lambda r: completed(r, r["point"]["x"]))
    assert reason == "budget"
    assert {i: state.trials[i].loss for i in before} == before


@pytest.mark.parametrize("optimizer", ["random", "sobol", {"name": "skopt", "surrogate": "ET"}])
def test_that_stopping_and_going_on_asks_the_same_points_as_never_stopping(tmp_path, optimizer):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()

    def execute(request):
        return completed(request, (request["point"]["x"] - 0.3) ** 2)

    _, expected = steer(whole, execute, trials=16, optimizer=optimizer)
    reason = ""
    while reason != "budget":
        turns = itertools.count()
        reason, state = steer(
            parts,
            execute,
            trials=16,
            optimizer=optimizer,
            stop=lambda turns=turns: "now" if next(turns) >= 2 else "",
        )
    assert [t.point for t in state.trials.values()] == [t.point for t in expected.trials.values()]


@pytest.mark.parametrize("when", ["while the newer slice runs", "after the trial has ended"])
def test_that_an_outcome_of_an_older_slice_is_refused_and_logged(tmp_path, when):
    def execute(request):
        if request["slice"] == 1:
            return ended(request, "lost", reason="node")
        # The node that was given up reports late, under its own slice number.
        late.update(completed(dict(request, slice=1), -100.0))
        if when.startswith("while"):
            steering.take(late)
        return completed(request, 0.5)

    late = {}
    path = tmp_path / "journal.jsonl"
    journal, state = Journal(path), StudyState()
    steering = Steering(
        Terms(sign=1, task="t"),
        str(tmp_path),
        state,
        journal,
        alone(state, trials=1),
        InlinePilot(execute),
        FakeClock(),
    )
    steering.run()
    if when.startswith("after"):
        steering.take(late)
    journal.close()
    assert state.best().loss == 0.5
    assert [e["outcome"]["slice"] for e in state.refused] == [1]
    assert [s.number for s in state.trials[0].slices] == [1, 2]
    assert state.orphans == 0, "it reached the journal as refused, not as an end"
    assert replay(read_events(path)) == state


def full_disk_after(writes):
    """A writer whose disk is full from the given write on, in the middle of a record."""
    count = itertools.count()

    def write(fd, data):
        if next(count) >= writes:
            os.write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    return write


def test_that_a_full_disk_stops_the_study_and_loses_nothing(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    writer = SealedWriter(path, full_disk_after(5))
    with pytest.raises(StorageError, match="No space left"):
        steer(tmp_path, lambda r: completed(r, r["point"]["x"]), writer=writer)
    kept = replay(read_events(path))
    done = {t.id: t.loss for t in kept.trials.values() if t.loss is not None}
    assert done, "what was written before is whole"
    reason, state = steer(
        tmp_path,
        lambda r: completed(r, r["point"]["x"]),
        inherited=[
            {"trial": t.id, "slice": t.open_slice.number, "end": "lost", "reason": "steering"}
            for t in kept.trials.values()
            if t.open_slice
        ],
    )
    assert reason == "budget"
    assert {i: state.trials[i].loss for i in done} == done
    assert state.trial_states["completed"] == 10
