"""What a worker knows about the node and the block it runs in, and when it must stop."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpc_hpo.clock import Clock

#: Seconds a worker that was told to end gives its slice to pause: the worker pool sends KILL
#: one second after TERM (parsl, process_worker_pool.py).
TERM_ALLOWS_S = 0.8
#: The notice file is looked for at most this often.
LOOK_EVERY_S = 0.2


def node_name(environ: Mapping[str, str]) -> str:
    """This node by the name its launcher knows: slurmd's own, which a test cluster on one machine
    tells its nodes apart by, one that was set, or the host's."""
    return (
        environ.get("SLURMD_NODENAME") or environ.get("HPC_HPO_NODE") or socket.gethostname()
    )  # fmt: skip


def own_addresses() -> list[str]:
    """The IPv4 addresses by which other nodes may reach this one; loopback last."""
    import psutil  # not at the top: the processes of payloads import this module, too

    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    return sorted(dict.fromkeys(found or ["127.0.0.1"]), key=lambda a: a.startswith("127."))


class Stop(NamedTuple):
    """A request to end the running slice early."""

    reason: str  #: walltime, stop or preempted
    deadline: float | None  #: seconds since the epoch; None: the block's own end stands


@dataclass(frozen=True)
class Node:
    """Where this worker runs. Times are seconds since the epoch."""

    block: str
    worker: str
    host: str
    pid: int
    block_end: float | None = None
    notice: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Node:
        """Read what the block's supervisor and the worker pool have set."""
        end = environ.get("HPC_HPO_BLOCK_END")
        notice = environ.get("HPC_HPO_NOTICE")
        return cls(
            block=environ.get("HPC_HPO_BLOCK") or environ.get("PARSL_WORKER_BLOCK_ID") or "0",
            worker=environ.get("PARSL_WORKER_RANK") or "0",
            host=socket.gethostname(),
            pid=os.getpid(),
            block_end=float(end) if end else None,
            notice=Path(notice) if notice else None,
        )

    def stem(self, run: int) -> str:
        """The part of a file name that no other worker of any run uses.

        The worker's rank counts from 0 on each node, so the host is part of the name.
        """
        return "-".join(
            re.sub(r"[^A-Za-z0-9._]", "_", part)
            for part in (f"r{run}", f"b{self.block}", f"w{self.worker}", self.host, str(self.pid))
        )

    def read_notice(self) -> Stop | None:
        """The supervisor's notice, once there is one."""
        if self.notice is None:
            return None
        try:
            content = json.loads(self.notice.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # Half written: the next look sees all of it.
            return None
        deadline = content.get("deadline")
        return Stop(
            str(content.get("reason", "stop")), None if deadline is None else float(deadline)
        )


class Watch:
    """Looks out for what ends a running slice early.

    Args:
        node: whose block's end and notice count.
        clock: injected time.
        told_to_end: true once this worker got TERM or has lost its parent.
    """

    def __init__(
        self, node: Node, clock: Clock, told_to_end: Callable[[], bool] = lambda: False
    ) -> None:
        self._node, self._clock, self._told_to_end = node, clock, told_to_end
        self._next_look = 0.0
        self._told = False
        self._hasty = False
        self.deadline = node.block_end
        self.stop: Stop | None = None

    def look(self) -> Stop | None:
        """The stop request in force, if any; it stays in force."""
        now = self._clock.now()
        # Looked for even after the first: a preemption may shorten the time a stop has left.
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            notice = self._node.read_notice()
            if notice is not None:
                if self._hasty:
                    # The TERM was the scheduler's, to all processes; the supervisor knows better
                    # how long there is.
                    self._hasty, self.deadline = False, self._node.block_end
                self._take(notice)
        if not self._told and self._told_to_end():
            self._told = True
            if self.stop is None:
                self._hasty = True
                self._take(Stop("stop", now + TERM_ALLOWS_S))
        return self.stop

    def _take(self, stop: Stop) -> None:
        if stop.deadline is not None:
            self.deadline = (
                stop.deadline if self.deadline is None else min(self.deadline, stop.deadline)
            )
        # The first reason stands.
        reason = stop.reason if self.stop is None else self.stop.reason
        self.stop = Stop(reason, self.deadline)

    def ending(self, margin_s: float) -> bool:
        """True when the block is about to end, which is no failure of the payload."""
        if self.look() is not None:
            return True
        return self.deadline is not None and self._clock.now() >= self.deadline - margin_s
