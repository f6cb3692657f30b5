"""When a slice saves its trial, and how long ahead of its deadline it begins to stop.

Pure. The steering loop knows what slices of the study have shown; the slice itself soon knows its
own steps, which a study of fast and slow trials does not tell of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_hpo.model import Pace, Usual

#: How much more than the step and the checkpoint to be expected is kept free before a deadline.
SAFETY = 1.5
#: ... and at least so much more than the slice's own longest ones, and a bit of time.
_OWN_SAFETY, _OWN_FLOOR_S = 1.25, 0.2
#: After so many steps a slice's own mean counts in place of the study's.
ENOUGH = 3


#: Time between checkpoints where the user names none, and the share of a trial's time that they
#: take at most: a checkpoint guards against a lost node alone, which is rare.
EVERY_S, SHARE = 300.0, 0.01


def interval(every_s: float | None, checkpoint_s: float) -> float:
    """Seconds from one checkpoint to the next.

    Args:
        every_s: as the user has it; None = by what one takes.
        checkpoint_s: the longest so far.
    """
    return max(EVERY_S, checkpoint_s / SHARE) if every_s is None else every_s


@dataclass
class Steps:
    """A slice's own steps: the times between two calls of should_stop(), in seconds."""

    longest_s: float = 0.0
    total_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.longest_s = max(self.longest_s, seconds)
        self.total_s += seconds
        self.count += 1

    @property
    def mean_s(self) -> float | None:
        """Their mean; None while there are too few to tell."""
        return self.total_s / self.count if self.count >= ENOUGH else None

    def pace(self) -> Pace:
        """What the steering loop is told of them."""
        pace = Pace()
        if self.longest_s > 0:
            pace["step_s"] = self.longest_s
            if self.mean_s is not None:
                pace["mean_step_s"] = self.mean_s
        return pace


#: Of a payload whose steps are not seen.
NONE = Steps()


def usual_margin(floor_s: float, step_s: float, checkpoint_s: float) -> float:
    """The margin for a step and a checkpoint to be expected, in seconds."""
    return max(floor_s, SAFETY * (step_s + checkpoint_s))


def margin(margin_s: float, usual: Usual | None, steps: Steps, checkpoint_s: float) -> float:
    """Seconds ahead of the deadline at which a slice has to begin to stop.

    Args:
        margin_s: for a slice that does not know its own steps.
        usual: of the study's slices; None = nothing but `margin_s` is known.
        steps: of this slice so far.
        checkpoint_s: its longest checkpoint so far.
    """
    told = margin_s
    if usual is not None and steps.mean_s is not None:
        told = usual_margin(usual["floor_s"], steps.mean_s * usual["spread"], usual["checkpoint_s"])
    return max(told, _OWN_SAFETY * (steps.longest_s + checkpoint_s) + _OWN_FLOOR_S)
