"""The payload process of one rank of a Python objective."""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import socket
import sys
from typing import Any

from hpc_hpo.errors import CheckpointError
from hpc_hpo.model import ErrorInfo, SliceEnd, SliceOutcome
from hpc_hpo.worker.channel import Channel, ChannelClosed
from hpc_hpo.worker.context import TrialContext
from hpc_hpo.worker.objective import describe_error
from hpc_hpo.worker.rank_context import RankContext
from hpc_hpo.worker.runner import Runner


class RankRunner(Runner):
    """Runs one slice as one rank of it."""

    def __init__(self, channel: Channel, comm: Any, timeout_s: float) -> None:
        super().__init__(channel)
        self._line = channel
        # A user's messages and ours never meet.
        self._world = comm.Dup()
        self.context = functools.partial(
            RankContext, world=self._world, comm=comm, timeout_s=timeout_s, waiting=self._wait
        )

    def _wait(self) -> None:
        self._line.send({"waiting": True})

    def agree(self, outcome: SliceOutcome, trial: TrialContext) -> SliceOutcome:
        """Rank 0's outcome once all ranks have ended alike.

        A rank that failed says so and does not come here any more: the others may wait for it in
        a call of their own.
        """
        assert isinstance(trial, RankContext)
        if outcome["end"] == SliceEnd.FAILED.value:
            fail(self._line, outcome["error"])
        trial.meet()
        ends = self._world.allgather(outcome["end"])
        if len(set(ends)) > 1:
            listed = ", ".join(f"{rank}: {end}" for rank, end in enumerate(ends))
            return SliceOutcome(
                end=SliceEnd.FAILED.value, loss=None,
                error=ErrorInfo(
                    kind="output", message=f"the ranks ended differently ({listed}); should_stop() "
                    "is true on all of them in the same step, and then all return None",
                ),
            )  # fmt: skip
        return outcome


def fail(line: Channel, error: ErrorInfo) -> None:
    """Tell of a failure and end this process; the worker ends the other ranks."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    line.send({"failed": error})
    # Not sys.exit: MPI_Finalize would wait for the others.
    os._exit(1)


def main(channel_fd: str, size: str, stack_fd: str) -> None:
    """Run one slice over the socket `channel_fd` as one of `size` ranks.

    On SIGQUIT it writes where it stands to the file `stack_fd`, in the midst of an MPI call, too.
    """
    faulthandler.enable()
    faulthandler.register(signal.SIGQUIT, file=int(stack_fd), all_threads=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    line = Channel(socket.socket(fileno=int(channel_fd)))
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        fail(line, describe_error("launch", error))
        return
    comm, ranks = MPI.COMM_WORLD, int(size)
    if comm.Get_size() != ranks:
        fail(line, ErrorInfo(kind="launch", message=_worlds(comm.Get_size(), ranks)))
    # Rank 0 alone is told the point, and tells the others: they cannot differ.
    job = line.receive() if comm.Get_rank() == 0 else None
    job = comm.bcast(job)
    assert job is not None
    runner = RankRunner(line, comm, job["task"].get("rank_timeout_s", 60.0))
    try:
        outcome = runner.run(job)
    except (OSError, CheckpointError) as error:
        info = describe_error("storage", error)
        info["transient"] = True
        fail(line, info)
        return
    except ChannelClosed:
        os._exit(1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if comm.Get_rank() == 0:
        line.send({"outcome": outcome})


def _worlds(size: int, ranks: int) -> str:
    return (
        f"the launcher formed MPI worlds of {size}, not one of {ranks}: mpi4py's MPI library and "
        "the launcher do not understand each other (the site's `mpi`, as in srun --mpi=...)"
    )
