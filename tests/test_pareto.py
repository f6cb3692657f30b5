"""The front of several objectives, and its hypervolume."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.pareto import fronts, hypervolume, nondominated

NUMBER = st.one_of(
    st.integers(0, 4).map(float),  # equal ones, too
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)


def rows(objectives):
    return st.lists(st.lists(NUMBER, min_size=objectives, max_size=objectives), max_size=40)


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(st.integers(2, 4).flatmap(lambda m: st.tuples(st.just(m), rows(m))))
def test_that_the_front_is_what_no_finite_point_dominates(case):
    objectives, values = case
    found = nondominated(np.array(values).reshape(len(values), objectives))
    finite = [v for v in values if all(map(math.isfinite, v))]
    for value, on_front in zip(values, found.tolist(), strict=True):
        good = value in finite and not any(dominates(other, value) for other in finite)
        assert on_front == good


def test_that_a_long_table_of_three_objectives_has_the_front_of_its_definition():
    values = np.random.default_rng(3).random((1500, 3)).round(2)
    found = nondominated(values)
    as_good = (values[:, None] <= values[None]).all(2)
    dominated = (as_good & (values[:, None] < values[None]).any(2)).any(0)
    assert (found == ~dominated).all()
    assert 10 < found.sum() < 1500


def test_that_rows_are_sorted_front_after_front():
    values = np.array([[2, 2], [0, 1], [1, 0], [math.nan, 0], [1, 1], [3, 3], [0, 1]])
    assert fronts(values, 7).tolist() == [2, 0, 0, 4, 1, 3, 0]
    # The rest is left together.
    assert fronts(values, 4).tolist() == [2, 0, 0, 2, 1, 2, 0]
    assert fronts(np.empty((0, 2)), 3).tolist() == []


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_that_the_hypervolume_is_that_of_the_cells_of_a_grid(objectives):
    rng = np.random.default_rng(objectives)
    points = rng.integers(0, 6, (7, objectives)).astype(float)
    reference = np.full(objectives, 5.0)
    cells = np.stack(np.meshgrid(*[np.arange(5)] * objectives, indexing="ij"), -1) + 0.5
    covered = np.zeros(cells.shape[:-1], dtype=bool)
    for point in points:
        covered |= (cells > point).all(-1)
    assert covered.any()
    assert hypervolume(points, reference) == pytest.approx(covered.sum())


def test_that_points_beyond_the_reference_and_no_points_bring_nothing():
    reference = np.array([1.0, 1.0])
    assert hypervolume(np.empty((0, 2)), reference) == 0.0
    beyond = np.array([[0.5, 0.5], [-9.0, 1.0], [2.0, -9.0], [math.nan, 0.0]])
    assert hypervolume(beyond, reference) == pytest.approx(0.25)
