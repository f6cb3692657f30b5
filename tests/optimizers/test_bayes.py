"""The default search: which model it takes for how many losses, and the switch in mid-study."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from hpc_hpo.optimizers import bayes, gp, registry
from hpc_hpo.optimizers.surrogates import Forest
from hpc_hpo.space import Space
from tests.conformance.test_optimizers import SPACES, asked, replay, run

LINE = Space.parse({"x": {"float": [0, 1]}})
WIDE = Space.parse({f"x{i}": {"float": [0, 1]} for i in range(201)})
CHOICES = Space.parse({f"c{i}": {"choice": list("abcdef")} for i in range(35)})
#: where the switch is moved to, so that it comes soon
SOON = 12


def kinds(space, *told, **options):
    made = registry.create({"name": "auto", **options}, space, 0)
    return [made.kind(count) for count in told]


def test_that_auto_chooses_its_model_by_the_losses_the_dimensions_and_the_kinds():
    # Up to 800 losses a process looks at all of them, whatever the space.
    assert kinds(LINE, 3, 800, 801, 10**6) == ["gp", "gp", "local", "local"]
    assert kinds(WIDE, 3, 800, 801, 10**6) == ["gp", "gp", "forest", "forest"]
    # Fewer parameters, but six features of each.
    assert kinds(CHOICES, 800, 801) == ["gp", "forest"]
    assert kinds(WIDE, 801, model="gp") == ["local"]
    assert kinds(LINE, 3, model="forest") == ["forest"]


@pytest.fixture(name="models")
def _models(monkeypatch):
    """Each model that is made: its kind and how many losses it looks at."""
    made = []

    class NotedProcess(gp.Process):
        def __init__(self, x, y, hyper):
            made.append(("process", len(y)))
            super().__init__(x, y, hyper)

    class NotedForest(Forest):
        def __init__(self, x, y, kind, seed):
            made.append(("forest", len(y)))
            super().__init__(x, y, kind, seed)

    monkeypatch.setattr(bayes, "_ROWS", SOON)
    monkeypatch.setattr(gp, "Process", NotedProcess)
    monkeypatch.setattr(bayes, "Forest", NotedForest)
    return made


@pytest.mark.parametrize(
    ("space", "features"),
    [("methods", 400), ("conditional", 400), ("constrained", 400), ("discrete", 400),
     ("conditional", 0)],
)  # fmt: skip
def test_that_a_study_resumed_around_the_switch_goes_on_as_if_it_never_ended(
    models, monkeypatch, space, features
):
    monkeypatch.setattr(bayes, "_MOST_FEATURES", features)
    space = SPACES[space]

    def make():
        return registry.create({"name": "auto", "n_initial": 4}, space, 3, budget=60)

    batches = [4] * 3 + [1] * 9 + [4] * 2
    whole = run(make(), batches)
    counts = [count for _, count in models]
    if space.cardinality() is None or space.cardinality() > SOON + 3:
        assert [kind for kind, _ in models][-1] == ("forest" if features == 0 else "process")
        assert counts[0] < SOON <= max(counts)
        if features:
            assert max(counts) == SOON, "a local process looks at a part"
    points = asked(whole)
    assert len({space.key(p) for p in points}) == len(points)
    for cut in (3, 7, 8):
        asks = sum(batches[:cut])
        head = [e for e in whole if e[1] < (asks if e[0] == "asked" else max(0, asks - 3))]
        resumed = make()
        replay(resumed, json.loads(json.dumps(head)))
        assert run(resumed, batches[cut:], list(head)) == whole


@pytest.fixture(name="functions")
def _functions(monkeypatch):
    """What defaults are chosen on; nothing of it is in the benchmark."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("dev_functions").FUNCTIONS


def regrets(problem, switch, seed, budget, monkeypatch):
    """Of the points in the order asked, eight at a time, with the switch after so many losses."""
    monkeypatch.setattr(bayes, "_ROWS", switch)
    space = Space.parse(
        {f"x{i}": {"int": [0, n - 1]} if n else {"float": [0, 1]}
         for i, n in enumerate(problem.sizes)}
    )  # fmt: skip
    optimizer = registry.create("auto", space, seed, budget=budget)
    found = []
    for first in range(0, budget, 8):
        ids = range(first, first + 8)
        for trial, point in zip(ids, optimizer.ask(ids), strict=True):
            found.append(problem.regret(problem.loss([float(v) for v in point.values()])))
            optimizer.tell(trial, found[-1])
    return np.array(found)


def test_that_a_search_is_as_good_with_the_switch_as_without(functions, monkeypatch):
    problem = functions["michalewicz5"]()
    one, other = (
        np.array([regrets(problem, switch, seed, 120, monkeypatch) for seed in range(2)])
        for switch in (64, 800)
    )
    assert np.allclose(one[:, :64], other[:, :64]), "until the switch they are the same search"
    assert not np.allclose(one, other)
    assert one.min(1).mean() <= other.min(1).mean() + 0.05
    assert one.min(1).mean() < one[:, :64].min(1).mean(), "and goes on getting better"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["styblinski20", "michalewicz5", "schwefel3", "mlpgrid5"])
def test_that_a_search_is_as_good_with_the_switch_on_more_functions(functions, monkeypatch, name):
    problem = functions[name]()
    one, other = (
        np.array([regrets(problem, switch, seed, 240, monkeypatch) for seed in range(6)])
        for switch in (120, 800)
    )
    assert one.min(1).mean() <= other.min(1).mean() + 0.05


@pytest.mark.slow
def test_that_a_search_goes_on_getting_better_at_the_switch_that_studies_meet(
    functions, monkeypatch
):
    found = regrets(functions["styblinski20"](), 800, 0, 1000, monkeypatch)
    assert found[808:].min() < found[:808].min()
