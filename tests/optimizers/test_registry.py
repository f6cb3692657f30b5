"""Optimisers by name, with options checked where they stand."""

import math
import sys
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.optimizers import registry
from hpc_hpo.optimizers.bayes import BayesSearch
from hpc_hpo.optimizers.random import RandomSearch
from hpc_hpo.space import Space
from tests.optimizers.plugin import distribution

LINE = Space.parse({"x": {"float": [0, 1]}})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("sobl", "s.yaml:9: optimizer: unknown optimizer; did you mean 'sobol'?; found 'sobl'"),
        (
            {"name": "zzz"},
            "optimizer.name: unknown optimizer; found 'zzz'; valid: auto, random",
        ),
        ({"surrogate": "GP"}, "optimizer.name: unknown optimizer"),
        (3, "optimizer: unknown optimizer; found 3"),
        ({"name": "random", "n_initial": 3}, "optimizer.n_initial: unknown key 'n_initial'"),
        ({"name": "skopt", "surogate": "GP"}, "did you mean 'surrogate'?"),
        ({"name": "skopt", "surrogate": "GBT"}, "found 'GBT'; valid: GP, ET, RF"),
        ({"name": "skopt", "acq": ["EI"]}, "optimizer.acq: unknown value"),
        ({"name": "skopt", "n_initial": 0}, "too small; found 0; valid: an integer of at least 1"),
        ({"name": "grid", "resolution": "fine"}, "not a whole number; found 'fine'"),
        ({"name": "random", "seed": -1}, "optimizer.seed: too small"),
        (
            {"name": "points", "points": 5},
            "optimizer.points: not a list of points; found 5; valid: [{x: 1}, {x: 2}, ...]",
        ),
        (
            {"name": "points", "points": [{"x": 0}, 7]},
            "optimizer.points: entry 1 is not a point; found 7; valid: as in {x: 1}",
        ),
        (
            {"name": "idds", "host": "ftp", "workload": 1},
            "optimizer.host: no service; found 'ftp'; valid: as in https://",
        ),
    ],
)
def test_that_a_bad_optimizer_is_refused_with_what_is_valid(spec, expected):
    with pytest.raises(InputError) as caught:
        registry.create(spec, LINE, 0, file="s.yaml", line_of={"optimizer": 9}.get)
    assert expected in str(caught.value)
    assert "s.yaml:9: " in str(caught.value)


def test_that_a_grid_too_large_to_list_is_refused():
    space = Space.parse({f"x{i}": {"float": [0, 1]} for i in range(8)})
    with pytest.raises(InputError, match=r"optimizer.resolution: the grid has 390625 points"):
        registry.create({"name": "grid", "resolution": 5}, space, 0)


def test_that_the_seed_of_the_spec_goes_before_the_argument():
    by_spec = registry.create({"name": "random", "seed": 8}, LINE, 1).ask([0])
    assert by_spec == registry.create("random", LINE, 8).ask([0])
    assert by_spec != registry.create("random", LINE, 1).ask([0])


def test_that_auto_is_the_default_search_with_its_options():
    made = registry.create({"name": "auto", "n_initial": 7}, LINE, 0, budget=9)
    assert isinstance(made, BayesSearch)
    assert made.n_initial == 7


def test_that_an_installed_package_adds_an_optimizer(tmp_path, monkeypatch):
    code = "from hpc_hpo.optimizers.random import RandomSearch\nclass Corner(RandomSearch): pass\n"
    monkeypatch.syspath_prepend(str(distribution(tmp_path, "corner_hpo", code, "corner", "Corner")))
    assert registry.names() == ["auto", *registry.BUILT_IN, "corner"]
    made = registry.create("corner", LINE, 3)
    assert type(made).__name__ == "Corner"
    assert made.ask([0]) == registry.create("random", LINE, 3).ask([0])


BARE = "class Corner:\n    OPTIONS = {}\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import hpc_none", "cannot be loaded: ModuleNotFoundError: No module named 'hpc_none'"),
        ("other = 1", "cannot be loaded: AttributeError: module 'broken_hpo' has no attribute"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("def Corner(:", "cannot be loaded: SyntaxError: "),
        (BARE, "is no optimizer: it lacks ask, adopt, tell, exhausted"),
        (
            BARE + "    ask = adopt = tell = exhausted = None\n",
            "cannot be made: TypeError: Corner() takes no arguments",
        ),
    ],
)
def test_that_a_broken_package_is_named_in_one_error(tmp_path, monkeypatch, code, expected):
    monkeypatch.syspath_prepend(str(distribution(tmp_path, "broken_hpo", code, "corner", "Corner")))
    monkeypatch.delitem(sys.modules, "broken_hpo", raising=False)
    with pytest.raises(InputError) as caught:
        registry.create({"name": "corner"}, LINE, 0, file="s.yaml")
    whose = "s.yaml: optimizer: the optimizer 'corner' of broken-hpo 1.2 (broken_hpo:Corner) "
    assert str(caught.value).startswith(whose + expected)
    assert "\n" not in str(caught.value)


def test_that_one_name_of_two_packages_is_refused_with_both(tmp_path, monkeypatch):
    for name in ("one_hpo", "two_hpo"):
        folder = distribution(tmp_path / name, name, "Corner = None", "corner", "Corner")
        monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(InputError, match=r"one-hpo 1\.2.*two-hpo 1\.2|two-hpo.*one-hpo"):
        registry.create("corner", LINE, 0)


def test_that_a_fault_in_an_optimizer_of_ours_is_not_taken_for_a_mistake_of_the_user(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("a fault")

    monkeypatch.setattr(RandomSearch, "__init__", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        registry.create("random", LINE, 0)


def test_that_the_built_in_table_and_the_declared_entry_points_agree():
    import configparser

    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    lines = config["options.entry_points"][registry.GROUP].strip().splitlines()
    assert dict(line.split(" = ") for line in lines) == registry.BUILT_IN


def test_that_a_grid_is_as_fine_as_the_budget_allows():
    space = Space.parse({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "c": {"choice": [1, 2]}})
    grid = registry.create("grid", space, 0, budget=40)
    points = grid.ask(range(100))
    assert len(points) == 4 * 4 * 2
    assert {p["x"] for p in points} == {0.0, 1 / 3, 2 / 3, 1.0}
    assert grid.exhausted
    assert not math.isclose(points[0]["x"], points[1]["x"]) or points[0]["y"] != points[1]["y"]


POINTS = [{"x": 0.25}, {"x": 1}, {"x": 0.25}, {"x": 0.0}]


def test_that_listed_points_are_asked_once_in_their_order():
    optimizer = registry.create({"name": "points", "points": POINTS}, LINE, 0)
    assert optimizer.ask([0]) == [{"x": 0.25}]
    assert not optimizer.exhausted
    assert optimizer.ask([1, 2, 3]) == [{"x": 1.0}, {"x": 0.0}]
    assert optimizer.exhausted
    again = registry.create({"name": "points", "points": POINTS}, LINE, 0)
    again.adopt(0, {"x": 0.25})
    assert again.ask([1]) == [{"x": 1.0}]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], "optimizer.points: not a list of points"),
        ({"x": 1}, "optimizer.points: not a list of points"),
        ([{"x": 0.1}, 3], "optimizer.points: entry 1 is not a point"),
        ([{"x": 0.1}, {"y": 1}], "optimizer.points: point 1: y: unknown parameter"),
        ([{"x": 2}], "optimizer.points: point 0: x: not a valid value"),
    ],
)
def test_that_a_point_that_does_not_belong_is_named(points, expected):
    with pytest.raises(InputError) as caught:
        registry.create({"name": "points", "points": points}, LINE, 0, file="s.yaml")
    assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "extra"), [("optuna", "optuna"), ("nevergrad", "nevergrad")])
def test_that_an_optimizer_whose_package_is_absent_says_what_to_install(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"optimizer: it needs the package {name}.*\[{extra}\]"):
        registry.create(name, LINE, 0)


def test_that_the_optimizer_in_the_docs_works():
    text = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    scope: dict = {}
    exec(code, scope)
    made = scope["CornerSearch"](
        Space.parse({"x": {"float": [0, 1]}, "n": {"int": [1, 3]}}), seed=1
    )
    points = made.ask(range(8))
    assert len(points) == 8
    assert {(p["x"], p["n"]) for p in points} >= {(0.0, 1), (0.0, 3), (1.0, 1), (1.0, 3)}


def test_that_every_built_in_optimizer_is_in_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text()
    assert not [name for name in registry.BUILT_IN if f"| `{name}` |" not in text]
