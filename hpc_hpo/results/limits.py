"""How far a study is to each limit of its budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hpc_hpo.journal import StudyState


class Limit(NamedTuple):
    """One limit of the budget.

    Attributes:
        kind: trials, steps (budget.epochs) or node-hours.
        used, most: in trials, steps or hours.
    """

    kind: str
    used: float
    most: float

    @property
    def share(self) -> float:
        """What of it is used."""
        return self.used / self.most if self.most else 1.0

    def __str__(self) -> str:
        used = f"{self.used:.3g}" if self.kind == "node-hours" else f"{self.used:g}"
        return f"{self.kind} {used} of {self.most:g}"


def node_seconds(state: StudyState, study: dict[str, Any], now: float, alive: bool) -> float:
    """Node-seconds held by all blocks so far.

    Journals of earlier versions do not tell of nodes; there a block has what the study asks for.
    """
    asked = (study.get("blocks") or {}).get("nodes")
    usual = asked if isinstance(asked, int) else 1
    limits = [now] if alive or state.last_at is None else [now, state.last_at]
    return state.node_s(min(limits), usual)


def limits(
    state: StudyState, study: Mapping[str, Any], trials: int | None, now: float, alive: bool
) -> list[Limit]:
    """The limits that the study has, the one first that is nearest to its end.

    Args:
        study: the frozen study as a plain dict.
        trials: of all segments together; None or 0: not limited.
        now: seconds since the epoch.
        alive: a steering process is at work.
    """
    budget, found = study.get("budget") or {}, list[Limit]()
    if trials:
        found.append(Limit("trials", state.final_trials, trials))
    if budget.get("epochs"):
        found.append(Limit("steps", state.epochs, budget["epochs"]))
    if budget.get("node_hours"):
        hours = node_seconds(state, dict(study), now, alive) / 3600
        found.append(Limit("node-hours", hours, budget["node_hours"]))
    return sorted(found, key=lambda limit: -limit.share)


def in_words(found: Iterable[Limit]) -> str:
    """All limits in one line."""
    return ", ".join(map(str, found))
