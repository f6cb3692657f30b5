"""Segments that are added, stopped, begun again or enlarged while their study runs."""

from __future__ import annotations

import itertools
from concurrent.futures import Future

import pytest

from hpc_hpo.model import TrialState
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.study.fidelity import Fidelity
from tests.steering.test_fidelity import trains
from tests.steering.test_loop import completed, ended
from tests.steering.test_portfolio import Gate, points_of, run_all, search, steer


class Asked:
    """Requests that a test hands over."""

    def __init__(self):
        self.events_, self.done = [], []

    def ask(self, op, segment, **facts):
        request = f"r{len(self.done) + len(self.events_)}"
        self.events_.append(
            {"e": "segment", "op": op, "segment": segment, "request": request, **facts}
        )

    def events(self, state, known):
        found, self.events_ = self.events_, []
        self.done += found
        return found

    def search(self, name):
        return search(name, 4)

    def heeded(self):
        pass


def after(count, action):
    """An execute that calls `action` once, when the loop has run `count` slices."""
    turns = itertools.count(1)

    def execute(request):
        if next(turns) == count:
            action()
        return run_all(request)

    return execute


def test_that_a_segment_can_be_added_while_the_study_runs(tmp_path):
    requests = Asked()
    execute = after(3, lambda: requests.ask("add", "late", spec={"name": "late"}))
    reason, state, _ = steer(tmp_path, [search("a")], execute, requests=requests)
    assert reason == "budget"
    assert state.segments["late"].completed == 4
    assert state.segments["late"].spec == {"name": "late"}


def test_that_a_stopped_segment_is_asked_no_more_and_may_be_resumed(tmp_path):
    requests = Asked()
    execute = after(4, lambda: requests.ask("stop", "a"))
    reason, state, portfolio = steer(
        tmp_path, [search("a"), search("b")], execute, requests=requests
    )
    assert reason == "segments"
    assert 0 < state.segments["a"].asked < 6 and state.segments["b"].completed == 6
    assert portfolio.without_result() == {}
    requests.ask("resume", "a")
    reason, state, _ = steer(tmp_path, [search("a"), search("b")], run_all, requests=requests)
    assert reason == "budget" and state.segments["a"].completed == 6
    assert len(set(points_of(state, "a"))) == 6


def test_that_a_stopped_segment_keeps_its_open_trials_for_later(tmp_path):
    requests = Asked()
    paused = []

    def execute(request):
        if request["segment"]["name"] == "a" and not paused:
            paused.append(request["trial"])
            requests.ask("stop", "a")
            return ended(request, "paused", reason="walltime")
        return run_all(request)

    _, state, _ = steer(tmp_path, [search("a"), search("b")], execute, requests=requests)
    assert state.trials[paused[0]].state.value == "paused"
    requests.ask("resume", "a")
    _, state, _ = steer(tmp_path, [search("a"), search("b")], execute, requests=requests)
    assert state.trials[paused[0]].state.value == "completed"


def test_that_a_segment_that_is_done_goes_on_with_a_larger_budget(tmp_path):
    requests = Asked()
    steer(tmp_path, [search("a"), search("b")], run_all)
    requests.ask("budget", "a", trials=9)
    reason, state, _ = steer(tmp_path, [search("a"), search("b")], run_all, requests=requests)
    assert reason == "budget"
    assert (state.segments["a"].completed, state.segments["b"].completed) == (9, 6)
    assert len(set(points_of(state, "a"))) == 9
    reason, again, _ = steer(tmp_path, [search("a"), search("b")], run_all)
    assert len(again.trials) == len(state.trials), "the journal keeps the new budget"


def test_that_a_segment_that_is_begun_again_leaves_its_old_trials_behind(tmp_path):
    requests = Asked()
    _, state, _ = steer(tmp_path, [search("a"), search("b")], run_all)
    before = set(points_of(state, "a"))
    requests.ask("rerun", "a")

    def worse(request):
        return completed(request, 10 + request["point"]["x"])

    reason, state, _ = steer(tmp_path, [search("a"), search("b")], worse, requests=requests)
    assert reason == "budget"
    old = [t for t in state.trials.values() if t.superseded]
    assert {t.point["x"] for t in old} == before and {t.segment for t in old} == {"a"}
    assert state.segments["a"].completed == 6 and state.best_of("a").loss >= 10
    assert not before & {t.point["x"] for t in state.trials.values() if t.loss >= 10}


def test_that_a_trial_that_runs_while_its_segment_begins_again_counts_for_nothing(tmp_path):
    requests = Asked()
    execute = after(2, lambda: requests.ask("rerun", "a"))
    reason, state, _ = steer(tmp_path, [search("a")], execute, requests=requests, workers=2)
    assert reason == "budget"
    assert state.segments["a"].completed == 6 == state.segments["a"].asked
    assert sum(t.superseded for t in state.trials.values()) == len(state.trials) - 6


class Holding(InlinePilot):
    """Runs the first slice that it is given only after `polls` polls."""

    polls = 6

    def __init__(self, execute):
        super().__init__(execute, 2)
        self.held = None

    def submit(self, request, priority):
        if self.held is None:
            self.held = request, Future()
            return self.held[1]
        return super().submit(request, priority)

    def poll(self):
        self.polls -= 1
        if self.polls == 0:
            request, future = self.held
            future.set_result(self._execute(request))
        return super().poll()


def test_that_a_slice_that_outlives_its_segment_s_rerun_is_not_told_to_the_new_search(
    tmp_path,
):
    requests = Asked()

    def execute(request):
        if request["trial"] == 1:
            requests.ask("rerun", "a")
        return completed(request, -1.0 if request["trial"] == 0 else 1.0)

    reason, state, _ = steer(
        tmp_path, [search("a", 12)], execute, requests=requests, pilot=Holding(execute)
    )
    assert reason == "budget"
    assert state.trials[0].superseded and state.trials[0].loss == -1.0
    assert state.segments["a"].completed == 12
    assert state.best_of("a").loss == 1.0


@pytest.mark.parametrize("policy", ["asha", "hyperband", "median"])
def test_that_rungs_are_those_of_the_segment_s_new_trials_once_it_is_begun_again(tmp_path, policy):
    requests, turns = Asked(), itertools.count()
    train = trains([], longest=9)

    def execute(request):
        if request["trial"] == 1:
            requests.ask("rerun", "a")
        if request["trial"] == 0:
            request = {**request, "point": {"x": -1.0}}  # no other can be as good
        return train(request)

    reason, state, _ = steer(
        tmp_path, [search("a", 12)], execute, requests=requests, pilot=Holding(execute),
        fidelity=Fidelity(policy=policy, min=1, max=9, eta=3),
        stop=lambda: "now" if next(turns) > 500 else "",
    )  # fmt: skip
    assert reason == "budget"
    assert state.trials[0].superseded and state.trials[0].rungs
    again = [t for t in state.trials.values() if not t.superseded]
    assert len(again) == 12 and all(t.final for t in again)
    done = [t.point["x"] for t in again if t.state is TrialState.COMPLETED]
    if policy != "hyperband":  # where it may be in a bracket from which none goes on
        assert min(t.point["x"] for t in again) in done
    assert done, "no trial of before counts in its rungs"


def test_that_inputs_that_come_together_with_a_request_are_seen(tmp_path):
    gate, requests, turns = Gate(b=""), Asked(), itertools.count()

    def both():
        gate.set("b", None)
        requests.ask("budget", "a", trials=7)

    reason, state, _ = steer(
        tmp_path, [search("a"), search("b")], after(3, both), gate=gate, requests=requests,
        stop=lambda: "now" if next(turns) > 60 else "",
    )  # fmt: skip
    assert reason == "budget"
    assert (state.segments["a"].completed, state.segments["b"].completed) == (7, 6)
