"""Trials as flat rows, and values as JSON that every reader takes."""

import json
from collections.abc import Sequence

from hypothesis import given

from hpc_hpo.journal import Event, replay
from hpc_hpo.results.table import columns, direction_sign, ranks, strict_json, trials_table
from tests import events as ev

HISTORY = [
    ev.run(),
    ev.asked(1, {"lr": 0.2, "act": "tanh", "loss": "a parameter's name"}),
    ev.asked(0, {"lr": 0.1, "width": 8}),
    ev.submit(0, 1),
    ev.submit(1, 1),
    ev.end(1, 1, "lost", "paused", at=ev.START + 20, seconds=5.0),
    ev.submit(1, 2),
    ev.end(1, 2, "completed", "completed", at=ev.START + 40, seconds=7.0, loss=0.5),
    ev.end(0, 1, "failed", "paused", error={"kind": "exit", "message": "exit status 1"}),
]


def test_that_rows_are_flat_and_in_order_of_the_trials() -> None:
    first, second = trials_table(replay(HISTORY), 1)
    assert first == {
        "trial": 0,
        "segment": None,
        "state": "paused",
        "loss": None,
        "rank": None,
        "point.lr": 0.1,
        "point.act": None,
        "point.loss": None,
        "point.width": 8,
        "slices": 1,
        "failures": 1,
        "lost": 0,
        "busy_s": 10.0,
        "started": ev.START - 10,
        "ended": None,
        "error": "exit status 1",
        "parent": None,
    }
    assert second | {"loss": 0.5, "rank": 1, "slices": 2, "lost": 1, "busy_s": 12.0} == second
    assert (second["started"], second["ended"]) == (ev.START + 15, ev.START + 40)
    assert second["point.loss"] == "a parameter's name"


def test_that_an_empty_study_has_the_same_first_and_last_columns() -> None:
    assert trials_table(replay([ev.run()]), 1) == []
    empty, full = columns(replay([ev.run()])), columns(replay(HISTORY))
    assert [name for name in full if not name.startswith("point.")] == empty


def test_that_ranks_follow_the_direction_and_the_earlier_of_equals_wins() -> None:
    history = [ev.run()]
    for trial, loss in enumerate([0.5, 0.0, 0.9, 0.0]):
        history += [
            ev.asked(trial, {"x": trial}),
            ev.submit(trial),
            ev.end(trial, 1, "completed", "completed", loss=loss),
        ]
    state = replay(history)
    assert ranks(state, 1) == {1: 1, 3: 2, 0: 3, 2: 4}
    assert ranks(state, -1) == {2: 1, 0: 2, 1: 3, 3: 4}
    assert direction_sign({"direction": "maximize"}) == -1
    assert direction_sign({"direction": "minimize"}) == direction_sign({}) == 1


@given(ev.histories())
@ev.ON_FILES
def test_that_every_row_has_every_column(history: Sequence[Event]) -> None:
    state = replay(history)
    rows = trials_table(state, 1)
    assert [row["trial"] for row in rows] == sorted(state.trials)
    assert all(list(row) == columns(state) for row in rows)
    best = {trial.id for name in state.segments if (trial := state.best_of(name)) is not None}
    assert {row["trial"] for row in rows if row["rank"] == 1} == best
    counted = [t for t in state.trials.values() if t.loss is not None and not t.superseded]
    least = min(counted, key=lambda t: (t.loss, t.id), default=None)
    assert state.best() is least


def test_that_json_holds_nothing_a_strict_reader_refuses() -> None:
    value = {"a": [float("nan"), float("inf"), -float("inf"), 0.1], "b": ("\ud800é", None, True)}
    text = strict_json(value)
    assert text.isascii()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "a": ["NaN", "Infinity", "-Infinity", 0.1],
        "b": ["\ud800é", None, True],
    }
