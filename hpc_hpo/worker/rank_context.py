"""What each rank's objective sees of a trial of several ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from hpc_hpo.errors import CheckpointError
from hpc_hpo.worker.checkpoint import STATE
from hpc_hpo.worker.context import REDUCTIONS, TrialContext, copy_files
from hpc_hpo.worker.fence import Fenced

#: In a checkpoint, the folder of the ranks' own states.
PARTS = "parts"
#: Ranks wait this many times their longest step for one that does not come, at least.
_STEPS = 10.0
#: Waits between two looks at a collective call under way: the first and the longest, in seconds.
_WAIT_S = (2e-5, 2e-3)


def part_name(rank: int) -> str:
    """The file of a rank's state in a checkpoint."""
    return f"{PARTS}/rank-{rank:06d}.h5"


class RankContext(TrialContext):
    """A TrialContext whose decisions are rank 0's, the same on all ranks in the same step.

    `should_stop`, `should_checkpoint`, `checkpoint`, `restore` and `reduce` are collective: all
    ranks call them, in the same order.

    Args:
        world: a communicator of the trial's ranks, for these calls alone.
        comm: the objective's own communicator of the same ranks.
        timeout_s: how long ranks wait for one that does not come.
        waiting: called once when that time is over; the worker then ends the slice.
        rest: as of TrialContext.
    """

    def __init__(
        self, *, world: Any, comm: Any, timeout_s: float, waiting: Callable[[], None], **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._world, self._comm = world, comm
        self._timeout_s, self._waiting = timeout_s, waiting
        self._told = False

    @property
    def rank(self) -> int:
        return int(self._comm.Get_rank())

    @property
    def size(self) -> int:
        return int(self._comm.Get_size())

    @property
    def comm(self) -> Any:
        return self._comm

    def meet(self) -> None:
        """Wait until all ranks are here; tell the worker when one does not come."""
        request, wait = self._world.Ibarrier(), _WAIT_S[0]
        begun = time.monotonic()
        limit = max(self._timeout_s, _STEPS * self._steps.longest_s)
        while not request.Test():
            if not self._told and time.monotonic() - begun > limit:
                self._told = True
                self._waiting()
            time.sleep(wait)
            wait = min(2 * wait, _WAIT_S[1])

    def share(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        self.meet()
        return self._world.bcast(value)

    def reduce(self, value: float, how: str = "mean") -> float:
        super().reduce(value, how)
        self.meet()
        values = self._world.allgather(float(value))
        made: dict[str, Callable[[list[float]], float]] = {
            "mean": lambda v: sum(v) / len(v), "sum": sum, "min": min, "max": max,
        }  # fmt: skip
        assert set(made) == set(REDUCTIONS)
        return made[how](values)

    def should_checkpoint(self) -> bool:
        due = super().should_checkpoint()
        # should_stop() inside it has agreed already; the age is each rank's own.
        return self._stop is not None or bool(self.share(due))

    def _find_stop(self, now: float) -> str | None:
        mine = super()._find_stop(now) if self.rank == 0 else None
        reason, self._deadline = self.share((mine, self._deadline))
        return None if reason is None else str(reason)

    def restore(self) -> dict[str, Any] | None:
        from hpc_hpo.worker.state import read_state

        saved = self._restored
        if saved is None or not (saved.folder / PARTS).is_dir():
            return super().restore()
        self._take_reports(saved)
        there = len(list((saved.folder / PARTS).iterdir()))
        if there != self.size:
            raise CheckpointError(
                f"{saved.folder}: written by {there} ranks, this slice has {self.size}"
            )
        return read_state(saved.folder / part_name(self.rank))

    def checkpoint(
        self,
        state: dict[str, Any] | None,
        files: tuple[str | PathLike[str], ...] = (),
        *,
        parts: bool = False,
    ) -> None:
        """See TrialContext.checkpoint; collective. All parts are committed as one, or none is.

        Args:
            state: of rank 0; with `parts`, each rank's own.
            files: of rank 0.
            parts: every rank's state is kept, and `restore` gives each its own.

        Raises:
            CheckpointError, OSError: on all ranks, when any of them could not write.
        """
        from hpc_hpo.worker.state import write_state

        def write(folder: Path) -> None:
            """This rank's share of the checkpoint."""
            if parts and state is not None:
                write_state(folder / part_name(self.rank), state)
            elif state is not None and self.rank == 0:
                write_state(folder / STATE, state)
            if files and self.rank == 0:
                copy_files([Path(file) for file in files], folder / "files")

        def together(folder: Path | None) -> None:
            """All ranks write into one folder; an error of one is raised on all."""
            folder = self.share(folder)
            error: BaseException | None = None
            try:
                if folder is not None:
                    write(folder)
            except (OSError, CheckpointError) as caught:
                error = caught
            self.meet()
            errors = [e for e in self._world.allgather(error) if e is not None]
            if errors:
                raise errors[0]

        begun = False

        def build(folder: Path) -> None:
            nonlocal begun
            begun = True
            if parts:
                (folder / PARTS).mkdir()
            together(folder)

        failure: BaseException | None = None
        try:
            if self.rank == 0:
                self._commit(build)
            else:
                together(None)
        except (OSError, CheckpointError, Fenced) as error:
            failure = error
            if self.rank == 0 and not begun:
                # The others are on their way to write.
                with contextlib.suppress(CheckpointError):
                    together(None)
        # Rank 0's word is the last: it has committed, or it has not.
        failure = self.share(failure)
        if failure is not None:
            self.fenced = isinstance(failure, Fenced)
            raise failure
        self._store.last_at = self._clock.now()
