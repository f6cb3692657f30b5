"""What happens to the cluster from outside: preemption, holds, other users, faults.

Tests cause these events by ``fake-lsf ACTION ...`` or through `fixture.FakeLsf`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fakes.lsf.commands import Answer, Usage
from tests.fakes.lsf.state import PEND, PSUSP, RUN, SSUSP, Job

if TYPE_CHECKING:
    from tests.fakes.lsf.daemon import Daemon

FAULTS = ("refuse", "down", "garbled", "empty", "hang")


@dataclass
class Fault:
    """What happens to the next calls of a command; `times` is None until it is cleared."""

    kind: str
    times: int | None


class Control:
    """The actions."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._faults: dict[str, Fault] = {}

    def act(self, argv: list[str]) -> Answer:
        """Do ``preempt ID``, ``hold ID``, ``release ID``, ``occupy NODES MINUTES``, ``jobs`` or
        ``fault COMMAND [KIND [TIMES]]``.

        Raises:
            Usage: it cannot be done, or not now.
        """
        action, *words = argv
        actions: dict[str, Callable[..., str]] = {
            "preempt": self._preempt,
            "hold": self._hold,
            "release": self._let_go,
            "occupy": self._occupy,
            "fault": self._fault,
            "jobs": lambda: json.dumps([job.summary() for job in self._daemon.jobs.values()]),
        }
        if action not in actions:
            raise Usage(f"fake-lsf: unknown action {action}; there are {', '.join(actions)}\n")
        return Answer(f"{actions[action](*words)}\n")

    def _job(self, text: str, *states: str) -> Job:
        job = self._daemon.jobs.get(int(text))
        if job is None or job.state not in states:
            state = "unknown" if job is None else job.state
            raise Usage(f"fake-lsf: job {text} is {state}, not {' or '.join(states)}\n")
        return job

    def _preempt(self, text: str) -> str:
        job = self._job(text, RUN, SSUSP)
        queue = self._daemon.cluster.queue(job.request.queue)
        if queue is None or not queue.preemptable:
            raise Usage(f"fake-lsf: jobs of queue {job.request.queue} are not preempted\n")
        self._daemon.runner.kill(job, "TERM_PREEMPT")
        return f"Job <{job.id}> is being preempted"

    def _hold(self, text: str) -> str:
        job = self._job(text, PEND, RUN)
        if job.state == RUN:
            self._daemon.runner.suspend(job)
            return f"Job <{job.id}> is stopped"
        job.state, job.pend_reason = PSUSP, "The job was suspended while pending"
        self._daemon.changed(job)
        return f"Job <{job.id}> is held"

    def _let_go(self, text: str) -> str:
        job = self._job(text, PSUSP, SSUSP)
        if job.state == SSUSP:
            self._daemon.runner.resume(job)
        else:
            job.state = PEND
            self._daemon.changed(job)
        return f"Job <{job.id}> is released"

    def _occupy(self, nodes: str, minutes: str) -> str:
        """Another user's job."""
        length = 60.0 * float(minutes)
        held = self._daemon.scheduler.occupy(int(nodes), self._daemon.clock.now() + length)
        if held is None:
            raise Usage(f"fake-lsf: {nodes} nodes are not free\n")

        async def leave() -> None:
            await asyncio.sleep(length / self._daemon.clock.speed)
            self._daemon.scheduler.leave(held)
            self._daemon.schedule()

        self._daemon.spawn(leave())
        return f"{nodes} nodes are taken"

    def _fault(self, command: str, kind: str = "", times: str = "") -> str:
        self._faults.pop(command, None)
        if not kind:
            return f"{command} works"
        if kind not in FAULTS:
            raise Usage(f"fake-lsf: unknown fault {kind}; there are {', '.join(FAULTS)}\n")
        self._faults[command] = Fault(kind, int(times) if times else None)
        return f"{command} is to fail: {kind}"

    def next_fault(self, command: str) -> str | None:
        """The kind of the fault that this call of the command meets."""
        fault = self._faults.get(command)
        if fault is None:
            return None
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self._faults[command]
        return fault.kind
