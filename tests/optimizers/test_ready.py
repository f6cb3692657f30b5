"""The ready queue: points without waiting, a helper that dies with its parent, restarts."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc_hpo.optimizers import registry
from hpc_hpo.optimizers.helper import Fitter, Helper
from hpc_hpo.optimizers.ready import ReadyOptimizer, with_queue
from hpc_hpo.space import Space

SPACE = Space.parse({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "n": {"int": [1, 9]}})
SPEC = {"name": "bayes", "n_initial": 6}
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
    fresh, known = {"x": 0.5, "y": 0.5, "n": 1}, dict(optimizer.points[3])
    optimizer._receive({"points": [known, fresh], "told": 20, "cpu": 0.0})
    assert optimizer.ask([100]) == [fresh]
    optimizer._receive({"points": [{"x": 0.25, "y": 0.5, "n": 1}], "told": 4, "cpu": 0.0})
    optimizer.tell(100, 1.0)
    assert optimizer.ask([101]) != [{"x": 0.25, "y": 0.5, "n": 1}]
    assert not optimizer._queue


def test_that_the_helper_learns_all_that_was_replayed(helper):
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
    what = {
        "spec": SPEC, "space": SPACE.describe(), "constraints": [], "seed": 1, "budget": None
    }  # fmt: skip
    answers = []
    for cuts in ([0, 40], [0, 7, 25, 40]):
        fitter = Fitter(lambda content: answers.append(content[1]["points"]))
        fitter.take(("new", 0, what))
        for begin, end in itertools.pairwise(cuts):
            fitter.take(("events", 0, events[begin:end]))
        assert fitter.work() > 0
        assert fitter.work() == 0, "nothing new, so nothing to do"
    assert answers[0] == answers[1]
    assert len(answers[0]) >= 4
    assert not {SPACE.key(p) for p in answers[0]} & {SPACE.key(p) for p in points}


def test_that_the_share_of_a_core_is_bounded_and_falls():
    fitter = Fitter(lambda content: None)
    assert fitter.rest(1.0) == pytest.approx(1.0)
    fitter.take(("new", 0, {"spec": SPEC, "space": SPACE.describe(), "constraints": [],
                            "seed": 1, "budget": None}))  # fmt: skip
    fitter._tenants[0].told = 16_000
    assert fitter.rest(1.0) == pytest.approx(7.0)
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
