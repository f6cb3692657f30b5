"""What the steering loop asks of a fidelity policy, and what it tells it.

A policy is a function of the calls made so far, which the journal can repeat: `begun`, `reached`,
`went_on` and `ended` change it; `ripe` and `condemned` only look. Losses are to be minimised.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Standing(NamedTuple):
    """How a trial stands at the rung at which it has paused."""

    trial: int
    step: int  #: the step it has reported last
    loss: float  #: there; infinity where it reported none
    best: float  #: the least of all its steps so far
    mean: float  #: of all its steps so far


class Policy(Protocol):
    """Decides for the trials of one segment."""

    def begun(self, trial: int, step: int = 0) -> int | None:
        """A trial was asked, which goes on from a step that another has reached, or from 0; the
        step at which its first slice is to pause, None: at none."""

    def reached(self, standing: Standing) -> bool:
        """A trial has paused at its rung; whether it may go on at once."""

    def ripe(self) -> tuple[int, int | None] | None:
        """A trial that is to go on now, and the step at which it pauses next; None: nobody."""

    def went_on(self, trial: int) -> None:
        """A trial that had paused has a further slice."""

    def condemned(self) -> int | None:
        """A paused trial that is to be stopped for good; None: nobody."""

    def ended(self, trial: int) -> None:
        """A trial is final, however it ended."""

    def last_resort(self) -> tuple[int, int | None] | None:
        """Whom to send on where nobody is ripe, nothing is left to ask, and no trial completed."""

    @property
    def waiting(self) -> list[int]:
        """Trials that have paused at a rung and are neither on nor ended."""
