"""Results as one JSON object, with what CSV has no room for: reports and slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial
from hpc_hpo.results.fronts import Goal, front_row, fronts, goals_of, named
from hpc_hpo.results.segments import segment_rows
from hpc_hpo.results.table import OBJECTIVE, POINT, Row, direction_sign, strict_json, trials_table


def _full(row: Row, trial: Trial, goals: Sequence[Goal]) -> dict[str, Any]:
    return {
        **{key: value for key, value in row.items() if not key.startswith((POINT, OBJECTIVE))},
        **({"objectives": named(trial, goals)} if goals else {}),
        "point": trial.point,
        "like": trial.like,
        "superseded": trial.superseded,
        "error": trial.error,
        "reports": [{"step": step, **trial.reports[step]} for step in sorted(trial.reports)],
        "slices": [asdict(record) for record in trial.slices],
    }


def write_json(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write {"study", "best", "trials"} as strict JSON (see strict_json for NaN).

    `study` is the frozen study; `best` is one of `trials` or null; a study with segments has
    `segments`, each with its own best (see segments.SegmentRow); a trial holds the columns of
    trials_table, and its point, like (the trial that it was taken from), superseded (its segment
    was begun again), reports ([{"step", metric...}]), slices and whole error. With several
    objectives, a trial has `objectives` by name, and `front` holds the numbers of the best trials
    and their hypervolume (of a study with segments: in each of those).

    Raises:
        StorageError: it cannot be written.
    """
    goals = goals_of(study)
    rows = trials_table(state, direction_sign(study), goals=goals)
    trials = [_full(row, state.trials[row["trial"]], goals) for row in rows]
    best = state.best(direction_sign(study))
    content = {
        "study": study,
        "best": best and next(trial for trial in trials if trial["trial"] == best.id),
        "trials": trials,
    }
    if goals and "segments" not in study:
        content["front"] = front_row(fronts(state, goals).get(None, []), goals)
    if "segments" in study:
        content["segments"] = [row.plain() for row in segment_rows(state, study)]
    text = strict_json(content, indent=1)
    write_atomic(path, text + "\n")
