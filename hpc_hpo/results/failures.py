"""A study's failed and lost slices, grouped by what caused them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hpc_hpo.journal import StudyState
from hpc_hpo.model import SliceEnd, SliceRecord, Trial

#: Slices of a group that are kept as examples, each of another trial.
EXAMPLES = 3
#: A message longer than this is a log, not a cause.
LONGEST = 300
#: Reasons of lost slices, as blocks and steering give them.
REASONS = {
    "walltime": "its block ended at its walltime before a checkpoint was done",
    "died": "its block died",
    "worker": "its worker died",
    "steering": "the steering process died",
    "stopped": "its block was cancelled",
    "released": "its block was released",
    "requeued": "its job was requeued",
    "pool-failed": "its node's worker pool failed",
}
#: What differs between two messages of one cause: addresses, hashes, numbers (also in host names).
_VARIABLE = re.compile(
    r"0x[0-9a-fA-F]+"
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b"
    r"|(?:(?<![\w)])[-+])?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
)

Key = tuple[str, str, str]


@dataclass
class FailureGroup:
    """Slices that failed, or were lost, alike.

    Attributes:
        number: from 1, in the order in which the causes first appeared; it stays while a study
            goes on.
        end: "failed", by the payload's own error, or "lost", by its node, block or worker.
        kind: of the error, as ErrorInfo has it: exception, exit, timeout, lost, ...
        pattern: the message with its numbers as #, which all messages of the group have.
        slices: how many there are.
        trials: numbers of their trials.
        given_up: numbers of those that failed for good with it.
        hosts: host -> slices.
        first_at, last_at: when the first and the last of them ended, seconds since the epoch.
        wasted_s: worker-seconds whose work had to be done again.
        examples: (number of the trial, slice), the first ones, of a trial each.
    """

    end: str
    kind: str
    pattern: str
    number: int = 0
    slices: int = 0
    trials: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    hosts: Counter[str] = field(default_factory=Counter)
    first_at: float = float("inf")
    last_at: float = 0.0
    wasted_s: float = 0.0
    examples: list[tuple[int, SliceRecord]] = field(default_factory=list)
    _messages: set[str] = field(default_factory=set)

    @property
    def cause(self) -> str:
        """The message, where all are the same; else the pattern."""
        return next(iter(self._messages)) if len(self._messages) == 1 else self.pattern

    def plain(self) -> dict[str, Any]:
        """As JSON values; each example with the end of its log."""
        return {
            "group": self.number, "end": self.end, "kind": self.kind, "cause": self.cause,
            "slices": self.slices, "trials": self.trials, "given_up": self.given_up,
            "hosts": dict(self.hosts.most_common()), "first_at": self.first_at,
            "last_at": self.last_at, "lost_worker_seconds": self.wasted_s,
            "examples": [
                {"trial": number, "slice": record.number, "host": record.host,
                 "error": record.error, "log": record.log}
                for number, record in self.examples
            ],
        }  # fmt: skip

    def _add(self, trial: Trial, record: SliceRecord, message: str) -> None:
        self.slices += 1
        if not self.trials or self.trials[-1] != trial.id:
            self.trials.append(trial.id)
            if len(self.examples) < EXAMPLES:
                self.examples.append((trial.id, record))
        if trial.final and trial.loss is None and record is trial.slices[-1]:
            self.given_up.append(trial.id)
        if record.host is not None:
            self.hosts[record.host] += 1
        at = record.ended if record.ended is not None else record.submitted
        self.first_at, self.last_at = min(self.first_at, at), max(self.last_at, at)
        self.wasted_s += record.wasted_s
        if len(self._messages) < 2:
            self._messages.add(message)


def message_pattern(message: str) -> str:
    """A message without what differs from one occurrence to the next: numbers and the like are #.

    The idea is that of log templates (He et al., "Drain", ICWS 2017), of which the first step,
    masking by regular expressions, is enough for messages of exceptions.
    """
    return _VARIABLE.sub("#", message)


def failure_groups(state: StudyState) -> list[FailureGroup]:
    """Failed and lost slices by cause: those first that cost most trials, then most slices.

    Trials of a segment that was begun again are left out; so are segments whose inputs are
    missing, of which no trial begins (see results.segments).
    """
    groups: dict[Key, FailureGroup] = {}
    for _, trial in sorted(state.trials.items()):
        if trial.superseded:
            continue
        for record in _failed_slices(trial):
            end, kind, message = cause_of(record)
            key = (end, kind, message_pattern(message))
            group = groups.get(key)
            if group is None:
                group = groups[key] = FailureGroup(*key)
            group._add(trial, record, message)
    by_age = sorted(groups.values(), key=lambda g: g.first_at)
    for number, group in enumerate(by_age, start=1):
        group.number = number
    return sorted(by_age, key=lambda g: (-len(g.given_up), -g.slices))


def _failed_slices(trial: Trial) -> Iterator[SliceRecord]:
    for record in trial.slices:
        # One that paused has an error where its trial was given up for want of progress.
        given_up = record.end is SliceEnd.PAUSED and record.error is not None
        if record.end in (SliceEnd.FAILED, SliceEnd.LOST) or given_up:
            yield record


def cause_of(record: SliceRecord) -> Key:
    """(end, kind, message) of one slice that failed or was lost; the message is one line."""
    error = record.error or {}
    message = error.get("message") or REASONS.get(record.reason or "", record.reason) or ""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    end = "failed" if record.end is SliceEnd.FAILED else "lost"
    kind = error.get("kind") or ("lost" if end == "lost" else "error")
    return end, kind, lines[0][:LONGEST] if lines else "no message"
