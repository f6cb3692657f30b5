"""How a run of the steering loop ended, and what the shell is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc_hpo.errors import ExitCode
from hpc_hpo.journal import StudyState
from hpc_hpo.steering.loop import DONE_REASONS


@dataclass(frozen=True)
class Outcome:
    """How a steering run ended.

    Attributes:
        without_result: segments that were to have a best point and have none -> why.
        shown: how it went to show the runs elsewhere, for people; "" where nobody asked for it.
    """

    reason: str
    state: StudyState
    without_result: dict[str | None, str] = field(default_factory=dict)
    shown: str = ""

    @property
    def exit_code(self) -> int:
        """The exit status for the shell."""
        if self.reason not in DONE_REASONS:
            return ExitCode.WORK_LEFT
        if not self.state.trial_states["completed"]:
            return ExitCode.NO_RESULT
        return ExitCode.SOME_RESULTS if self.without_result else ExitCode.DONE
