"""How each segment of a study stands, and its best point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial
from hpc_hpo.results.fronts import Goal, front_row, fronts, goals_of
from hpc_hpo.results.table import direction_sign
from hpc_hpo.segment_record import SegmentRecord
from hpc_hpo.steering.loop import DONE_REASONS
from hpc_hpo.study.segments import plain_segments

#: Where a segment stands: nothing of it has begun; trials are open or left; all have ended; its
#: target loss is reached; a person has stopped it; its inputs or all its trials have failed.
STATES = ("new", "running", "done", "target", "stopped", "failed")


@dataclass(frozen=True)
class SegmentRow:
    """One segment.

    Attributes:
        name: None for the only one of a study without segments.
        values: what ``{segment.NAME}`` stands for.
        state: one of STATES.
        budget: trials it may run; None when there is no study file to read.
        best: its best trial; of several objectives, by the first.
        front: with several objectives, the trials that are best; see fronts.fronts.
        problem: why it failed.
    """

    name: str | None
    values: Mapping[str, Any]
    state: str
    budget: int | None
    record: SegmentRecord
    best: Trial | None
    problem: str | None
    front: tuple[Trial, ...] = ()
    goals: tuple[Goal, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        best = self.best
        return {
            "segment": self.name,
            "values": dict(self.values),
            "state": self.state,
            "budget": self.budget,
            "asked": self.record.asked,
            "completed": self.record.completed,
            "failed": self.record.failed,
            "stopped_early": self.record.stopped_early,
            "best": best and {"trial": best.id, "loss": best.loss, "point": best.point},
            "problem": self.problem,
            **({"front": front_row(self.front, self.goals)} if self.goals else {}),
        }


def known_segments(
    state: StudyState, study: Mapping[str, Any]
) -> dict[str | None, Mapping[str, Any]]:
    """What the study, or a request while it ran, says of each segment, in the study's order; those
    of which only trials are known come last, with nothing."""
    section = study.get("segments")
    known: dict[str | None, Mapping[str, Any]] = {}
    if isinstance(section, Mapping):
        known.update(plain_segments(section))
    else:
        known[None] = {}
    for name, record in state.segments.items():
        if record.spec is not None:
            known.setdefault(name, record.spec)
        elif name not in known and record.asked:
            known[name] = {}
    return known


def spaces(state: StudyState, study: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """The search space of each segment, as a study file has it: the study's with the segment's own
    parameters in place of those, and without those that the segment takes out."""
    shared = study.get("space") or {}
    return {
        name: {key: entry for key, entry in {**shared, **(content.get("space") or {})}.items()
               if entry is not None}
        for name, content in known_segments(state, study).items()
    }  # fmt: skip


def segment_rows(state: StudyState, study: Mapping[str, Any]) -> list[SegmentRow]:
    """Every segment that the study or the journal knows, in the study's order.

    Args:
        study: the frozen study as a plain dict.
    """
    known = known_segments(state, study)
    goals = goals_of(study)
    found = fronts(state, goals)
    rows = [_row(state, study, name, content) for name, content in known.items()]
    return [
        replace(row, front=tuple(found.get(row.name, ())), goals=tuple(goals)) if goals else row
        for row in rows
    ]


def _row(
    state: StudyState, study: Mapping[str, Any], name: str | None, content: Mapping[str, Any]
) -> SegmentRow:
    record = state.segments.get(name) or SegmentRecord()
    shared, own = study.get("budget") or {}, content.get("budget") or {}
    budget = record.trials or own.get("trials") or shared.get("trials")
    target = own.get("target_loss")
    target = shared.get("target_loss") if target is None else target
    sign = direction_sign(dict(study))
    best = state.best_of(name, sign)
    reached = (
        target is not None
        and best is not None
        and best.loss is not None
        and sign * best.loss <= sign * target
    )
    problem = record.problem
    if problem is None and 0 < record.failed == record.asked:
        problem = f"all its {record.failed} trials have failed"
    # A small space, or best-gain's one pool, leaves a segment with less than its own budget.
    over = state.stop_reason in DONE_REASONS and 0 < record.asked == record.ended
    done = over or (budget is not None and record.ended >= budget)
    word = (
        "stopped" if record.stopped
        else "failed" if record.problem or (done and not record.completed)
        else "target" if reached
        else "done" if done
        else "running" if record.asked else "new"
    )  # fmt: skip
    return SegmentRow(
        name, content.get("values") or {}, word, budget, record, best,
        problem if word == "failed" else None,
    )  # fmt: skip


def segment_counts(rows: list[SegmentRow]) -> dict[str, int]:
    """How many segments are in each of STATES, and `total`."""
    counts = Counter(row.state for row in rows)
    return {**{word: counts[word] for word in STATES}, "total": len(rows)}
