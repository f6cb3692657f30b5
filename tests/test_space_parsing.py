"""How a space is read: dialects, YAML's traps, and errors that say where and what."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.space import Space


def problems_of(spec, **more):
    with pytest.raises(InputErrors) as caught:
        Space.parse(spec, **more)
    return [str(e) for e in caught.value.errors]


def unified(method, **dimension):
    return {"x": {"method": method, "dimension": dimension}}


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"int": [1, 4]}, {"method": "uniformint", "dimension": {"low": 1, "high": 4}}),
        ({"float": [0, 1]}, {"method": "uniform", "dimension": {"low": 0.0, "high": 1.0}}),
        (
            {"float": ["1e-5", 0.1], "log": True},
            {"method": "loguniform", "dimension": {"low": 1e-5, "high": 0.1}},
        ),
        (
            {"int": [1, 1024], "log": True},
            {"method": "qloguniform", "dimension": {"low": 1, "high": 1024, "q": 1}},
        ),
        ({"choice": ["a", 2]}, {"method": "categorical", "dimension": {"categories": ["a", 2]}}),
        (
            {"type": "Choice", "params": {"choices": [1, 4]}},
            {"method": "categorical", "dimension": {"categories": [1, 4]}},
        ),
        (
            {"type": "TransitionChoice", "params": {"choices": 3}},
            {"method": "categorical", "dimension": {"categories": [0, 1, 2]}},
        ),
        (
            {"type": "Scalar", "bounds": [0, 5]},
            {"method": "uniform", "dimension": {"low": 0.0, "high": 5.0}},
        ),
        (
            {"type": "Scalar", "params": {"init": 3}},
            {"method": "normal", "dimension": {"mu": 3.0, "sigma": 1.0}},
        ),
        (
            {"type": "Log", "params": {"lower": 0.01, "upper": 1}},
            {"method": "loguniform", "dimension": {"low": 0.01, "high": 1.0}},
        ),
        (
            {"type": "Log", "params": {"init": 100.0, "exponent": 10.0}},
            {"method": "lognormal", "dimension": {"mu": 2.0, "sigma": 1.0, "base": 10.0}},
        ),
    ],
)
def test_that_every_dialect_is_read_into_the_unified_one(short, long):
    assert Space.parse({"x": short}).describe() == {"x": long}


def test_that_an_array_of_the_idds_dialect_is_a_nested_list():
    spec = {"w": {"type": "Array", "params": {"shape": [2, 3]}, "bounds": [-1, 1]}}
    space = Space.parse(spec)
    assert space.dims == 6
    point = space.from_unit([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    assert point == {"w": [[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]}
    assert space.validate(point) == point
    assert space.describe() == spec
    assert len(list(space.grid(2))) == 2**6
    with pytest.raises(InputError, match=r"shape \[2, 3\]"):
        space.validate({"w": [[0, 0], [0, 0]]})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "the search space is empty"),
        ([1], "not a mapping"),
        ({1: {"int": [1, 2]}}, "the name is not text"),
        ({"x": 3}, "not a mapping; found 3"),
        ({"x": {"choise": [1, 2]}}, "did you mean 'choice'?"),
        ({"x": {"int": [1, 2], "choice": [1, 2]}}, "more than one kind"),
        ({"x": {"int": [1, 2], "lgo": True}}, "did you mean 'log'?"),
        ({"x": {"int": [1, 2.5]}}, "not one of two whole numbers; found 2.5"),
        ({"x": {"int": [4, 1]}}, "low 4 is above high 1"),
        ({"x": {"int": [4, 4]}}, "{method: fixed, dimension: {value: 4}}"),
        ({"x": {"float": [0, 1], "log": True}}, "a log scale needs low above 0"),
        ({"x": {"float": [0, "nan"]}}, "not one of two numbers; found 'nan'"),
        ({"x": {"float": [0, "1_000"]}}, "found '1_000'"),
        ({"x": {"float": ["010", 20]}}, "found '010'"),
        ({"x": {"float": ["1:30", 200]}}, "found '1:30'"),
        ({"x": {"float": [True, 2]}}, "found True"),
        ({"x": {"float": [0, 1], "log": "maybe"}}, "not a truth value; found 'maybe'"),
        ({"x": {"float": [-1.7e308, 1.7e308]}}, "too wide"),
        ({"x": {"choice": []}}, "a choice of no value"),
        ({"x": {"choice": ["relu"]}}, '{method: fixed, dimension: {value: "relu"}}'),
        ({"x": {"choice": "relu"}}, "not a list; found 'relu'"),
        ({"x": {"choice": [1, 2, 1.0]}}, "x.choice[2]: the same as value 0"),
        ({"x": {"choice": ["1e-5", 2]}}, "YAML reads this as text"),
        ({"x": {"choice": [math.nan, 2]}}, "not a JSON value"),
        (unified("logunifrm", low=1, high=2), "did you mean 'loguniform'?"),
        (unified("uniform", lo=1, high=2), "unknown key 'lo'; did you mean 'low'?"),
        (unified("uniform", low=1), "'high' is missing"),
        (unified("uniform", low=1, high=2, q=1), "unknown key 'q'"),
        (unified("quniform", low=0, high=1, q=0), "q must be above 0"),
        (unified("quniform", low=0.1, high=0.9, q=1), "fewer than two multiples of 1"),
        (unified("quniform", low=0, high=1, q=1e-15), "too many steps"),
        (unified("loguniform", low=1, high=2, base=1), "not a base of logarithms"),
        (unified("normal", mu=0, sigma=0), "sigma must be above 0"),
        (unified("lognormal", mu=1000, sigma=1), "too large"),
        (unified("categorical", categories=[1, 2], grid_search="often"), "not a truth value"),
        ({"x": {"method": "uniform", "dimension": 3}}, "x.dimension: not a mapping"),
        ({"x": {"type": "Scaler", "bounds": [0, 1]}}, "did you mean 'Scalar'?"),
        (
            {"x": {"type": "Choice", "params": {"choices": [1, 2], "repetitions": 2}}},
            "unknown key 'repetitions'",
        ),
        ({"x": {"type": "Array", "bounds": [0, 1]}}, "not the shape of an array"),
        ({"x": {"type": "Array", "params": {"shape": [2]}}}, "an Array needs bounds"),
        ({"x": {"type": "Log", "params": {"init": 0}}}, "not a number above 0"),
        ({"x": {"type": "Scalar", "bounds": [0, None]}}, "not one of two numbers"),
    ],
)
def test_that_bad_input_is_refused_with_what_is_valid(spec, expected):
    assert expected in problems_of(spec)[0]


def test_that_all_problems_are_reported_at_once_with_file_line_and_key():
    lines = {"space.a": 4, "space.b.int": 7}
    spec = {"a": {"method": "normal"}, "b": {"int": [3, 1]}}
    found = problems_of(spec, file="study.yaml", line_of=lines.get)
    assert [text.split(" ")[0] for text in found] == ["study.yaml:4:", "study.yaml:7:"]
    assert "space.a.dimension: 'dimension' is missing" in found[0]
    assert "space.b.int: low 3 is above high 1; found [3, 1]; valid: low < high" in found[1]


@given(st.floats(min_value=-1e300, max_value=1e300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_that_a_number_written_as_text_is_the_same_number(number, scientific):
    text = f"{number:.16e}" if scientific else repr(number)
    space = Space.parse({"x": {"float": [text, 1.5e300]}})
    assert space.describe()["x"]["dimension"]["low"] == number


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("layer >= 2", "unknown name 'layer'; did you mean 'layers'?"),
        ("act == relu", "to compare with the text, write 'relu' in quotes"),
        ("layers >", "not an expression"),
        ("__import__('os')", "is not allowed"),
        ("layers.real > 1", "is not allowed"),
        ("[n for n in (1, 2)]", "is not allowed"),
        ("abs(layers, 1) > 1", "abs() takes one value"),
        ("act > 3", "cannot be evaluated"),
        ("act * 3 == 'relu'", "cannot be evaluated: arithmetic with"),
        ("(" * 400 + "layers" + ")" * 400, "x.condition"),
        ("layers > 1" + " " * 1000, "longer than 1000"),
        ("layers == 1" + " or layers == 2" * 60, None),
        (True, "not an expression; found True"),
        ("x > 0.5", "go round in a circle"),
    ],
)
def test_that_a_bad_condition_is_refused_where_it_stands(condition, expected):
    spec = {
        "layers": {"int": [1, 4]},
        "act": {"choice": ["relu", "tanh"]},
        "x": {"float": [0, 1], "condition": condition},
    }
    if expected is None:
        Space.parse(spec)
    else:
        [text] = problems_of(spec)
        assert expected in text
        assert "space.x.condition" in text


def test_that_conditions_in_a_circle_are_shown():
    spec = {
        "a": {"int": [1, 2], "condition": "b > 1"},
        "b": {"int": [1, 2], "condition": "a > 1"},
    }
    [text] = problems_of(spec)
    assert "'a -> b -> a'" in text or "'b -> a -> b'" in text


def test_that_constraints_nothing_satisfies_are_refused_before_anything_runs():
    [text] = problems_of({"x": {"float": [0, 1]}}, constraints=["x >= 0", "x > 2"])
    assert text.startswith("constraint[0]: no point satisfies the constraints")


def test_that_a_bad_constraint_is_refused_where_it_stands():
    [text] = problems_of({"x": {"float": [0, 1]}}, constraints=["x > 0", "y > 0"])
    assert text.startswith("constraint[1]: unknown name 'y'")
