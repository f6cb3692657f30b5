"""Failures grouped by their cause."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from hpc_hpo.journal import Event, replay
from hpc_hpo.results.failures import EXAMPLES, FailureGroup, failure_groups, message_pattern
from hpc_hpo.results.table import strict_json
from tests import events as ev

T = ev.START


def groups_of(*events: Event) -> list[FailureGroup]:
    return failure_groups(replay([ev.run(), *events]))


def trial(number: int, how: str, state: str, at: float = T, **more: Any) -> list[Event]:
    """A trial with one slice that ended so."""
    point = {"x": number}
    return [
        ev.asked(number, point),
        ev.submit(number),
        ev.end(number, 1, how, state, at=at, **more),
    ]


def failing(number: int, message: str, at: float = T, **more: Any) -> list[Event]:
    error = {"kind": "exception", "message": message}
    return trial(number, "failed", "failed", at, error=error, **more)


def test_that_messages_that_differ_in_numbers_alone_are_one_cause() -> None:
    (group,) = groups_of(
        *failing(0, "CUDA out of memory: 2.5 GiB at 0x7f00aa", T + 5, host="a01"),
        *failing(1, "CUDA out of memory: 13 GiB at 0x7f12bc", T + 9, host="b02"),
        *failing(2, "CUDA out of memory: 2.5 GiB at 0x7f00aa", T + 7, host="a01"),
    )
    assert group.cause == group.pattern == "CUDA out of memory: # GiB at #"
    assert (group.end, group.kind, group.slices) == ("failed", "exception", 3)
    assert group.trials == group.given_up == [0, 1, 2]
    assert group.hosts == {"a01": 2, "b02": 1}
    assert (group.first_at, group.last_at) == (T + 5, T + 9)


def test_that_a_message_that_is_always_the_same_is_shown_with_its_numbers() -> None:
    (group,) = groups_of(*failing(0, "expected 3 layers"), *failing(1, "expected 3 layers"))
    assert (group.cause, group.pattern) == ("expected 3 layers", "expected # layers")


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("loss -0.3e-5, step 7", "loss #, step #"),
        ("no file /t/000012/a.npz", "no file /t/#/a.npz"),
        ("host c07n12 is gone", "host c#n# is gone"),
        ("digest 9f86d081884c7d65", "digest #"),
        ("the facade is defaced", "the facade is defaced"),
        ("KeyError: 'lr'", "KeyError: 'lr'"),
    ],
)
def test_that_the_pattern_hides_what_differs_and_nothing_else(message: str, pattern: str) -> None:
    assert message_pattern(message) == pattern


def test_that_causes_are_told_apart_by_their_words_their_kind_and_how_the_slice_ended() -> None:
    found = groups_of(
        *failing(0, "boom"),
        *failing(1, "bang"),
        *trial(2, "failed", "failed", error={"kind": "exit", "message": "boom"}),
        *trial(3, "lost", "paused", error={"kind": "exception", "message": "boom"}),
    )
    assert len(found) == 4


def test_that_what_costs_most_trials_comes_first_and_numbers_follow_the_first_appearance() -> None:
    found = groups_of(
        *failing(0, "late", T + 50),
        *trial(1, "lost", "paused", T + 10, reason="walltime"),
        *trial(2, "lost", "paused", T + 11, reason="walltime"),
        *failing(3, "early", T + 2),
        *failing(4, "early", T + 90),
    )
    assert [(g.number, g.cause) for g in found] == [
        (1, "early"),
        (3, "late"),
        (2, "its block ended at its walltime before a checkpoint was done"),
    ]
    assert [g.given_up for g in found] == [[3, 4], [0], []]


def test_that_a_trial_tried_twice_counts_once_among_the_trials_of_its_cause() -> None:
    error = {"kind": "exit", "message": "exited with status 2"}
    (group,) = groups_of(
        *trial(0, "failed", "paused", error=error),
        ev.submit(0, 2),
        ev.end(0, 2, "failed", "failed", error=error, wasted_s=4.0),
    )
    assert (group.slices, group.trials, group.given_up) == (2, [0], [0])
    assert group.wasted_s == 4.0


def test_that_a_trial_that_recovered_was_not_given_up() -> None:
    (group,) = groups_of(
        *trial(0, "failed", "paused", error={"kind": "exit", "message": "exited with status 1"}),
        ev.submit(0, 2),
        ev.end(0, 2, "completed", "completed", loss=1.0),
    )
    assert (group.trials, group.given_up) == ([0], [])


def test_that_a_trial_given_up_for_want_of_progress_is_a_failure() -> None:
    error = {"kind": "losses", "message": "given up after 5 slices in a row"}
    (group,) = groups_of(*trial(0, "paused", "failed", reason="walltime", error=error))
    assert (group.kind, group.given_up) == ("losses", [0])


def test_that_no_more_examples_are_kept_than_can_be_read() -> None:
    (group,) = groups_of(*(e for n in range(9) for e in failing(n, f"bad {n}")))
    assert [number for number, _ in group.examples] == list(range(EXAMPLES))


def test_that_what_ended_well_or_was_begun_again_is_no_failure() -> None:
    own = {"segment": "a"}
    asked, submitted, ended = failing(1, "old")
    assert not groups_of(
        *trial(0, "completed", "completed", loss=1.0),
        {**asked, **own}, submitted, ended,
        {"e": "segment", "op": "rerun", "segment": "a", "at": T},
    )  # fmt: skip


def test_that_only_the_first_line_of_a_message_is_its_cause() -> None:
    (group,) = groups_of(*failing(0, "\n  bad input\nof line 3\n"), *failing(1, "bad input\nx"))
    assert group.cause == "bad input"


@ev.ON_FILES
@given(ev.histories())
def test_that_every_failed_and_lost_slice_is_in_one_group(history: list[Event]) -> None:
    state = replay(history)
    ends = [
        s.end.value
        for t in state.trials.values()
        if not t.superseded
        for s in t.slices
        if s.end is not None
    ]
    groups = failure_groups(state)
    assert sum(g.slices for g in groups) == ends.count("failed") + ends.count("lost")
    assert sorted(g.number for g in groups) == list(range(1, len(groups) + 1))
    plain = json.loads(strict_json([g.plain() for g in groups]))
    assert [g["slices"] for g in plain] == [g.slices for g in groups]
