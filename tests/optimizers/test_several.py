"""Several objectives: weights that come and go, the queue before them, and what is found."""

import json
import math

import numpy as np
import pytest

from hpc_hpo.errors import InputErrors
from hpc_hpo.optimizers.helper import Fitter
from hpc_hpo.optimizers.leaders import Leaders
from hpc_hpo.optimizers.ready import with_queue
from hpc_hpo.optimizers.registry import create
from hpc_hpo.optimizers.scalarise import Scale, vector
from hpc_hpo.pareto import hypervolume, nondominated
from hpc_hpo.space import Space
from tests.extras import needs
from tests.optimizers.test_ready import StoppedHelper

SPACE = Space.parse({f"x{i}": {"float": [0, 1]} for i in range(3)})


def values_of(point):
    """Two that cannot be best at once: ZDT1 (Zitzler, Deb and Thiele, 2000)."""
    x = [point[f"x{i}"] for i in range(3)]
    g = 1 + 9 * sum(x[1:]) / 2
    return [x[0], g * (1 - math.sqrt(x[0] / g))]


def search(optimizer, count, batch=1, flying=0, first=0):
    """Ask for `count` trials in batches, and tell all but the newest `flying`."""
    open_, found = [], {}
    for start in range(first, first + count, batch):
        ids = range(start, start + batch)
        points = optimizer.ask(ids)
        found.update(zip(ids, points, strict=True))
        open_ += ids
        while len(open_) > flying:
            number = open_.pop(0)
            optimizer.tell(number, values_of(found[number]))
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1, 2.5], [1.0, -2.5]),
        ([1, math.nan], None),
        ([math.inf, 1], None),
        ([1, None], None),
        (None, None),
        (math.nan, None),
    ],
)
def test_that_objectives_are_turned_or_count_as_a_failure(losses, expected):
    assert vector(losses, (1, -1)) == expected


@pytest.mark.parametrize("losses", [1.0, [1.0], [1.0, 2.0, 3.0]])
def test_that_another_number_of_objectives_is_refused(losses):
    with pytest.raises(ValueError, match="not 2 objectives"):
        vector(losses, (1, -1))


def test_that_a_dominated_point_has_a_greater_loss_under_any_weight():
    rng = np.random.default_rng(1)
    values = rng.random((30, 3)) * [1.0, 1e-6, 1e9]
    for seed in range(20):
        losses = Scale(values, np.random.default_rng(seed)).losses(values)
        for i, one in enumerate(values):
            for j, other in enumerate(values):
                if (one <= other).all() and i != j:
                    assert losses[i] < losses[j]


def test_that_weights_find_different_points_of_a_front_that_is_not_convex():
    angles = np.linspace(0, math.pi / 2, 41)
    # A weighed sum would always be least at one of the two ends.
    front = np.stack([1 - np.sin(angles), 1 - np.cos(angles)], 1) ** 0.5
    best = {int(np.argmin(Scale(front, np.random.default_rng(s)).losses(front))) for s in range(60)}
    assert len(best) > 12


def test_that_one_value_that_went_astray_leaves_the_others_apart():
    values = np.array([[0.1, 5.0], [0.2, 4.0], [0.3, 3.0], [0.4, 2.0], [1e12, 1.0]])
    losses = [Scale(values, np.random.default_rng(s)).losses(values) for s in range(40)]
    assert {int(np.argmin(row)) for row in losses} >= {0, 3}


@pytest.mark.parametrize("name", ["bayes", "tpe", "evolution", "nsga2"])
def test_that_a_replay_in_the_middle_of_a_weight_goes_on_under_it(name):
    if name == "nsga2":
        needs("optuna")
    spec = {"name": name}
    if name != "tpe":
        spec["n_initial" if name == "bayes" else "population"] = 6
    signs = (1, 1)
    whole = create(spec, SPACE, 5, budget=80, signs=signs)
    # Many in flight: a weight lasts for several points, so that batches end within one.
    events = []
    target = getattr(whole, "inner", whole)
    adopt, tell = target.adopt, whole.tell
    target.adopt = lambda i, p: (events.append(("adopt", i, p)), adopt(i, p))[1]
    whole.tell = lambda i, v: (events.append(("tell", i, v)), tell(i, v))[1]
    found = search(whole, 50, flying=27)
    # A weight lasts for three points here.
    for cut in (36, 37, 38, 46):
        resumed = create(spec, SPACE, 5, budget=80, signs=signs)
        at = next(i for i, e in enumerate(events) if e[:2] == ("adopt", cut))
        for kind, number, value in json.loads(json.dumps(events[:at])):
            (resumed.adopt if kind == "adopt" else resumed.tell)(number, value)
        assert resumed.ask([cut]) == [found[cut]]


def test_that_families_of_one_loss_are_refused_by_name():
    for name in ("cmaes", "nevergrad", "optuna", "idds"):
        with pytest.raises(InputErrors, match="it takes one loss alone"):
            create(name, SPACE, 1, signs=(1, 1))
    with pytest.raises(InputErrors, match="it is for several objectives"):
        create("nsga2", SPACE, 1)


def test_that_leaders_of_several_objectives_come_from_the_fronts():
    rng = np.random.default_rng(2)
    leaders, values = Leaders(), rng.random((300, 2))
    for number, row in enumerate(values):
        leaders.add(row.tolist(), number)
    picked = {leaders.pick(rng) for _ in range(400)}
    front = set(np.flatnonzero(nondominated(values)).tolist())
    assert front <= picked
    # All that are picked are among the first few fronts.
    left = values.copy()
    for _ in range(8):
        left[nondominated(left)] = np.nan
    assert all(math.isnan(left[i, 0]) for i in picked)


class DirectHelper(StoppedHelper):
    """A helper that fits as soon as somebody waits for it."""

    def __init__(self):
        super().__init__()
        self.fitter = Fitter(lambda answer: self.receiver(answer[1]))

    def register(self, receiver):
        self.receiver = receiver
        return 0

    def work(self):
        sent, self.sent = self.sent, []
        for message in sent:
            self.fitter.take(message)
        self.fitter.work()


def test_that_points_of_the_ready_queue_come_from_fits_under_several_weights():
    spec = {"name": "bayes", "n_initial": 6}
    helper = DirectHelper()
    queue = with_queue(create(spec, SPACE, 1, budget=60, signs=(1, -1)), spec, helper)
    for number in range(40):
        (point,) = queue.ask([number])
        first, second = values_of(point)
        queue.tell(number, None if number == 7 else [first, -second])
        helper.work()
    assert queue.served["queue"] > 25
    (_, vectors) = next(
        (s.search.signs, s.search._vectors) for s in helper.fitter._tenants.values()
    )
    assert len(vectors) == 40 and math.isnan(vectors[7][0])
    assert vectors[0] == pytest.approx(values_of(queue.points[0]))


def volume(spec, seed, count=40, flying=3):
    optimizer = create(spec, SPACE, seed, budget=count, signs=(1, 1))
    points = search(optimizer, count, flying=flying).values()
    return hypervolume(np.array([values_of(p) for p in points]), np.array([1.1, 6.0]))


@pytest.mark.parametrize("name", ["auto", "tpe", "evolution", "nsga2"])
def test_that_a_front_is_better_than_one_by_chance(name):
    if name == "nsga2":
        needs("optuna")
    seeds, count = range(4), 60
    mine = [volume(name, seed, count) for seed in seeds]
    chance = [volume("random", seed, count) for seed in seeds]
    assert np.mean(mine) > np.mean(chance)
    if name == "auto":
        assert min(mine) > max(chance)
