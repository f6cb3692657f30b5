"""What every optimiser must do, over every family and every kind of space."""

import functools
import importlib.util
import json
import math
import os

import pytest

from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space

FAMILIES = {
    "random": "random",
    "grid": "grid",
    "sobol": "sobol",
    "tpe": {"name": "tpe", "n_initial": 4},
    "gp": {"name": "skopt", "surrogate": "GP", "n_initial": 4},
    "et": {"name": "skopt", "surrogate": "ET", "n_initial": 4},
    "rf": {"name": "skopt", "surrogate": "RF", "n_initial": 4, "acq": "LCB"},
    "gbrt": {"name": "skopt", "surrogate": "GBRT", "n_initial": 4},
    "bayes": {"name": "bayes", "n_initial": 4},
    "bayes_forest": {"name": "bayes", "model": "forest", "n_initial": 4, "acq": "LCB"},
    "evolution": {"name": "evolution", "population": 4},
    "optuna": {"name": "optuna", "n_initial": 4},
    "optuna_gp": {"name": "optuna", "sampler": "GP", "n_initial": 4},
    "cmaes": {"name": "cmaes", "population": 4},
    "nevergrad": "nevergrad",
    "nevergrad_cma": {"name": "nevergrad", "algorithm": "CMA"},
    # Of several objectives.
    "several_bayes": {"name": "bayes", "n_initial": 4, "signs": [1, -1]},
    "several_forest": {"name": "skopt", "surrogate": "ET", "n_initial": 4, "signs": [1, -1, 1]},
    "several_tpe": {"name": "tpe", "n_initial": 4, "signs": [-1, 1]},
    "several_evolution": {"name": "evolution", "population": 4, "signs": [1, 1]},
    "several_sobol": {"name": "sobol", "signs": [1, 1]},
    "nsga2": {"name": "nsga2", "population": 4, "signs": [1, -1]},
}
#: Packages that a family needs and that are not installed with this one.
NEEDS = {
    "optuna": ("optuna",),
    "optuna_gp": ("optuna", "torch"),
    "nsga2": ("optuna",),
    "cmaes": ("cmaes",),
    "nevergrad": ("nevergrad",),
    "nevergrad_cma": ("nevergrad",),
}
#: Families that pay no heed to losses.
BLIND = {"random", "grid", "sobol", "several_sobol"}
SLOW = {"optuna_gp"}


def unified(method, **dimension):
    return {"method": method, "dimension": dimension}


METHODS = {
    "a": unified("uniform", low=-1, high=1),
    "b": unified("uniformint", low=1, high=50),
    "c": unified("quniform", low=0, high=1, q=0.1),
    "d": unified("loguniform", low=1e-5, high=1e-1),
    "e": unified("qloguniform", low=1, high=512, q=1),
    "f": unified("normal", mu=0, sigma=1),
    "g": unified("qnormal", mu=10, sigma=5, q=1),
    "h": unified("lognormal", mu=0, sigma=1),
    "i": unified("qlognormal", mu=2, sigma=1, q=0.5),
    "j": unified("categorical", categories=["x", "y"]),
    "k": unified("fixed", value="constant"),
}
CONDITIONAL = {
    "layers": {"int": [1, 3]},
    "width2": {"int": [8, 128], "condition": "layers >= 2"},
    "rate": {"float": [0.0, 0.5], "condition": "width2 > 60"},
    "act": {"choice": ["relu", "tanh"]},
}
SPACES = {
    "methods": Space.parse(METHODS),
    "conditional": Space.parse(CONDITIONAL),
    "constrained": Space.parse(
        {"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "n": {"int": [1, 8]}},
        constraints=["x + y <= 1", "n * x >= 0.5"],
    ),
    "discrete": Space.parse(
        {
            "n": {"int": [1, 4]},
            "m": {"int": [1, 3], "condition": "n > 2"},
            "c": {"choice": [None, [1, 2]]},
        },
        constraints="n != 4 or m < 3",
    ),
}


def need(name):
    """Skip the test, or fail it where the package must be there."""
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is not None:
            continue
        if os.environ.get(f"HPC_HPO_NEEDS_{package.upper()}"):
            pytest.fail(f"{package} is not installed")
        pytest.skip(f"{package} is not installed")


def _marked(families):
    """Those that take seconds for a point are left to the slow tests."""
    return [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in families]


@pytest.fixture(params=_marked(FAMILIES), name="family")
def _family(request):
    need(request.param)
    return FAMILIES[request.param]


@pytest.fixture(params=_marked(f for f in FAMILIES if f not in BLIND), name="learning")
def _learning(request):
    need(request.param)
    return FAMILIES[request.param]


@pytest.fixture(params=SPACES, name="space")
def _space(request):
    return SPACES[request.param]


@functools.cache
def _undisturbed(family, space):
    return run(make(json.loads(family), SPACES[space]), BATCHES)


@pytest.fixture(name="whole")
def _whole(family, space):
    """The journal of one run over BATCHES, computed once for all tests."""
    name = next(n for n, s in SPACES.items() if s is space)
    return list(_undisturbed(json.dumps(family), name))


class Several:
    """An optimiser of several objectives as one that is told a single loss.

    The first objective is the loss; each other one is the loss, turned where it is maximised, plus
    what depends on the trial alone.
    """

    def __init__(self, optimizer, signs, spread):
        self.optimizer, self.signs, self.spread = optimizer, signs, spread

    def __getattr__(self, name):
        return getattr(self.optimizer, name)

    def tell(self, trial, loss):
        if loss is None or not math.isfinite(loss):
            # Any of them may be missing.
            values = None if loss is None else [1.0] * (len(self.signs) - 1) + [loss]
        else:
            values = [s * loss + self.spread * i * (trial * 37 % 11)
                      for i, s in enumerate(self.signs)]  # fmt: skip
        self.optimizer.tell(trial, values)


def make(family, space, seed=3, budget=30, spread=1.0):
    if not isinstance(family, dict) or "signs" not in family:
        return create(family, space, seed, budget=budget)
    spec = {key: value for key, value in family.items() if key != "signs"}
    signs = family["signs"]
    return Several(create(spec, space, seed, budget=budget, signs=signs), signs, spread)


def loss_of(point):
    """Any loss that depends on the point; some points fail."""
    total = sum(len(json.dumps(v)) + (v if isinstance(v, int) else 0) for v in point.values())
    return None if total % 7 == 0 else math.sin(total)


def run(optimizer, batches, journal=None):
    """Ask in batches of these sizes; tell all but the newest three; note every call."""
    journal = [] if journal is None else journal
    open_trials = [t for kind, t, _ in journal if kind == "asked"]
    told = {t for kind, t, _ in journal if kind == "told"}
    flying = [(t, p) for kind, t, p in journal if kind == "asked" and t not in told]
    trial = len(open_trials)
    for size in batches:
        ids = list(range(trial, trial + size))
        trial += size
        points = optimizer.ask(ids)
        flying += zip(ids, points, strict=False)
        journal += [("asked", t, p) for t, p in zip(ids, points, strict=False)]
        while len(flying) > 3:
            t, p = flying.pop(0)
            optimizer.tell(t, loss_of(p))
            journal.append(("told", t, loss_of(p)))
    return journal


def replay(optimizer, journal):
    for kind, trial, value in json.loads(json.dumps(journal)):
        if kind == "asked":
            optimizer.adopt(trial, value)
        else:
            optimizer.tell(trial, value)


def asked(journal):
    return [p for kind, _, p in journal if kind == "asked"]


def is_plain(value):
    if isinstance(value, (list, dict)):
        return all(map(is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or type(value) in (int, float, str, bool)


BATCHES = [1, 4, 1, 3, 1, 2]


def test_that_points_are_plain_valid_and_never_repeated(family, space, whole):
    points = asked(whole)
    assert len(points) == min(sum(BATCHES), space.cardinality() or math.inf) or family == "grid"
    assert all(is_plain(p) and space.validate(p) == p for p in points)
    assert len({space.key(p) for p in points}) == len(points)


def test_that_another_seed_gives_other_points(family, space, whole):
    other = asked(run(make(family, space, seed=4), BATCHES[:2]))
    assert other != asked(whole)[: len(other)]


@pytest.mark.parametrize("cut", [0, 2, 4])
def test_that_a_replayed_optimizer_goes_on_like_the_one_that_computed(family, space, whole, cut):
    asks = sum(BATCHES[:cut])
    tells = max(0, asks - 3)
    # The journal as it was after the batch that ended with trial asks - 1 and its tells.
    head = [e for e in whole if e[1] < (asks if e[0] == "asked" else tells)]
    resumed = make(family, space)
    replay(resumed, head)
    assert run(resumed, BATCHES[cut:], list(head)) == whole


def test_that_an_adopted_point_is_never_asked_for(family):
    space = SPACES["discrete"]
    foreign = next(space.grid(None))
    optimizer = make(family, space)
    optimizer.adopt(1000, foreign)
    optimizer.tell(1000, 0.5)
    points = optimizer.ask(list(range(100)))
    assert len(points) == space.cardinality() - 1
    assert space.key(foreign) not in {space.key(p) for p in points}


def test_that_points_observed_again_are_taken_and_replayed(family, space):
    """As steering tells the rungs of a trial, and then its end."""
    optimizer = make(family, space)
    journal = []
    for first in (0, 4, 8):
        ids = range(first, first + 4)
        journal += [("asked", t, p) for t, p in zip(ids, optimizer.ask(ids), strict=False)]
        points = {t: p for kind, t, p in journal if kind == "asked" and t < 12}
        for trial in list(points)[first::2]:
            optimizer.tell(trial, loss_of(points[trial]))
            journal.append(("told", trial, loss_of(points[trial])))
            further = (1 << 41) + 1000 * trial + 1
            optimizer.adopt(further, points[trial])
            optimizer.tell(further, -1.0)
            journal += [("asked", further, points[trial]), ("told", further, -1.0)]
    again = make(family, space)
    replay(again, journal)
    ahead = optimizer.ask([20, 21])
    assert again.ask([20, 21]) == ahead
    assert not [p for p in ahead if p in asked(journal)]


def test_that_a_finite_space_is_asked_completely_and_then_exhausted(family):
    space = SPACES["discrete"]
    optimizer = make(family, space)
    points = []
    trial = 0
    while not optimizer.exhausted:
        batch = optimizer.ask([trial, trial + 1, trial + 2])
        for i, _ in enumerate(batch):
            optimizer.tell(trial + i, float(trial))
        points += batch
        trial += 3
    # n 1 and 2: one each; n 3: three; n 4: two; times two choices.
    assert len({space.key(p) for p in points}) == len(points) == space.cardinality() == 14
    assert optimizer.ask([trial]) == []
    assert optimizer.exhausted


def test_that_a_space_of_fixed_values_holds_one_point(family):
    optimizer = make(family, Space.parse({"x": unified("fixed", value=[1])}))
    assert optimizer.ask([0, 1]) == [{"x": [1]}]
    assert optimizer.exhausted


def test_that_asking_for_nothing_changes_nothing(family, space):
    optimizer = make(family, space)
    assert optimizer.ask([]) == []
    assert not optimizer.exhausted


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, -math.inf])
def test_that_a_study_whose_trials_all_fail_goes_on(family, loss):
    space = SPACES["constrained"]
    optimizer = make(family, space)
    for trial in range(7):
        assert len(optimizer.ask([trial])) == 1
        optimizer.tell(trial, loss)


def test_that_equal_and_enormous_losses_are_taken(family):
    space = SPACES["conditional"]
    optimizer = make(family, space)
    for trial, loss in enumerate([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.7e308, -1.7e308, 0.0]):
        for point in optimizer.ask([trial]):  # the grid of this budget ends sooner
            assert space.validate(point) == point
            optimizer.tell(trial, loss)


def test_that_bookkeeping_mistakes_are_refused(family):
    optimizer = make(family, SPACES["conditional"])
    optimizer.ask([5])
    with pytest.raises(ValueError, match="trial 5 has a point"):
        optimizer.adopt(5, {"layers": 1, "act": "relu"})
    with pytest.raises(ValueError, match="trial 6 was never"):
        optimizer.tell(6, 1.0)
    optimizer.tell(5, 1.0)
    with pytest.raises(ValueError, match="trial 5 has been told"):
        optimizer.tell(5, 1.0)


def test_that_ids_come_in_any_order_and_so_do_their_losses(family):
    space = SPACES["conditional"]
    original, resumed = make(family, space), make(family, space)
    points = dict(zip([9, 2, 30, 4, 11], original.ask([9, 2, 30, 4, 11]), strict=True))
    for trial, point in points.items():
        resumed.adopt(trial, json.loads(json.dumps(point)))
    for trial in (30, 9, 11, 2):
        original.tell(trial, loss_of(points[trial]))
        resumed.tell(trial, loss_of(points[trial]))
    assert original.ask([5, 40, 3]) == resumed.ask([5, 40, 3])


def test_that_many_points_in_flight_differ_whether_asked_in_batches_or_singly(family):
    space = SPACES["methods"]
    optimizer = make(family, space)
    points = []
    for first, size in [(0, 8), (8, 1), (9, 1), (10, 6), (16, 1), (17, 7)]:
        points += optimizer.ask(range(first, first + size))
        if first == 10:
            for trial in range(6):
                optimizer.tell(trial, loss_of(points[trial]))
    assert len(points) == 24 or family == "grid"
    assert len({space.key(p) for p in points}) == len(points)


def test_that_lower_losses_draw_the_search_so_that_a_sign_maximises(learning):
    space = Space.parse({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}})
    means = {}
    for sign in (1, -1):
        optimizer = make(learning, space, 1, budget=120, spread=0.01)
        points = []
        for start in range(0, 120, 10):
            new = optimizer.ask(range(start, start + 10))
            for trial, point in enumerate(new, start=start):
                optimizer.tell(trial, sign * (point["x"] + point["y"]))
            points += new
        means[sign] = sum(p["x"] + p["y"] for p in points[-40:]) / 40
    assert means[1] < 1 < means[-1]
    assert means[-1] - means[1] > 0.3
