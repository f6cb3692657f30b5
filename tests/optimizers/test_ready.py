"""The ready queue: points without waiting, a helper that dies with its parent, restarts."""

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc_hpo.optimizers import registry
from hpc_hpo.optimizers.helper import Fitter, Helper, serve
from hpc_hpo.optimizers.ready import ReadyOptimizer, with_queue
from hpc_hpo.space import Space

SPACE = Space.parse({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "n": {"int": [1, 9]}})
SPEC = {"name": "bayes", "n_initial": 6}
#: as the helper is told of an optimiser
WHAT = {
    "spec": SPEC, "space": SPACE.describe(), "constraints": [], "seed": 1, "budget": None,
    "signs": (),
}  # fmt: skip
SOON_S = 60.0


def loss_of(point):
    return (point["x"] - 0.3) ** 2 + (point["y"] - 0.6) ** 2 + 0.01 * point["n"]


def wait_for(condition, what):
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


class StoppedHelper:
    """A helper that never answers; remembers what it was sent."""

    def __init__(self):
        self.alive, self.generation, self.sent = False, 0, []

    def register(self, receiver):
        return 0

    def forget(self, number):
        pass

    def wait(self, changed, good, seconds):
        with changed:
            changed.wait_for(good, seconds)

    def start(self):
        self.alive, self.generation = True, self.generation + 1

    def send(self, content):
        self.sent.append(content)


def ready(helper, now=time.monotonic, budget=None):
    return ReadyOptimizer(
        SPEC, SPACE, seed=1, budget=budget, n_initial=6, helper=helper, now=now
    )  # fmt: skip


@pytest.fixture(name="helper")
def _helper():
    made = Helper()
    yield made
    made.stop()


def feed(optimizer, first, count):
    points = optimizer.ask(range(first, first + count))
    for trial, point in enumerate(points, start=first):
        optimizer.tell(trial, loss_of(point))
    return points


def test_that_points_come_from_the_helper_and_are_better_than_random(helper):
    optimizer = ready(helper)
    points = feed(optimizer, 0, 12)
    wait_for(lambda: optimizer._queue, "proposals")
    for first in range(12, 36, 3):
        told = len(optimizer.losses)
        points += feed(optimizer, first, 3)
        wait_for(lambda told=told: optimizer._queue_told > told, "newer proposals")
    assert optimizer.served["queue"] >= 20
    assert len({SPACE.key(p) for p in points}) == len(points)
    assert all(SPACE.validate(p) == p for p in points)
    chance = registry.create("random", SPACE, 1).ask(range(200))
    mean = sum(map(loss_of, chance)) / len(chance)
    assert sum(map(loss_of, points[-12:])) / 12 < mean / 2


def test_that_nobody_waits_for_a_helper_that_does_not_answer():
    helper = StoppedHelper()
    optimizer = ready(helper)
    points = []
    for first in range(0, 60, 4):
        points += feed(optimizer, first, 4)
    assert optimizer.served["queue"] == 0
    assert len({SPACE.key(p) for p in points}) == 60
    # Neighbours of the best are better than nothing.
    assert sum(map(loss_of, points[-20:])) < sum(map(loss_of, points[:20]))


def test_that_old_proposals_are_dropped_and_known_ones_passed_over():
    optimizer = ready(StoppedHelper())
    feed(optimizer, 0, 20)
    [running] = optimizer.ask([90])
    fresh, other = {"x": 0.5, "y": 0.5, "n": 1}, {"x": 0.5, "y": 0.5, "n": 2}
    done = dict(optimizer.points[3])
    proposals = [done, running, fresh, dict(fresh), other]
    optimizer._receive({"points": proposals, "told": 20, "cpu": 0.0})
    # Of two equal ones in the queue the second is running when its turn comes.
    assert optimizer.ask([100, 101]) == [fresh, other]
    assert not optimizer._queue
    optimizer._receive({"points": [{"x": 0.25, "y": 0.5, "n": 1}], "told": 4, "cpu": 0.0})
    optimizer.tell(100, 1.0)
    assert optimizer.ask([102]) != [{"x": 0.25, "y": 0.5, "n": 1}]
    assert not optimizer._queue


SMALL = Space.parse({"n": {"int": [1, 5]}, "c": {"choice": ["a", "b"]}})


def test_that_a_small_space_is_asked_to_its_end_once_whatever_the_queue_holds():
    optimizer = ReadyOptimizer(SPEC, SMALL, seed=1, budget=50, n_initial=3, helper=StoppedHelper())
    points = []
    for first in range(0, 8, 2):
        points += optimizer.ask([first, first + 1])
        optimizer.tell(first, float(first))
    left = [p for p in SMALL.grid(None) if p not in points]
    assert len(left) == 2
    # The helper knew nothing of the last points when it made these.
    optimizer._receive({"points": [*points, left[0]], "told": 4, "cpu": 0.0})
    assert not optimizer.exhausted
    points += optimizer.ask(range(20, 30))
    assert sorted(SMALL.key(p) for p in points) == sorted(map(SMALL.key, SMALL.grid(None)))
    assert optimizer.exhausted
    assert optimizer.ask([40]) == []


def test_that_proposals_for_a_space_without_new_points_are_none():
    answers = []
    fitter = Fitter(answers.append)
    fitter.take(("new", 0, {**WHAT, "space": SMALL.describe()}))
    points = list(SMALL.grid(None))
    fitter.take(("events", 0, [("adopt", t, p) for t, p in enumerate(points)]))
    fitter.take(("events", 0, [("tell", t, float(t)) for t in range(8)]))
    assert fitter.work() > 0
    assert [content["points"] for _, content in answers] == [[]]
    assert fitter.work() == 0


def test_that_the_helper_learns_all_that_was_replayed(helper, monkeypatch):
    # A busy machine may take longer to start a Python than a study would wait.
    monkeypatch.setattr("hpc_hpo.optimizers.ready._START_S", SOON_S)
    first = ready(StoppedHelper())
    feed(first, 0, 20)
    first.ask([50, 51])
    resumed = ready(helper)
    for trial, point in json.loads(json.dumps(list(first.points.items()))):
        resumed.adopt(trial, point)
    for trial, loss in first.losses.items():
        resumed.tell(trial, loss)
    assert not helper.alive, "a replay needs no helper yet"
    points = resumed.ask([60, 61])
    assert resumed.served["queue"] == 2, "the first points after a restart wait for a fit"
    asked = {SPACE.key(p) for p in first.points.values()}
    assert not asked & {SPACE.key(p) for p in points}


def test_that_the_helper_asks_from_the_same_history_whatever_the_frames():
    points = registry.create("sobol", SPACE, 3).ask(range(20))
    events = [("adopt", t, p) for t, p in enumerate(points)]
    events += [("tell", t, loss_of(p)) for t, p in enumerate(points)]
    answers = []
    for cuts in ([0, 40], [0, 7, 25, 40]):
        fitter = Fitter(lambda content: answers.append(content[1]["points"]))
        fitter.take(("new", 0, WHAT))
        for begin, end in itertools.pairwise(cuts):
            fitter.take(("events", 0, events[begin:end]))
        assert fitter.work() > 0
        assert fitter.work() == 0, "nothing new, so nothing to do"
    assert answers[0] == answers[1]
    assert len(answers[0]) >= 4
    assert not {SPACE.key(p) for p in answers[0]} & {SPACE.key(p) for p in points}


class Enough(Exception):
    """Ends a helper that serves without an end."""


@pytest.mark.parametrize(
    ("told", "share"), [(100, 0.5), (1000, 0.5), (4000, 0.25), (16_000, 0.125)]
)
def test_that_fits_take_a_bounded_share_of_a_core_that_falls_with_the_losses(told, share):
    answers, rests = [], []
    inbox = queue.SimpleQueue()
    inbox.put(("new", 0, WHAT))
    points = registry.create("random", SPACE, 3).ask(range(told + 3))
    events = [("adopt", t, p) for t, p in enumerate(points)]
    inbox.put(("events", 0, events + [("tell", t, loss_of(points[t])) for t in range(told)]))

    def rest(seconds):
        rests.append(seconds)
        if len(rests) == 3:
            raise Enough
        trial = told + len(rests) - 1  # one more loss, so one more fit
        inbox.put(("events", 0, [("tell", trial, loss_of(points[trial]))]))

    with pytest.raises(Enough):
        serve(Fitter(lambda content: answers.append(content[1])), inbox, rest)
    assert [answer["told"] for answer in answers] == [told, told + 1, told + 2]
    for answer, seconds in zip(answers, rests, strict=True):
        assert answer["cpu"] / (answer["cpu"] + seconds) == pytest.approx(share, rel=0.01)


def test_that_the_share_of_a_core_never_falls_to_nothing():
    fitter = Fitter(lambda content: None)
    fitter.take(("new", 0, WHAT))
    fitter._tenants[0].told = 10**9
    assert fitter.rest(1.0) == pytest.approx(19.0)


def test_that_a_killed_helper_is_started_again_and_told_everything(helper):
    optimizer = ready(helper)
    feed(optimizer, 0, 12)
    wait_for(lambda: optimizer._queue, "proposals")
    os.kill(helper.pid, signal.SIGKILL)
    wait_for(lambda: not helper.alive, "its death to be seen")
    feed(optimizer, 12, 4)
    assert helper.generation == 2
    wait_for(lambda: optimizer._queue_told >= 16, "proposals of the new one")


def test_that_the_search_goes_on_without_a_helper_that_always_dies(tmp_path):
    helper = Helper([sys.executable, "-c", "raise SystemExit(1)", str(tmp_path)])
    optimizer = ready(helper)
    with pytest.warns(UserWarning, match="died 3 times"):
        for first in range(0, 400, 4):
            assert len(feed(optimizer, first, 4)) == 4
            if first > 8 and helper.alive:
                wait_for(lambda: not helper.alive, "its death")
    generation = helper.generation
    feed(optimizer, 400, 4)
    assert helper.generation == generation <= 3
    helper.stop()


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.optimizers.test_ready import feed, ready
from hpc_hpo.optimizers.helper import shared
optimizer = ready(shared())
feed(optimizer, 0, 12)
print(shared().pid, flush=True)
if sys.argv[2] == "end":
    raise SystemExit
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["end", "kill"])
def test_that_the_helper_ends_with_its_parent(how):
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, root, how], stdout=subprocess.PIPE, text=True, cwd=root
    )
    pid = int(parent.stdout.readline())
    if how == "kill":
        assert psutil.pid_exists(pid)
        parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not psutil.pid_exists(pid), "the helper's end")


def test_that_an_optimizer_which_is_used_no_more_is_let_go(helper):
    optimizer = ready(helper)
    feed(optimizer, 0, 12)
    number = optimizer._number
    assert number in helper._receivers
    del optimizer
    assert number not in helper._receivers


def test_that_only_what_fits_models_gets_a_queue():
    for spec, kind in [("bayes", True), ("auto", True), ("random", False), ("tpe", False),
                       ({"name": "bayes", "ready": False}, False)]:  # fmt: skip
        made = with_queue(registry.create(spec, SPACE, 0), spec)
        assert isinstance(made, ReadyOptimizer) is kind
