"""Python objectives of several ranks: the worker's side."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from hpc_hpo.model import ErrorInfo, SliceEnd, SliceOutcome
from hpc_hpo.worker.job import SliceJob, base_environment
from hpc_hpo.worker.process import end_session, start
from hpc_hpo.worker.rank_server import RankServer

_TICK_S = 0.1
_OURS = str(Path(__file__).resolve().parents[1])
#: A launcher that has started no rank after so long is given up; a step may have to wait for one
#: that is just ending.
_START_S = 120.0
#: After the first sign of a failure, the others' are waited for so long: the first is the cause.
_GATHER_S = 0.3
#: Ranks that are asked where they stand get this long to say so, in seconds.
_STACK_S = 1.0
#: So many of them are asked.
_STACKS = 64
#: The ranks get this long to end their MPI after the outcome, in seconds.
_FINALIZE_S = 3.0
#: The launcher gets this long to end its ranks after a failure, in seconds.
_END_S = 1.0


def run_ranks(job: SliceJob) -> SliceOutcome:
    """Run one slice of a Python objective on several ranks.

    Raises:
        OSError: the trial's folder cannot be written, or the launcher cannot be started.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    environment = base_environment(job)
    try:
        server = RankServer(job, job.folder, environment=environment)
    except ValueError as error:
        return job.failed("launch", str(error))
    try:
        process = start(server.launch, cwd=None, env=environment, log_fd=job.log.fd)
    except OSError as error:
        server.close()
        return job.failed("launch", f"{server.launch[0]}: cannot be started: {error.strerror}")
    try:
        outcome = _Attendant(job, server, process).attend()
        if outcome["end"] in (SliceEnd.COMPLETED.value, SliceEnd.PAUSED.value):
            # The ranks end their MPI by themselves; no further than the deadline.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_FINALIZE_S)
    finally:
        # Hung up first: keepers on other nodes end their ranks, whatever the launcher does.
        server.close()
        end_session(process, _END_S)
    if "error" in outcome:
        outcome["error"].setdefault("log_tail", job.log_tail())
    return outcome


class _Attendant:
    """Waits for the ranks: passes on stop requests and enforces the time limits."""

    def __init__(self, job: SliceJob, server: RankServer, process: subprocess.Popen[bytes]) -> None:
        self.job, self.server, self.process = job, server, process
        self.waiting: set[int] = set()
        self.stacks: dict[int, str] = {}
        self.told: object = None
        self.begun = job.clock.now()

    def attend(self) -> SliceOutcome:
        """The outcome of the slice."""
        while True:
            outcome = self._hear(_TICK_S)
            if outcome is not None:
                return outcome
            if self.server.failures or self.waiting or self.process.poll() is not None:
                return self._failed()
            late = self._too_late()
            if late is not None:
                return late
            stop = self.job.watch.look()
            if stop is not None and stop != self.told and 0 in self.server.channels:
                self.server.send({"stop": stop.reason, "deadline": stop.deadline}, rank=0)
                self.told = stop

    def _hear(self, seconds: float) -> SliceOutcome | None:
        for rank, message in self.server.pump(seconds):
            if "hello" in message and rank == 0:
                self.server.send(
                    {
                        "request": self.job.request,
                        "task": self.job.task,
                        "folder": str(self.job.folder),
                        "lineage": self.job.lineage,
                        "deadline": self.job.watch.deadline,
                    },
                    rank=0,
                )
            elif "waiting" in message:
                self.waiting.add(rank)
            elif "stack" in message:
                self.stacks[rank] = _frames(message["stack"])
            elif "outcome" in message:
                return cast(SliceOutcome, message["outcome"])
        return None

    def _too_late(self) -> SliceOutcome | None:
        job, ranks = self.job, self.job.shape.ranks
        if job.past_timeout():
            outcome = job.timed_out()
            outcome["error"]["traceback"] = self._where(range(ranks))
            return outcome
        if job.past_last_call():
            return job.lost(
                "the ranks were still running at the deadline; to go on later all of them have to "
                "call trial.should_stop() often enough, checkpoint, and return None"
            )
        if self.server.present < ranks and job.clock.now() - self.begun > _START_S:
            return self._transient(f"{self.server.present} of {ranks} ranks had started after "
                                   f"{_START_S:.0f} s")  # fmt: skip
        return None

    def _transient(self, message: str) -> SliceOutcome:
        error = ErrorInfo(kind="launch", message=message, transient=True)
        return SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=error)

    def _failed(self) -> SliceOutcome:
        """A rank failed, does not come, or the launcher ended: find out what was first."""
        end = self.job.clock.now() + _GATHER_S
        while self.job.clock.now() < end:
            outcome = self._hear(0.05)
            if outcome is not None and not self.server.failures:
                return outcome
        job, code = self.job, self.process.poll()
        if job.watch.ending(job.request.get("margin_s", 0.0)) and not self._own_error():
            return job.lost("the ranks were ended as the block ended")
        error = self.server.first_failure()
        if error is not None:
            return SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=error)
        if self.waiting:
            missing = sorted(set(range(job.shape.ranks)) - self.waiting)
            outcome = job.failed(
                "hang",
                f"rank {_listed(missing)} of {job.shape.ranks} did not come to trial.should_stop() "
                f"within {job.task.get('rank_timeout_s', 60.0):g} s of the others",
            )
            outcome["error"]["traceback"] = self._where(missing)
            return outcome
        if self.server.present == 0:
            name = self.server.launch[0]
            return job.failed("launch", f"{name} ended with status {code} and started no rank")
        return job.died(code if code is not None else 1)

    def _where(self, ranks: Iterable[int]) -> str:
        """Where ranks stand, those that stand at the same place together."""
        asked = [rank for rank in ranks if rank in self.server.channels][:_STACKS]
        for rank in asked:
            self.server.send({"stack": True}, rank)
        end = self.job.clock.now() + _STACK_S
        while self.stacks.keys() < set(asked) and self.job.clock.now() < end:
            self._hear(0.05)
        places: dict[str, list[int]] = {}
        for rank, stack in sorted(self.stacks.items()):
            places.setdefault(stack, []).append(rank)
        return "\n".join(
            f"rank {_listed(there)} (most recent call first):\n{stack}"
            for stack, there in places.items()
        )

    def _own_error(self) -> bool:
        """Whether a rank told of an exception, which is never the block's end."""
        return any("traceback" in error for _, error in self.server.failures)


def _listed(ranks: list[int]) -> str:
    """0, 1, 2 ..."""
    return ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")


def _frames(stack: str) -> str:
    """A stack as faulthandler writes it, without the frames of this package."""
    lines = [line for line in stack.splitlines() if line.startswith("  File ")]
    return "\n".join(line for line in lines if not line.startswith(f'  File "{_OURS}'))
