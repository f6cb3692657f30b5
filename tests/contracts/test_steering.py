"""Ask and tell over files: shapes, sizes, odd losses, foreign points, and a whole search."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_hpo.contracts.steering import DEFAULT_OPTIMIZER, new_points, read_input
from hpc_hpo.errors import InputError
from hpc_hpo.optimizers.registry import BUILT_IN
from hpc_hpo.space import Space
from tests.conformance.test_optimizers import METHODS, need

GOLDEN = Path(__file__).parent / "golden"
SPACE = {
    "x": {"method": "uniform", "dimension": {"low": -5, "high": 5}},
    "lr": {"method": "loguniform", "dimension": {"low": 1e-5, "high": 1e-1, "base": 10}},
    "n": {"method": "uniformint", "dimension": {"low": 1, "high": 64}},
}
DIALECT = {
    "A": {"type": "Choice", "params": {"choices": [1, 4]}},
    "B": {"type": "Scalar", "bounds": [0, 5]},
    "C": {"type": "TransitionChoice", "params": {"choices": ["u", "v", "w"]}},
    "D": {"type": "Log", "bounds": [1e-3, 1]},
    "E": {"type": "Array", "params": {"shape": [2]}, "bounds": [0, 1]},
}


def steer(
    document: Any, num: int = 3, most: int = 100, optimizer: Any = DEFAULT_OPTIMIZER, seed: int = 0
) -> Any:
    """One call: the output for an input document."""
    given_ = read_input(json.dumps(document), "in.json")
    return new_points(given_, num, most, optimizer, seed)


def loss_of(point: dict[str, Any]) -> float:
    """A smooth function with its minimum 0."""
    return float(
        (point["x"] - 1.5) ** 2 / 10
        + (math.log10(point["lr"]) + 3) ** 2
        + abs(point["n"] - 20) / 20
    )


@pytest.mark.parametrize("name", ["plain", "idds", "segmented"])
def test_that_the_output_is_the_golden_one(name: str) -> None:
    given_ = read_input((GOLDEN / f"{name}_in.json").read_bytes(), "in.json")
    found = json.dumps(new_points(given_, 3, 4, DEFAULT_OPTIMIZER, 0)) + "\n"
    assert found == (GOLDEN / f"{name}_out.json").read_text()


@pytest.mark.parametrize("barrier", [True, False], ids=["barrier", "no barrier"])
@pytest.mark.parametrize("optimizer", [DEFAULT_OPTIMIZER, "random", "sobol"])
def test_that_twenty_calls_reach_the_maximum_and_repeat_nothing(
    optimizer: str, barrier: bool
) -> None:
    points: list[list[Any]] = []
    for _ in range(20):
        fresh = steer({"points": points, "opt_space": SPACE}, 4, 77, optimizer)
        points += [[p, None] for p in fresh]
        # Without a barrier the newest points are still being evaluated at the next call.
        for entry in points if barrier else points[: -len(fresh) or None]:
            entry[1] = loss_of(entry[0])
    assert len(points) == 77
    assert len({json.dumps(p, sort_keys=True) for p, _ in points}) == 77
    assert steer({"points": points, "opt_space": SPACE}, 4, 77, optimizer) == []
    space = Space.parse(SPACE)
    assert all(space.validate(p) == p for p, _ in points)


def test_that_models_reach_their_maximum_side_by_side() -> None:
    pair = [{"model_id": i, "search_space": SPACE} for i in (3, 8)]
    points: list[list[Any]] = []
    for _ in range(20):
        fresh = steer({"points": points, "opt_space": pair}, 3, 41)
        points += [[p, None] for p in fresh]
        for entry in points[:-3]:
            # The second model's losses are told, the first one's stay away for ever.
            entry[1] = loss_of(entry[0][1]) if entry[0][0] == 8 else None
    assert [model for (model, _), _ in points].count(3) == 41
    assert [model for (model, _), _ in points].count(8) == 41
    assert len({json.dumps(p, sort_keys=True) for p, _ in points}) == 82


@pytest.mark.parametrize("barrier", [True, False], ids=["barrier", "no barrier"])
def test_that_the_default_finds_better_points_than_random_at_equal_count(barrier: bool) -> None:
    def best(optimizer: str, seed: int) -> float:
        points: list[list[Any]] = []
        for _ in range(20):
            fresh = steer({"points": points, "opt_space": SPACE}, 4, 80, optimizer, seed)
            points += [[p, None] for p in fresh]
            for entry in points if barrier else points[:-4]:
                entry[1] = loss_of(entry[0])
        return min(loss_of(p) for p, _ in points)

    ours = statistics.median(best(DEFAULT_OPTIMIZER, s) for s in range(5))
    chance = statistics.median(best("random", s) for s in range(5))
    assert ours < chance / 2


def test_that_equal_input_gives_equal_output_and_another_seed_another() -> None:
    document = {"points": [[{"x": 1.0, "lr": 1e-3, "n": 3}, 0.1]], "opt_space": SPACE}
    assert steer(document) == steer(document)
    assert steer(document) != steer(document, seed=1)


@pytest.mark.parametrize(
    ("have", "num", "most", "expected"),
    [(0, 3, 10, 3), (8, 3, 10, 2), (10, 3, 10, 0), (12, 3, 10, 0), (4, 0, 10, 0)],
)
def test_that_the_size_is_the_documented_one(have: int, num: int, most: int, expected: int) -> None:
    points = [[{"x": i / 7, "lr": 1e-3, "n": 1 + i}, None] for i in range(have)]
    assert len(steer({"points": points, "opt_space": SPACE}, num, most)) == expected
    pair = [{"model_id": i, "search_space": SPACE} for i in ("a", 7)]
    both = steer({"points": [[["a", p], None] for p, _ in points], "opt_space": pair}, num, most)
    assert [m for m, _ in both] == ["a"] * expected + [7] * min(num, most)


def test_that_models_of_one_space_begin_with_different_points() -> None:
    pair = [{"model_id": i, "search_space": SPACE} for i in (0, 1)]
    found = steer({"points": [], "opt_space": pair}, 5)
    points = [json.dumps(p) for _, p in found]
    assert len(set(points)) == 10


def test_that_a_loss_of_zero_is_a_value_and_odd_losses_are_taken() -> None:
    losses = "[0.0, 100000.0, NaN, Infinity, -Infinity, 1e400, null, 3]"
    points = ",".join(
        f'[{{"x": {i / 10}, "lr": 0.001, "n": {i + 1}}}, {loss}]'
        for i, loss in enumerate(losses.strip("[]").split(","))
    )
    text = f'{{"points": [{points}], "opt_space": {json.dumps(SPACE)}}}'
    given_ = read_input(text, "in.json")
    told = [told for _, _, told in given_.models[""].points]
    assert told == [True] * 6 + [False, True]
    for optimizer in (DEFAULT_OPTIMIZER, {"name": "skopt", "surrogate": "ET"}):
        assert len(new_points(given_, 4, 100, optimizer, 0)) == 4


def test_that_zero_is_the_best_of_positive_losses() -> None:
    """Were 0.0 taken for "not evaluated", the search would look elsewhere."""
    space = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
    points = [[{"x": i / 40}, 0.0 if i in (30, 31, 32) else 1.0] for i in range(41)]
    found = [p["x"] for p in steer({"points": points, "opt_space": space}, 8)]
    assert statistics.median(abs(x - 31 / 40) for x in found) < 0.1


def test_that_points_beyond_their_space_still_teach_and_are_never_given() -> None:
    space = {
        "n": {"method": "uniformint", "dimension": {"low": 1, "high": 4}},
        "c": {"method": "categorical", "dimension": {"categories": [1, 2]}},
    }
    points = [
        [{"n": 2.0, "c": 1.0}, 0.1],  # equal to 2 and 1
        [{"n": 4.0000001, "c": 2}, None],
        [{"n": 7, "c": 1}, 0.2],  # beyond the end
        [{"c": 2, "n": 1}, None],
    ]
    found = steer({"points": points, "opt_space": space}, 50, 100)
    keys = {(p["n"], p["c"]) for p in found}
    assert len(found) == len(keys) == 8 - 4
    assert not keys & {(2, 1), (4, 2), (1, 2)}
    assert all(type(p["n"]) is int for p in found)


#: All that chooses points itself, by one loss.
CHOOSING = [name for name in BUILT_IN if name not in ("points", "idds", "nsga2")]


def test_that_an_optimizer_of_several_objectives_is_refused() -> None:
    with pytest.raises(InputError, match="--optimizer: it is for several objectives"):
        steer({"points": [], "opt_space": METHODS}, 2, 10, "nsga2")


@pytest.mark.parametrize("optimizer", [*CHOOSING, '{"surrogate": "GP"}', '{"surrogate": "RF"}'])
@pytest.mark.parametrize("space", [METHODS, DIALECT], ids=["methods", "dialect"])
def test_that_every_optimizer_takes_every_method(optimizer: str, space: dict[str, Any]) -> None:
    need(optimizer)
    spec = {"name": "skopt", **json.loads(optimizer)} if "{" in optimizer else optimizer
    points: list[list[Any]] = []
    for _ in range(6):
        fresh = steer({"points": points, "opt_space": space}, 3, 18, spec)
        points += [[p, len(json.dumps(p)) % 7 / 7] for p in fresh]
    assert len({json.dumps(p) for p, _ in points}) == len(points) == 18


OPT = json.dumps(SPACE)
PAIR = f'[{{"model_id": 0, "search_space": {OPT}}}]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in.json: the file is empty"),
        (" \n", "in.json: the file is empty"),
        ('{"points": [[{"x": 1', "in.json:1: not valid JSON (half written?)"),
        ("[]", "not a steering input"),
        (
            f'{{"points": [], "opt_space": {OPT}, "opt_spaec": 1}}',
            "opt_spaec: unknown key",
        ),
        ('{"points": []}', "opt_space: this key is required"),
        ('{"points": [], "opt_space": null}', "opt_space: no search space"),
        ('{"points": [], "opt_space": []}', "opt_space: no search space"),
        ('{"points": [], "opt_space": {"x": {"method": "unifrom"}}}', "opt_space.x.dimension"),
        (f'{{"points": {{}}, "opt_space": {OPT}}}', "points: not a list"),
        (f'{{"points": [3], "opt_space": {OPT}}}', "points[0]: not a point with its loss"),
        (f'{{"points": [[{{"x": 1}}, 1]], "opt_space": {OPT}}}', "points[0]: lr: the point lacks"),
        (
            f'{{"points": [[{{"x": 1, "lr": 0.1, "n": 1, "m": 2}}, 1]], "opt_space": {OPT}}}',
            "points[0]: m: unknown parameter",
        ),
        (
            f'{{"points": [[{{"x": "a", "lr": 0.1, "n": 1}}, 1]], "opt_space": {OPT}}}',
            "points[0]: x: not a valid value",
        ),
        (
            f'{{"points": [[{{"x": 1, "lr": 0.1, "n": 1}}, "low"]], "opt_space": {OPT}}}',
            "points[0][1]: not a loss",
        ),
        (f'{{"points": [[[0, {{}}], 1]], "opt_space": {OPT}}}', "points[0]: not a point"),
        (
            f'{{"points": [[{{}}, 1]], "opt_space": {PAIR}}}',
            "points[0]: a point without its model's id",
        ),
        (
            f'{{"points": [[[1, {{}}], 1]], "opt_space": {PAIR}}}',
            "points[0]: no search space has this model's id; found '1'; valid: 0",
        ),
        (
            f'{{"points": [], "opt_space": [{{"model_id": 0, "space": {OPT}}}]}}',
            "opt_space[0].space: unknown key",
        ),
    ],
)
def test_that_what_is_wrong_with_a_file_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_input(text, "in.json")
    assert message in str(caught.value)
    assert "in.json" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), junk=st.text(max_size=4))
def test_that_no_damaged_file_is_more_than_an_input_error(cut: int, junk: str) -> None:
    whole = (GOLDEN / "segmented_in.json").read_text().strip()
    cut %= len(whole)
    text = whole[:cut] + junk
    try:
        read_input(text, "in.json")
    except InputError as error:
        assert "in.json" in str(error)
