"""What all parts of the report are made from, and what they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.results.summary import summary
from hpc_hpo.results.table import direction_sign, parameter_names

#: Segments that have plots of their own; tables and the heat map show all.
MOST_GROUPS = 40


@dataclass(frozen=True)
class Group:
    """The trials that are compared with each other: those of one segment.

    Attributes:
        name: of the segment; None in a study without segments.
        done: completed trials, in the order in which they ended. One that was stopped early has the
            loss of a rung, which is no match for these.
        ends: shape (len(done),), when, in seconds since the epoch.
        losses: shape (len(done),).
        trials: all of them, by number.
    """

    name: str | None
    done: list[Trial]
    ends: np.ndarray
    losses: np.ndarray
    trials: list[Trial]

    def places(self, sign: int) -> np.ndarray:
        """Shape (len(done),): from 0 for the best loss to 1 for the worst."""
        order = np.argsort(sign * self.losses, kind="stable")
        found = np.empty(len(order))
        found[order] = np.linspace(0.0, 1.0, len(order)) if len(order) > 1 else 0.0
        return found


@dataclass(frozen=True)
class Material:
    """One study as its folder tells it.

    Attributes:
        study: the frozen study as a plain dict.
        now: seconds since the epoch.
    """

    folder: StudyFolder
    study: Mapping[str, Any]
    state: StudyState
    now: float

    @cached_property
    def sign(self) -> int:
        """+1 when the loss is minimised, -1 when it is maximised."""
        return direction_sign(dict(self.study))

    @cached_property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.get("name", self.folder.path.name))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The object of `hpc-hpo status --json`."""
        return summary(self.folder, self.state, dict(self.study), self.now)

    @cached_property
    def names(self) -> list[str]:
        """The parameters of all points."""
        return parameter_names(self.state)

    @cached_property
    def until(self) -> float:
        """The last moment of which something is known: now, while steering is at work."""
        if self.facts["steering"] or self.state.last_at is None:
            return self.now
        return self.state.last_at

    @cached_property
    def begin(self) -> float:
        """When the study began: times in the report are counted from here."""
        blocks = (b.requested or b.started for b in self.state.blocks.values())
        slices = (t.slices[0].submitted for t in self.state.trials.values() if t.slices)
        known = [at for at in (*blocks, *slices) if at is not None]
        return min(known, default=self.state.run_info.get("at", self.until))

    @cached_property
    def groups(self) -> list[Group]:
        """Every segment with trials, in the order of its first; see MOST_GROUPS."""
        trials: dict[str | None, list[Trial]] = {}
        for _, trial in sorted(self.state.trials.items()):
            if not trial.superseded:
                trials.setdefault(trial.segment, []).append(trial)
        return [self._group(name, some) for name, some in trials.items()]

    def _group(self, name: str | None, trials: list[Trial]) -> Group:
        ended = [(ended_at(t), t.id, t) for t in trials if t.state is TrialState.COMPLETED]
        ended.sort(key=lambda entry: entry[:2])
        done = [trial for _, _, trial in ended]
        return Group(
            name, done, np.array([at for at, _, _ in ended], dtype=float),
            np.array([t.loss for t in done], dtype=float), trials,
        )  # fmt: skip

    def block_spans(self) -> list[tuple[str, float, float]]:
        """(id, start, end) of every block that has begun; the end is `until` where it runs."""
        spans = []
        for block in self.state.blocks.values():
            if block.started is None:
                continue
            limits = [self.until] if block.ended is None else [block.ended]
            if block.ended is None and block.deadline is not None:
                limits.append(block.deadline)
            spans.append((block.id, block.started, max(block.started, min(limits))))
        return sorted(spans, key=lambda span: (span[1], span[0]))

    def nodes_of(self, block: str) -> int:
        """Nodes of a block; those that the study asks for, where the journal does not tell."""
        asked = self.study.get("blocks")
        nodes = asked.get("nodes", 1) if isinstance(asked, Mapping) else 1
        return self.state.blocks[block].nodes or (nodes if isinstance(nodes, int) else 1)

    def node_hours_at(self, times: np.ndarray) -> np.ndarray:
        """Node-hours that all blocks had used by `times`, seconds since the epoch; same shape."""
        spans = self.block_spans()
        return (
            integral(
                times,
                np.array([start for _, start, _ in spans]),
                np.array([end for *_, end in spans]),
                np.array([self.nodes_of(name) for name, *_ in spans], dtype=float),
            )
            / 3600
        )


def ended_at(trial: Trial) -> float:
    """When a trial's last slice ended, seconds since the epoch."""
    last = trial.slices[-1]
    return last.ended if last.ended is not None else last.submitted


def integral(
    times: np.ndarray, begins: np.ndarray, ends: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """At each of `times`, the sum over intervals of weight times how much of it has passed.

    Args:
        begins, ends, weights: shape (n,), one entry an interval.

    Returns:
        The shape of `times`.
    """
    passed = np.zeros(len(times))
    for edges, sign in ((begins, 1.0), (ends, -1.0)):
        order = np.argsort(edges)
        sorted_edges, w = edges[order], weights[order]
        count = np.searchsorted(sorted_edges, times, side="right")
        weight = np.concatenate([[0.0], np.cumsum(w)])[count]
        moment = np.concatenate([[0.0], np.cumsum(w * sorted_edges)])[count]
        passed += sign * (weight * times - moment)
    return passed


def rounded(values: Any, digits: int = 6) -> list[Any]:
    """Numbers with so many significant digits: half the bytes, and no difference to the eye.
    NaN and infinities become None, which leaves a gap in a plot."""
    return [
        float(f"{value:.{digits}g}") if math.isfinite(value) else None
        for value in np.asarray(values, dtype=float).tolist()
    ]


def thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` rows, evenly spread, the first and the last included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))
