"""Whether trials come on in a simulation: blocks that end before their first trial begins would be
asked for without end."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_hpo.simulate.clock import START
from hpc_hpo.simulate.draws import Draw
from hpc_hpo.study import Study
from hpc_hpo.units import format_duration

#: So many times what a trial takes, with all waits and its block, without any work is too long.
PATIENCE = 50


class Progress:
    """Ends a simulation in which no trial comes on.

    Args:
        trial_time: of a trial.
        waits: for a block, and for the first trial in it.

    Raises:
        InputError: no trial can ever begin in a block.
    """

    def __init__(self, study: Study, trial_time: Draw, waits: Sequence[Draw]) -> None:
        self._study = study
        start_up, walltime_s = waits[0], study.blocks.walltime
        if walltime_s is not None and start_up.kind == "constant" and start_up.mean >= walltime_s:
            raise study.problem(
                "blocks.walltime", "no trial can begin: the block ends with its start-up "
                f"({start_up.words()})", found=format_duration(walltime_s),
                valid=f"more than {start_up.words()}, or a shorter --start-up",
            )  # fmt: skip
        once_s = sum(time.mean for time in (trial_time, *waits)) + (walltime_s or 0.0)
        self._most_s = PATIENCE * once_s
        self._worked, self._moved_at = 0.0, START

    def check(self, worked: float, jobs: int, now: float) -> None:
        """Look at what was done so far.

        Args:
            worked: worker-seconds in slices whose work counted.

        Raises:
            InputError: nothing has come of a long time.
        """
        if worked > self._worked:
            self._worked, self._moved_at = worked, now
        elif now - self._moved_at > self._most_s:
            raise self._study.problem(
                "blocks",
                f"no trial has come on for {format_duration(self._most_s)} of simulated time, in "
                f"{jobs} jobs: a block is too short for a trial, or its nodes die too soon",
                found=self._study.blocks.words(),
            )
