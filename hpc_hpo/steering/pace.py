"""What the steering loop learns about the speed of trials, to place slices before deadlines.

Pure bookkeeping: outcomes in, seconds out.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque

from hpc_hpo.model import SliceOutcome, Trial, Usual
from hpc_hpo.worker.margin import usual_margin

#: Of the steps of recent slices, this share is no longer than what is reckoned with: the slowest
#: trial of thousands is not to have all others stop early. Slices that know their own steps go
#: by those (worker.margin).
QUANTILE = 0.95
#: Slices that count as recent.
RECENT = 500
#: New slices may begin to be queued ahead for this many seconds of work.
LOOKAHEAD_S = 0.25
#: ... but never more than this many for each worker.
LOOKAHEAD_MAX = 32


class Recent:
    """The last `RECENT` of a series of numbers, and their quantile."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """One more; the oldest one may go."""
        if len(self._order) == RECENT:
            self._sorted.remove(self._order.popleft())
        self._order.append(value)
        insort(self._sorted, value)

    def quantile(self, empty: float) -> float:
        """The smallest number that `QUANTILE` of them do not pass; `empty` where there is none."""
        if not self._sorted:
            return empty
        return self._sorted[math.ceil(QUANTILE * len(self._sorted)) - 1]


class Pace:
    """Learned times of one study, in seconds.

    Args:
        floor_s: the site's smallest margin before a deadline.
        expected_s: the user's guess of a whole trial; None = unknown.
        block_s: walltime of a block; None = without end.
    """

    def __init__(self, floor_s: float, expected_s: float | None, block_s: float | None) -> None:
        self._floor_s = floor_s
        self._expected_s = expected_s
        self._block_s = block_s
        self._checkpoint_s = 0.0
        self._steps, self._spreads = Recent(), Recent()
        self._first_checkpoint_s = 0.0
        self._checkpoints = False
        self._longest_s: float | None = None
        self._mean_slice_s: float | None = None

    def learn(self, outcome: SliceOutcome, spent_s: float) -> None:
        """Take in a slice's end.

        Args:
            outcome: what the worker wrote.
            spent_s: payload seconds of the trial so far, this slice included.
        """
        pace = outcome.get("pace") or {}
        self._checkpoint_s = max(self._checkpoint_s, pace.get("checkpoint_s", 0.0))
        if "step_s" in pace:
            self._steps.add(pace["step_s"])
            if mean := pace.get("mean_step_s"):
                self._spreads.add(pace["step_s"] / mean)
        self._first_checkpoint_s = max(
            self._first_checkpoint_s, pace.get("first_checkpoint_s", 0.0)
        )
        # A slice that completed leaves no checkpoint to go on from; that it wrote some is told
        # by the time they took.
        if outcome.get("checkpoint") or "checkpoint_s" in pace:
            self._checkpoints = True
        if "started" in outcome and "ended" in outcome:
            length = max(0.0, outcome["ended"] - outcome["started"])
            mean_s = self._mean_slice_s
            self._mean_slice_s = length if mean_s is None else 0.9 * mean_s + 0.1 * length
        if outcome["end"] == "completed":
            self._longest_s = max(self._longest_s or 0.0, spent_s)

    @property
    def _step_s(self) -> float:
        return self._steps.quantile(0.0)

    def margin_s(self) -> float:
        """How long before its deadline a slice of unknown speed is asked to checkpoint."""
        return usual_margin(self._floor_s, self._step_s, self._checkpoint_s)

    def usual(self) -> Usual | None:
        """What a slice needs to know to find its own margin; None while nothing is known."""
        spread = self._spreads.quantile(0.0)
        if not spread:
            return None
        return Usual(
            floor_s=self._floor_s, checkpoint_s=round(self._checkpoint_s, 3),
            spread=round(spread, 3),
        )  # fmt: skip

    def needs_s(self, trial: Trial) -> float:
        """The least time a block must have left for a slice of `trial` to be of use.

        A trial that checkpoints needs to reach its next checkpoint; one that does not must
        reach its end, as far as its length is known. Never more than a fresh block offers, or
        the trial would wait for ever.
        """
        margin = self.margin_s()
        if self._checkpoints:
            needs = margin + max(self._step_s, min(self._first_checkpoint_s, margin))
        else:
            whole = self._longest_s if self._longest_s is not None else self._expected_s
            needs = self._floor_s + max(0.0, (whole or 0.0) - trial.spent_s)
        if self._block_s is not None:
            needs = min(needs, 0.75 * self._block_s)
        return needs

    def lookahead(self) -> int:
        """Slices to keep queued for each worker beyond the one it runs.

        None for slices of a second or more, where a point asked later knows more; some for
        slices so short that the way to the worker and back would leave it idle.
        """
        if self._mean_slice_s is None or self._mean_slice_s > LOOKAHEAD_S:
            return 0
        return min(LOOKAHEAD_MAX, int(LOOKAHEAD_S / max(self._mean_slice_s, 1e-3)))
