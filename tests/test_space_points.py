"""Points: their types and bounds, the unit cube, conditions, counting, encoding."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.space import Space
from hpc_hpo.space.expressions import Expression

few = settings(max_examples=60, deadline=None)


def unified(method, **dimension):
    return {"method": method, "dimension": dimension}


small = st.floats(min_value=-100, max_value=100, allow_nan=False)
span = st.floats(min_value=0.01, max_value=1000)
positive = st.floats(min_value=1e-6, max_value=1e3)
step = st.sampled_from([1, 2, 0.1, 0.25, 0.7])


@st.composite
def entries(draw):
    """One parameter of any method."""
    low, wide, q = draw(small), draw(span), draw(step)
    mu, sigma = draw(st.floats(-3, 3)), draw(st.floats(0.1, 2))
    start = draw(positive)
    whole = draw(st.integers(-1000, 1000))
    return draw(
        st.sampled_from(
            [
                unified("uniform", low=low, high=low + wide),
                unified("uniformint", low=whole, high=whole + draw(st.integers(1, 10**9))),
                unified("quniform", low=low, high=low + wide + 2 * q, q=q),
                unified("loguniform", low=start, high=start * (1 + wide), base=2),
                unified("qloguniform", low=start, high=start * 2 + wide + 2 * q, q=q),
                unified("normal", mu=mu, sigma=sigma),
                unified("qnormal", mu=mu, sigma=sigma, q=q),
                unified("lognormal", mu=mu, sigma=sigma, base=10),
                unified("qlognormal", mu=mu, sigma=sigma, q=q),
                unified("fixed", value=[1, {"a": None}]),
                {"choice": ["a", 1, None, True, [1, 2], {"b": 0.5}]},
                {"type": "Array", "params": {"shape": [2, 1]}, "bounds": [low, low + wide]},
            ]
        )
    )


spaces = st.dictionaries(st.sampled_from("abcdef"), entries(), min_size=1, max_size=4)


def is_plain(value):
    if isinstance(value, list):
        return all(is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(is_plain(v) for v in value.values())
    return value is None or type(value) in (int, float, str, bool)


@given(spaces, st.integers(0, 2**32))
@few
def test_that_points_are_plain_valid_and_survive_the_way_through_the_unit_cube(spec, seed):
    space = Space.parse(spec)
    rng = np.random.default_rng(seed)
    for u in (rng.random(space.dims), np.zeros(space.dims), np.ones(space.dims)):
        point = space.from_unit(u)
        assert is_plain(point)
        assert list(point) == space.names
        assert json.loads(json.dumps(point)) == point
        assert space.key(space.validate(point)) == space.key(point)
        unit = space.to_unit(point)
        assert ((unit >= 0) & (unit <= 1)).all()
        again = space.from_unit(unit)
        assert np.allclose(space.to_unit(again), unit, atol=1e-6)
        for name, value in point.items():
            if isinstance(value, float):
                assert math.isclose(again[name], value, rel_tol=1e-6, abs_tol=1e-6)
            elif not isinstance(value, list):
                assert again[name] == value


@given(spaces)
@few
def test_that_a_described_space_parses_to_the_same_space(spec):
    space = Space.parse(spec)
    again = Space.parse(json.loads(json.dumps(space.describe())))
    assert again.describe() == space.describe()
    u = np.random.default_rng(0).random(space.dims)
    assert again.from_unit(u) == space.from_unit(u)


@given(small, span, step, st.integers(0, 2**32))
@few
def test_that_quantised_values_are_multiples_of_q_within_the_bounds(low, wide, q, seed):
    high = low + wide + 2 * q
    space = Space.parse({"x": unified("quniform", low=low, high=high, q=q)})
    for _ in range(20):
        value = space.sample(np.random.default_rng(seed))["x"]
        assert low <= value <= high
        assert abs(value / q - round(value / q)) < 1e-9
        assert type(value) is (int if isinstance(q, int) else float)


def test_that_integers_reach_both_ends_equally_often():
    space = Space.parse({"n": {"int": [1, 4]}})
    rng = np.random.default_rng(0)
    counts = np.bincount([space.sample(rng)["n"] for _ in range(4000)])[1:]
    assert len(counts) == 4
    assert (abs(counts - 1000) < 120).all()


def test_that_distributions_have_the_stated_centres():
    space = Space.parse(
        {
            "log": unified("loguniform", low=1e-4, high=1.0),
            "normal": unified("normal", mu=3, sigma=2),
            "lognormal": unified("lognormal", mu=2, sigma=1, base=10),
            "natural": unified("lognormal", mu=1, sigma=1),
        }
    )
    middle = space.from_unit([0.5] * 4)
    assert middle["log"] == pytest.approx(1e-2)
    assert middle["normal"] == 3
    assert middle["lognormal"] == pytest.approx(100)
    assert middle["natural"] == pytest.approx(math.e)
    one_sigma = space.from_unit([0.5, 0.8413447, 0.8413447, 0.5])
    assert one_sigma["normal"] == pytest.approx(5, abs=1e-5)
    assert one_sigma["lognormal"] == pytest.approx(1000, rel=1e-5)


def test_that_steps_of_a_tenth_are_written_as_people_write_them():
    space = Space.parse({"x": unified("quniform", low=0, high=1, q=0.1)})
    values = [p["x"] for p in space.grid(None)]
    assert values == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


MLP = {
    "width2": {"int": [8, 9], "condition": "layers >= 2"},
    "layers": {"int": [1, 3]},
    "width3": {"int": [4, 5], "condition": "width2 > 8 and layers == 3"},
    "act": {"choice": ["relu", "tanh"]},
}


def test_that_a_parameter_is_absent_when_its_condition_is_false():
    space = Space.parse(MLP)
    for seed in range(50):
        point = space.sample(np.random.default_rng(seed))
        assert ("width2" in point) == (point["layers"] >= 2)
        assert ("width3" in point) == (point["layers"] == 3 and point["width2"] == 9)
        assert space.validate(point) == point
        assert list(point) == [n for n in space.names if n in point]


def test_that_conditions_are_counted_exactly_in_a_small_space():
    # layers 1: 1; layers 2: 2 widths; layers 3: width2 8 or (9 with 2 widths): 3; times 2.
    space = Space.parse(MLP)
    points = list(space.grid(None))
    assert space.cardinality() == len(points) == 12
    assert len({space.key(p) for p in points}) == 12
    assert Space.parse(MLP, constraints="layers < 3").cardinality() == 6


def test_that_a_large_conditional_space_gives_an_upper_bound_and_a_continuous_one_none():
    spec = {"a": {"int": [1, 1000]}, "b": {"int": [1, 1000], "condition": "a > 500"}}
    assert Space.parse(spec).cardinality() == 10**6
    assert Space.parse({"x": {"float": [0, 1]}}).cardinality() is None
    assert Space.parse({"x": unified("fixed", value=3)}).cardinality() == 1


def test_that_a_grid_spans_each_parameter_and_keeps_every_choice():
    space = Space.parse({"x": {"float": [0, 1]}, "c": {"choice": [1, 2, 3]}, "n": {"int": [0, 9]}})
    points = list(space.grid(2))
    assert len(points) == 2 * 3 * 2 == space.grid_size(2)
    assert {p["x"] for p in points} == {0.0, 1.0}
    assert {p["n"] for p in points} == {0, 9}
    with pytest.raises(ValueError, match="at least 2"):
        next(space.grid(1))
    with pytest.raises(ValueError, match="complete grid"):
        next(space.grid(None))


def test_that_a_constraint_holds_in_every_sample_and_skips_absent_parameters():
    space = Space.parse(MLP, constraints=["width2 + layers <= 11", "act != 'tanh'"])
    points = [space.sample(np.random.default_rng(s)) for s in range(60)]
    assert any("width2" not in p for p in points)
    assert all(p.get("width2", 0) + p["layers"] <= 11 and p["act"] == "relu" for p in points)


def test_that_the_one_point_a_constraint_leaves_is_found():
    spec = {"a": {"int": [1, 200]}, "b": {"int": [1, 200]}}
    space = Space.parse(spec, constraints="a == 77 and b == 123")
    assert space.sample(np.random.default_rng(3)) == {"a": 77, "b": 123}


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({"layers": 1, "act": "relo"}, "act: not a valid value; found 'relo'; valid: one of"),
        ({"layers": 4, "act": "relu"}, "layers: not a valid value"),
        ({"layers": 1.5, "act": "relu"}, "layers: not a valid value"),
        ({"layers": True, "act": "relu"}, "layers: not a valid value"),
        ({"layers": 10**400, "act": "relu"}, "layers: not a valid value"),
        ({"layers": 1, "act": "relu", "width2": 8}, "width2: given although"),
        ({"layers": 2, "act": "relu"}, "width2: the point lacks"),
        ({"layer": 1, "layers": 1, "act": "relu"}, "did you mean 'layers'?"),
        ({"act": "tanh", "layers": 1}, "act: a constraint does not hold"),
    ],
)
def test_that_a_bad_point_is_refused_by_the_name_of_its_parameter(point, expected):
    with pytest.raises(InputError) as caught:
        Space.parse(MLP, constraints="act == 'relu'").validate(point)
    assert expected in str(caught.value)
    assert len(caught.value.errors) == 1


def test_that_numpy_values_and_rounding_errors_become_canonical_plain_values():
    space = Space.parse(
        {
            "x": {"float": [0, 1]},
            "n": {"int": [0, 5]},
            "c": {"choice": [1, 2]},
            "q": unified("quniform", low=0, high=1, q=0.1),
        }
    )
    point = space.validate({"x": np.float32(1.0000001), "n": np.int64(3), "c": 2.0, "q": 0.1 + 0.2})
    assert point == {"x": 1.0, "n": 3, "c": 2, "q": 0.3}
    assert is_plain(point)
    assert space.validate({"x": -0.0, "n": 3.0, "c": 1, "q": 0})["n"] == 3
    zeros = [space.validate({"x": zero, "n": 0, "c": 1, "q": 0}) for zero in (-0.0, 0.0)]
    assert space.key(zeros[0]) == space.key(zeros[1])
    assert space.key(zeros[0]) != space.key(space.validate({**zeros[0], "x": 0.5}))


def test_that_a_list_handed_out_does_not_let_its_receiver_change_the_space():
    space = Space.parse({"c": {"choice": [[1, 2], [3, 4]]}})
    space.from_unit([0.0])["c"].append(9)
    assert space.from_unit([0.0]) == {"c": [1, 2]}


def test_that_encoding_has_one_column_a_number_and_one_a_category():
    space = Space.parse(
        {
            "lr": {"float": [0.01, 1], "log": True},
            "act": {"choice": ["a", "b", "c"]},
            "n": {"int": [1, 2], "condition": "act == 'a'"},
            "m": {"choice": [1, 2], "condition": "act == 'b'"},
            "f": unified("fixed", value=1),
        }
    )
    rows = space.encode(
        [
            {"lr": 0.1, "act": "a", "n": 1, "f": 1},
            {"lr": 1.0, "act": "b", "m": 2, "f": 1},
        ]
    )
    assert rows.shape == (2, space.features) == (2, 1 + 3 + 2 + 2)
    assert rows[0] == pytest.approx([0.5, 1, 0, 0, 0.25, 1, 0, 0])
    assert rows[1] == pytest.approx([1.0, 0, 1, 0, 0.5, 0, 0, 1])
    assert space.encode([]).shape == (0, space.features)


@pytest.mark.parametrize(
    ("text", "point", "truth"),
    [
        ("a + 2 * b == 7 and not c", {"a": 1, "b": 3, "c": False}, True),
        ("1 < a <= 2 < b", {"a": 2, "b": 3}, True),
        ("a in ['x', 'y'] or a not in (1, 2)", {"a": "x"}, True),
        ("max(a, b) - min(a, b) > abs(-2)", {"a": 1, "b": 3}, False),
        ("2 ** a == 8 and 7 // 2 == 3 and 7 % 4 == a", {"a": 3}, True),
        ("-a < 0 and a != None", {"a": 1}, True),
        ("a > 1", {}, None),
        ("not (a > 1)", {}, None),
        ("a > 1 or b == 1", {"b": 1}, True),
        ("a > 1 and b == 2", {"b": 1}, False),
        ("a > 1 and b == 1", {"b": 1}, None),
        ("a in [b, 1]", {"a": 1}, None),
    ],
)
def test_that_expressions_follow_python_and_absent_values_are_unknown(text, point, truth):
    assert Expression(text, ["a", "b", "c"]).evaluate(point) is truth


@pytest.mark.parametrize("text", ["1 / a > 0", "9 ** 9 ** 9 > a", "(-1) ** 0.5 > a", "'x' > a"])
def test_that_what_cannot_be_calculated_does_not_hold(text):
    assert Expression(text, ["a"]).holds({"a": 0}, when_absent=True) is False
