"""Which segment is asked next: real optimisers, an inline pilot, and a clock of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from hpc_hpo.journal import Journal, read_events, replay
from hpc_hpo.optimizers.registry import create
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.space import Space
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import Gains, Search
from hpc_hpo.steering.terms import Terms
from tests.steering.test_loop import FakeClock, completed

SPACE = Space.parse({"x": {"float": [0.0, 1.0]}})
NAMES = [f"s{i}" for i in range(15)]


class Gate:
    """Says what a test has written into it."""

    def __init__(self, **answers):
        self.answers, self.news = answers, False

    def changed(self, *, at_once=False):
        news, self.news = self.news, False
        return news

    def look(self, name):
        return self.answers.get(name)

    def set(self, name, answer):
        self.answers[name], self.news = answer, True


def search(name, trials=6, *, optimizer="random", space=SPACE, target=None, rounds=None):
    def make(begun_again):
        if rounds is not None:
            rounds.append((name, begun_again))
        return create(optimizer, space, hash(name) % 1000 + 7919 * begun_again, budget=trials)

    return Search(name, trials, make, target)


def steer(
    path: Path, searches, execute, *, workers=1, stop=lambda: "", inherited=(), pilot=None,
    fidelity=None, **options,
):  # fmt: skip
    """One run of the loop: (why it ended, the state, the portfolio)."""
    file = path / "journal.jsonl"
    state = replay(read_events(file))
    journal = Journal(file)
    run = {"e": "run", "run": state.runs + 1, "at": 999.0}
    journal.append(run)
    state.apply(run)
    portfolio = Portfolio(searches, state, **options)
    pilot = pilot or InlinePilot(execute, workers)
    steering = Steering(
        Terms(sign=options.get("sign", 1), task="t", fidelity=fidelity), str(path), state, journal,
        portfolio, pilot, FakeClock(), stop=stop, inherited=inherited,
    )  # fmt: skip
    try:
        reason = steering.finished() or steering.run()
    finally:
        journal.close()
    assert replay(read_events(file)) == state, "the journal replays to what the loop saw"
    return reason, state, portfolio


def points_of(state, segment):
    return [t.point["x"] for t in state.trials.values() if t.segment == segment]


def run_all(request):
    return completed(request, request["point"]["x"])


def test_that_15_segments_end_with_15_best_points(tmp_path):
    reason, state, portfolio = steer(tmp_path, map(search, NAMES), run_all, workers=4)
    assert reason == "budget"
    assert len(state.trials) == 15 * 6
    for name in NAMES:
        losses = [t.loss for t in state.trials.values() if t.segment == name]
        assert len(losses) == 6
        assert state.best_of(name).loss == min(losses)
    assert portfolio.without_result() == {}
    assert state.best().loss == min(t.loss for t in state.trials.values())


@pytest.mark.parametrize("workers", [1, 7, 64])
def test_that_fair_segments_are_asked_in_turn(tmp_path, workers):
    _, state, _ = steer(tmp_path, map(search, NAMES), run_all, workers=workers)
    first = Counter(state.trials[n].segment for n in range(15 * 3))
    assert max(first.values()) - min(first.values()) <= max(1, workers // 15 + 1)


def test_that_a_segment_may_have_its_own_budget_space_and_target(tmp_path):
    small = Space.parse({"x": {"int": [1, 3]}})
    searches = [
        search("long", 20),
        search("small", 20, space=small),
        search("easy", 20, target=0.9),
        search("short", 2),
    ]
    reason, state, _ = steer(tmp_path, searches, run_all)
    assert reason == "exhausted"
    count = Counter(t.segment for t in state.trials.values())
    assert count["long"] == 20 and count["short"] == 2
    assert sorted(points_of(state, "small")) == [1, 2, 3]
    assert count["easy"] < 20 and state.best_of("easy").loss <= 0.9


def test_that_all_targets_reached_end_the_study(tmp_path):
    searches = [search(name, 1000, target=0.5) for name in NAMES]
    reason, state, _ = steer(tmp_path, searches, run_all, workers=3)
    assert reason == "target"
    assert all(state.best_of(name).loss <= 0.5 for name in NAMES)


def test_that_a_segment_without_its_inputs_fails_alone_with_its_name(tmp_path):
    gate = Gate(s3="input data: no such file")
    reason, state, portfolio = steer(tmp_path, map(search, NAMES), run_all, gate=gate)
    assert reason == "segments"
    assert portfolio.without_result() == {"s3": "input data: no such file"}
    assert state.segments["s3"].problem == "input data: no such file"
    assert Counter(t.segment for t in state.trials.values()) == {
        name: 6 for name in NAMES if name != "s3"
    }


def test_that_a_segment_whose_input_was_missing_gets_another_chance_in_the_next_run(tmp_path):
    steer(tmp_path, map(search, NAMES), run_all, gate=Gate(s3="no such file"))
    reason, state, portfolio = steer(tmp_path, map(search, NAMES), run_all)
    assert reason == "budget" and portfolio.without_result() == {}
    assert state.segments["s3"].completed == 6


def test_that_trials_of_one_segment_finish_before_the_inputs_of_another_are_there(tmp_path):
    gate = Gate(b="")
    seen = []

    def execute(request):
        seen.append(request["segment"]["name"])
        if seen.count("a") == 6:
            gate.set("b", None)
        return run_all(request)

    reason, state, _ = steer(tmp_path, [search("a"), search("b")], execute, gate=gate)
    assert reason == "budget"
    assert seen == ["a"] * 6 + ["b"] * 6
    assert state.segments["b"].completed == 6


def test_that_a_segment_that_comes_late_does_not_take_all_workers_to_catch_up(tmp_path):
    gate = Gate(b="")
    seen = []

    def execute(request):
        seen.append(request["segment"]["name"])
        if len(seen) == 10:
            gate.set("b", None)
        return run_all(request)

    steer(tmp_path, [search("a", 20), search("b", 20)], execute, gate=gate)
    assert Counter(seen[12:22]) == {"a": 5, "b": 5}


def test_that_a_failure_while_the_study_runs_ends_one_segment_alone(tmp_path):
    gate = Gate(b="")

    def execute(request):
        gate.set("b", "input data of segment b: the server is gone")
        return run_all(request)

    reason, state, _ = steer(tmp_path, [search("a"), search("b")], execute, gate=gate)
    assert reason == "segments"
    assert state.segments["b"].problem == "input data of segment b: the server is gone"
    assert state.segments["a"].completed == 6


@pytest.mark.parametrize("optimizer", ["random", "sobol", {"name": "skopt", "surrogate": "ET"}])
@pytest.mark.parametrize("policy", ["fair", "best-gain"])
def test_that_stopping_and_going_on_asks_the_same_points_and_none_twice(
    tmp_path, optimizer, policy
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()

    def searches():
        return [search(name, 7, optimizer=optimizer) for name in NAMES[:4]]

    _, expected, _ = steer(whole, searches(), run_all, policy=policy)
    reason = ""
    while reason != "budget":
        turns = itertools.count()
        reason, state, _ = steer(
            parts, searches(), run_all, policy=policy,
            stop=lambda turns=turns: "now" if next(turns) >= 3 else "",
        )  # fmt: skip
    for name in NAMES[:4]:
        assert points_of(state, name) == points_of(expected, name)
        assert len(set(points_of(state, name))) == len(points_of(state, name))


def test_that_an_optimiser_is_made_once_and_only_for_a_segment_that_is_asked(tmp_path):
    rounds = []
    gate = Gate(s1="missing")
    searches = [search(name, rounds=rounds) for name in NAMES[:3]]
    steer(tmp_path, searches, run_all, gate=gate)
    assert sorted(rounds) == [("s0", 0), ("s2", 0)]


def test_that_under_best_gain_what_one_does_not_use_goes_to_those_that_improve(tmp_path):
    def execute(request):
        # `flat` is as good as it gets at once; `steep` always finds better.
        steep = request["segment"]["name"] == "steep"
        return completed(request, -float(request["trial"]) if steep else 1.0)

    searches = [search("flat", 50), search("steep", 50)]
    reason, state, _ = steer(tmp_path, searches, execute, policy="best-gain", floor=0.1)
    assert reason == "budget"
    count = Counter(t.segment for t in state.trials.values())
    assert sum(count.values()) == 100, "the budgets are one pool"
    assert count["steep"] >= 75
    assert count["flat"] >= 8, "the floor"


def test_that_gains_are_seen_by_what_losses_usually_differ():
    gains = Gains()
    for loss in (10.0, 8.0, 9.0, 7.9999):
        gains.learn(loss)
    assert gains.since == 2, "a thousandth of the spread is no gain"
    gains.learn(6.0)
    assert gains.since == 0 and gains.share(0.1) == 1.0
    for _ in range(100):
        gains.learn(None)
    assert gains.share(0.1) == 0.1


def test_that_maximising_finds_the_largest_of_each_segment(tmp_path):
    _, state, _ = steer(tmp_path, map(search, NAMES), run_all, sign=-1)
    for name in NAMES:
        assert state.best_of(name, -1).loss == max(points_of(state, name))


class Slow:
    """An optimiser that has a point at every third call."""

    exhausted = False

    def __init__(self):
        self.calls, self.given = itertools.count(1), itertools.count()

    def ask(self, ids):
        return [] if next(self.calls) % 3 else [{"x": float(next(self.given))}]

    def adopt(self, id, point):
        pass

    def tell(self, id, loss):
        pass


def test_that_an_optimiser_that_has_no_point_for_the_moment_is_asked_again(tmp_path):
    turns = itertools.count()
    searches = [Search("a", 1, lambda again: Slow()), search("b"), search("c")]
    reason, state, _ = steer(
        tmp_path, searches, run_all, workers=8,
        stop=lambda: "now" if next(turns) > 60 else "",
    )  # fmt: skip
    assert reason == "budget"
    assert Counter(t.segment for t in state.trials.values()) == {"a": 1, "b": 6, "c": 6}
