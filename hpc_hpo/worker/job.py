"""One slice to be run: all that its payload needs, and endings both kinds of payload share."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_hpo.clock import Clock
from hpc_hpo.model import (
    ErrorInfo,
    Pace,
    Shape,
    SliceEnd,
    SliceOutcome,
    SliceRequest,
    TaskSpec,
)
from hpc_hpo.worker.checkpoint import Saved, newest_of
from hpc_hpo.worker.local_inputs import environment_folder
from hpc_hpo.worker.log import LogFile
from hpc_hpo.worker.node import Node, Watch, own_addresses
from hpc_hpo.worker.node_local import environment_of
from hpc_hpo.worker.offline import guard_spec, guarded
from hpc_hpo.worker.place import bind, hardware_threads, outside_worlds, shape_of, share_variables
from hpc_hpo.worker.process import start

if TYPE_CHECKING:
    from hpc_hpo.worker.gate import Gate

#: The hardware threads that the worker itself was given.
ALLOWED = frozenset(os.sched_getaffinity(0))
#: A payload that has not paused this long before the deadline is killed, which leaves the time
#: to write its outcome.
LAST_CALL_S = 0.15
#: How long a payload's death by TERM or KILL waits for a sign that the whole block is ending.
_CONFIRM_S = 0.3
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT)


@dataclass
class SliceJob:
    """A slice that has claimed its trial and chosen its checkpoint."""

    request: SliceRequest
    task: TaskSpec
    watch: Watch
    log: LogFile
    log_start: int
    clock: Clock
    started: float
    restored: Saved | None
    lineage: list[str]

    @property
    def study(self) -> Path:
        """The study folder."""
        return Path(self.request["dir"])

    @property
    def folder(self) -> Path:
        """The trial's folder; it may not exist."""
        return trial_folder(self.request)

    @property
    def shape(self) -> Shape:
        """What the trial takes of the machine."""
        return shape_of(self.request)

    def bind(self, pid: int) -> None:
        """Bind a process to the cores of a slice of one rank, where cores are bound."""
        place = self.request.get("place")
        if place is not None and place.get("bind") and self.shape.ranks == 1:
            bind(pid, hardware_threads(place["nodes"][0][1], ALLOWED))

    @property
    def attempts_log(self) -> Path:
        """Where the guard writes down what the payload asked for on the network."""
        return (self.study / self.log.name).with_suffix(".network")

    def guard_spec(self) -> dict[str, object] | None:
        """What the payload's guard has to know; None when the network is not denied."""
        place = self.request.get("place")
        hosts = [str(node[0]) for node in place["nodes"]] if place is not None else []
        if self.shape.ranks > 1:
            # By these the ranks' keepers reach this worker.
            hosts += own_addresses()
        return guard_spec(self.task, os.environ, hosts, self.attempts_log)

    @property
    def timeout_at(self) -> float | None:
        """When the trial has used up its time, in seconds since the epoch; None: never."""
        limit = self.task.get("max_time_s")
        return None if limit is None else self.started + limit - self.request.get("spent_s", 0.0)

    @property
    def kill_grace_s(self) -> float:
        """Seconds from TERM to KILL."""
        return self.task.get("kill_grace_s", 10.0)

    def log_tail(self) -> str:
        """The end of what this slice has printed."""
        return self.log.tail(self.log_start)

    def past_timeout(self) -> bool:
        """True once the trial has used all of its time."""
        limit = self.timeout_at
        return limit is not None and self.clock.now() >= limit

    def past_last_call(self) -> bool:
        """True when the payload has to be killed for the deadline's sake."""
        deadline = self.watch.deadline
        return deadline is not None and self.clock.now() >= deadline - LAST_CALL_S

    def failed(self, kind: str, message: str, exit_code: int | None = None) -> SliceOutcome:
        """The payload's own error."""
        error = ErrorInfo(kind=kind, message=message, log_tail=self.log_tail())
        if exit_code is not None:
            error["exit_code"] = exit_code
        return SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=error)

    def lost(self, message: str) -> SliceOutcome:
        """The block or the worker ends under the payload."""
        stop = self.watch.stop
        return SliceOutcome(
            end=SliceEnd.LOST.value,
            loss=None,
            reason=stop.reason if stop is not None else "walltime",
            error=ErrorInfo(kind="lost", message=message, log_tail=self.log_tail()),
        )

    def timed_out(self) -> SliceOutcome:
        """The trial has used all of its time and was killed."""
        limit = self.task.get("max_time_s")
        return self.failed("timeout", f"the trial ran longer than its {limit:g} s and was killed")

    def died(self, code: int) -> SliceOutcome:
        """The payload's process ended by itself with a Popen returncode.

        A TERM or KILL that comes as the block ends is the block's, not the payload's failure.
        """
        # A shell reports the death of its command by signal n as status 128 + n.
        number = -code if code < 0 else code - 128
        name = signal_name(number)
        if number in _FROM_OUTSIDE:
            limit = time.monotonic() + _CONFIRM_S
            while True:
                if self.watch.ending(self.request.get("margin_s", 0.0)):
                    return self.lost(f"the process was ended by {name} as the block ended")
                if time.monotonic() >= limit:
                    break
                time.sleep(0.05)
        if code >= 0:
            return self.failed("exit", f"the process exited with status {code}", code)
        message = f"the process was killed by {name}"
        if -code == signal.SIGKILL:
            message += " (often: the node ran out of memory)"
        return self.failed("signal", message, code)

    def add_saved(self, outcome: SliceOutcome, saved: Saved | None = None) -> SliceOutcome:
        """Fill in what the newest checkpoint holds, where the payload could not tell itself."""
        saved = saved or newest_of(self.folder, self.request["slice"]) or self.restored
        outcome.setdefault("checkpoint", saved.info if saved is not None else None)
        reports = saved.reports if saved is not None else {}
        outcome.setdefault("reports", self.unknown(reports))
        return outcome

    def unknown(self, reports: dict[int, dict[str, float]]) -> list[list[object]]:
        """The reports that are not in the journal yet, by step."""
        known = self.request.get("known_step")
        return [[s, reports[s]] for s in sorted(reports) if known is None or s > known]


def stamp(
    outcome: SliceOutcome, request: SliceRequest, node: Node, started: float, ended: float
) -> SliceOutcome:
    """Fill in which slice this is the outcome of, where and when, and what is not set yet."""
    outcome["run"], outcome["trial"] = request["run"], request["trial"]
    outcome["slice"] = request["slice"]
    outcome["host"], outcome["block"], outcome["worker"] = node.host, node.block, node.worker
    outcome["started"], outcome["ended"] = started, ended
    if request.get("width", 1) != 1:
        outcome["width"] = request["width"]
    outcome.setdefault("loss", None)
    outcome.setdefault("reports", [])
    outcome.setdefault("pace", Pace())
    outcome.setdefault("checkpoint", None)
    outcome.setdefault("restored", None)
    return outcome


def trial_folder(request: SliceRequest) -> Path:
    """``<study>/trials/<id>``."""
    return Path(request["dir"], "trials", f"{request['trial']:06d}")


def signal_name(number: int) -> str:
    """SIGSEGV for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def base_environment(job: SliceJob) -> dict[str, str]:
    """The worker's environment with the study's variables, those of the slice's place, and what
    keeps it off the network."""
    given = job.task.get("env", {})
    own = environment_of(environment_folder(job.task), outside_worlds(os.environ))
    environment = {**own, **given}
    place = job.request.get("place")
    if place is not None and job.shape.ranks == 1:
        environment.update(share_variables(place, place["nodes"][0][2], job.shape, given))
    return guarded(environment, job.task, job.study, job.guard_spec())


#: Said in a log once, when a node cannot keep code that is not Python off the network.
UNGUARDED = (
    "this node gives no way to keep code that is not Python off the network; Python code is kept"
)
_said: list[str] = []


def start_payload(
    job: SliceJob,
    argv: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> tuple[subprocess.Popen[bytes], Gate | None]:
    """Start a payload, or what starts its ranks; under a gate where the network is denied.

    Ranks have none: they talk by whatever interfaces their MPI finds.

    Returns:
        The process, and the gate to close after it.

    Raises:
        OSError: it cannot be started.
    """
    spec = job.guard_spec()
    wanted = spec is not None and job.shape.ranks == 1
    gate: Gate | None = None
    if spec is not None and wanted:
        from hpc_hpo.worker import gate as gates  # for those who need it

        gate = gates.Gate(spec) if gates.usable() else None
    try:
        process = start(argv, cwd=cwd, env=env, log_fd=job.log.fd, pass_fds=pass_fds, gate=gate)
    except BaseException:
        if gate is not None:
            gate.close()
        raise
    if gate is not None and not gate.open():
        gate.close()
        gate = None
    if wanted and gate is None and not _said:
        _said.append(UNGUARDED)
        job.log.note(UNGUARDED)
    return process, gate
