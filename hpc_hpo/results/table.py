"""A study's trials as flat rows, and values as strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from hpc_hpo.journal import StudyState
from hpc_hpo.model import SliceEnd, Trial, TrialState
from hpc_hpo.results.fronts import Goal, fronts, named

Row = dict[str, Any]

#: In front of a parameter's name, so that one called "loss" hides no column.
POINT = "point."
#: ... of one of several objectives.
OBJECTIVE = "objective."


def versions_of(state: StudyState) -> dict[str, str]:
    """The packages that the last run of the steering process used, by name."""
    run = state.run_info
    # Journals of before knew two of them.
    old = {"hpc_hpo": run.get("version"), "python": run.get("python")}
    return dict(run.get("versions") or {name: text for name, text in old.items() if text})


def direction_sign(study: dict[str, Any]) -> int:
    """-1 when the (plain) study's loss is maximised, else +1."""
    return -1 if study.get("direction") == "maximize" else 1


def parameter_names(state: StudyState) -> list[str]:
    """The parameters of all points, in the order in which they first appear."""
    return list(dict.fromkeys(name for trial in state.trials.values() for name in trial.point))


def ranks(state: StudyState, sign: int) -> dict[int, int]:
    """The place of each completed trial in its segment, 1 for the best; the earlier of equals is
    better. Trials of a segment that was begun again have none.

    Args:
        sign: +1 when the loss is minimised, -1 when it is maximised.
    """
    done: dict[str | None, list[tuple[float, int]]] = {}
    for trial in state.trials.values():
        if trial.state is TrialState.COMPLETED and not trial.superseded:
            assert trial.loss is not None
            done.setdefault(trial.segment, []).append((sign * trial.loss, trial.id))
    return {
        number: place
        for losses in done.values()
        for place, (_, number) in enumerate(sorted(losses), start=1)
    }


def trials_table(
    state: StudyState, sign: int, first: int = 0, goals: Sequence[Goal] = ()
) -> list[Row]:
    """One flat row for each trial, in order of their numbers; None where there is no value.

    All rows have the same keys: trial, segment, state, loss, rank (1 is the best of its segment),
    `point.NAME` for each parameter (None where a condition leaves it out), slices (how many were
    submitted), failures (attempts that the payload failed), lost (slices lost to nodes or blocks),
    busy_s (worker-seconds of its slices), started and ended (seconds since the epoch; ended
    only when the trial is final), error (message of its last one), parent (the trial whose
    checkpoint it goes on from).

    Of several objectives there is no rank. In its place are pareto (whether it is on the front of
    its segment) and `objective.NAME` for each.

    Args:
        sign: +1 when the loss is minimised, -1 when it is maximised.
        first: trials with smaller numbers are left out.
        goals: of several objectives.
    """
    names = parameter_names(state)
    places = {} if goals else ranks(state, sign)
    best = on_fronts(state, goals)
    return [
        _row(trial, names, places.get(trial.id), goals, trial.id in best)
        for trial in trials_from(state, first)
    ]


def on_fronts(state: StudyState, goals: Sequence[Goal]) -> set[int]:
    """Numbers of the trials that are on the front of their segment."""
    return {trial.id for front in fronts(state, goals).values() for trial in front}


def trials_from(state: StudyState, first: int) -> list[Trial]:
    """The trials from number `first` on, by number."""
    return [state.trials[number] for number in sorted(state.trials) if number >= first]


def columns(state: StudyState, goals: Sequence[Goal] = ()) -> list[str]:
    """The keys of trials_table's rows, known also when there are none."""
    return list(_row(Trial(0, {}), parameter_names(state), None, goals))


def trial_row(trial: Trial, goals: Sequence[Goal] = ()) -> Row:
    """The row of one trial by itself: its own parameters alone, and no place among others."""
    row = _row(trial, list(trial.point), None, goals)
    return {key: value for key, value in row.items() if key != "pareto"}


def _row(
    trial: Trial, names: list[str], rank: int | None, goals: Sequence[Goal] = (),
    on_front: bool = False,
) -> Row:  # fmt: skip
    ran = [(s.started, s.ended) for s in trial.slices if s.started is not None]
    ends = [ended for _, ended in ran if ended is not None]
    return {
        "trial": trial.id,
        "segment": trial.segment,
        "state": trial.state.value,
        "loss": trial.loss,
        "rank": rank,
        **({"pareto": on_front} if goals else {}),
        **{OBJECTIVE + goal.name: named(trial, goals).get(goal.name) for goal in goals},
        **{POINT + name: trial.point.get(name) for name in names},
        "slices": len(trial.slices),
        "failures": trial.failures,
        "lost": sum(s.end is SliceEnd.LOST for s in trial.slices),
        "busy_s": sum(max(0.0, end - start) for start, end in ran if end is not None),
        "started": min((start for start, _ in ran), default=None),
        "ended": max(ends, default=None) if trial.final else None,
        "error": trial.error.get("message") if trial.error else None,
        "parent": trial.parent["trial"] if trial.parent is not None else None,
    }


def printable(text: str) -> str:
    """`text` as every file format and UTF-8 can hold it: NUL and lone surrogates, which logs
    and file names bring, become backslash escapes.
    """
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _portable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    return value


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities are the strings "NaN", "Infinity" and
    "-Infinity", as in Protocol Buffers' JSON mapping; what is not ASCII is escaped, so that
    lone surrogates (from file names) are no fault of the file's encoding.
    """
    return json.dumps(_portable(value), indent=indent, allow_nan=False)
