"""The supervisor of one node of a block: tells the slices when to end, and cleans up.

It is what a block runs on each of its nodes, around Parsl's worker pool::

    python -m hpc_hpo.worker.block --dir STUDY --run 1 --block 0 --walltime 7200 ... -- POOL ARGS

- It knows the block's end (deadline.py) and hands it to the pool by ``HPC_HPO_BLOCK_END``: to the
  workers, and to Parsl's manager, whose registration carries it to the interchange.
- A stop request (a file in the study folder) and the scheduler's signals, its own or those that
  the job script got and left in a file, become one *notice*, a node-local file with a deadline
  and a reason. Workers look at that file only, so the shared file system is asked once a node,
  not once a worker.
- It ends the block at its walltime itself, which is all there is on site ``local``: TERM, and
  KILL after the grace, to every process below it.
- The warning that the scheduler sends ahead of an end that is known already changes nothing; an
  unexpected one means preemption. TERM leaves the slices a moment.
- A block that is not needed any more (a release file says so) ends at once.
- Whatever the pool leaves behind is killed; as a child subreaper the supervisor inherits
  processes whose parents died.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import SealedWriter, seal
from hpc_hpo.model import TASK_FILE
from hpc_hpo.worker.deadline import block_name, find_end, find_start
from hpc_hpo.worker.node import node_name

#: Linux prctl(2): orphaned descendants become this process's children.
PR_SET_CHILD_SUBREAPER = 36
#: Signals by which LSF and Slurm warn of the end, ask for it, or preempt.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
#: A stop request's slices may take this long to checkpoint, if the block lasts.
STOP_GRACE_S = 120.0
#: Slurm may send its warning this much earlier than asked (sbatch --signal); some slack with it.
WARNS_EARLY_S = 75.0
#: What a stop file says to the blocks of a dead steering process: nobody collects their results.
LEAVE = "leave"
#: Their slices get this long to checkpoint, in seconds.
LEAVE_GRACE_S = 3.0
#: How often the supervisor looks around, in seconds.
TICK_S = 0.2


def become_subreaper() -> None:
    """Inherit orphaned descendants, so that none escapes the clean-up."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants(grace_s: float, pool: int = 0) -> None:
    """TERM every process below this one, KILL after `grace_s` what is left; reap them.

    Args:
        pool: process id of the worker pool, which is deaf to TERM and killed at once.
    """
    children = psutil.Process().children(recursive=True)
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill() if process.pid == pool else process.terminate()
    end = time.monotonic() + grace_s
    while children and time.monotonic() < end:
        _, children = psutil.wait_procs(children, timeout=0.05)
    # Asked anew: a dying payload may have started others meanwhile.
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)


class Supervisor:
    """Runs one node's worker pool from the block's start to its end."""

    def __init__(self, options: argparse.Namespace, command: Sequence[str]) -> None:
        self.options = options
        self.command = list(command)
        self.block = block_name(options.block, os.environ)
        self.start = find_start(os.environ, time.time())
        self.end = find_end(os.environ, options.walltime, self.start)
        self.stop_file = Path(options.dir) / "control" / f"stop-r{options.run}"
        self.release_file = self.stop_file.with_name(f"release-r{options.run}-b{self.block}")
        self.signal_file = self.stop_file.with_name(f"signal-r{options.run}-b{options.block}")
        self.signal_read = ("", "")
        self.signalled: int | None = None
        self.notice_deadline: float | None = None
        self.notice_reason = ""
        self.scratch = Path(tempfile.mkdtemp(prefix="hpc-hpo-"))
        self.notice = self.scratch / "notice.json"
        name = f"block-r{options.run}-b{self.block}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self.spool = SealedWriter(Path(options.dir) / "spool" / name)
        self.next_look = 0.0

    def record(self, event: str, **facts: object) -> None:
        """Leave a line about this node for the steering process."""
        if self.options.lead:
            return  # no node of its own
        line = {"e": event, "run": self.options.run, "block": self.block}
        self.spool.append(seal({**line, "host": socket.gethostname(), "at": time.time(), **facts}))

    def warn_slices(self, reason: str, deadline: float) -> None:
        """Make the running slices checkpoint before `deadline`; the earliest notice holds."""
        if self.end is not None:
            deadline = min(deadline, self.end)
        if self.notice_deadline is not None and self.notice_deadline <= deadline:
            return
        self.notice_deadline, self.notice_reason = deadline, reason
        temporary = self.notice.with_suffix(".tmp")
        temporary.write_text(json.dumps({"deadline": deadline, "reason": reason}))
        os.replace(temporary, self.notice)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Only note the signal; the loop acts on it."""
        self.signalled = number

    def pool_environment(self) -> dict[str, str]:
        """What the workers learn about their block."""
        environment = dict(os.environ)
        environment["HPC_HPO_BLOCK"] = self.block
        environment["HPC_HPO_NOTICE"] = str(self.notice)
        environment["HPC_HPO_NODE"] = node_name(os.environ)
        environment["HPC_HPO_PAYLOADS"] = ",".join(self.payload_modules())
        if self.options.lead:
            environment["HPC_HPO_LEAD"] = "1"
        if self.end is not None:
            environment["HPC_HPO_BLOCK_END"] = repr(self.end)
        return environment

    def payload_modules(self) -> list[str]:
        """What the pool imports once for its workers, beyond what Python objectives need."""
        try:
            task = json.loads((Path(self.options.dir) / TASK_FILE).read_text())
        except (OSError, ValueError):
            return []  # workers import it then, each by itself
        if task.get("kind") != "python":
            return ["hpc_hpo.worker.payload_command"]
        return ["hpc_hpo.worker.payload_ranks"] if self.options.lead else []

    def run(self) -> int:
        """Supervise until the pool has ended; its exit status, or 0 at a planned end."""
        become_subreaper()
        for number in WARNINGS:
            signal.signal(number, self.on_signal)
        # A session of its own: the scheduler's signals reach the pool through us, in order.
        environment = self.pool_environment()
        pool = subprocess.Popen(self.command, env=environment, start_new_session=True)
        self.record("node-start", workers=self.options.workers, deadline=self.end, pid=os.getpid())
        reason = "ended"
        try:
            while pool.poll() is None:
                reason = self.look_around()
                if reason != "ended":
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pool.wait(TICK_S)
            if pool.returncode not in (None, 0):
                reason = "pool-failed"
        finally:
            # At a walltime the block's resources are gone at this moment, not after the grace.
            # On a full disk the scheduler's word has to do; the clean-up comes in any case.
            with contextlib.suppress(StorageError):
                self.record("node-end", reason=reason, status=pool.returncode)
            kill_descendants(self.options.kill_grace, pool.pid)
            shutil.rmtree(self.scratch, ignore_errors=True)
        return pool.returncode if reason == "pool-failed" else 0

    def look_around(self) -> str:
        """Act on what happened; the reason to end the block now, or "ended" to go on."""
        now = time.time()
        if now >= self.next_look:
            self.next_look = now + self.options.poll
            if self.release_file.exists():
                return "released"
            if self.stop_file.exists():
                leave = self.stop_file.read_text() == LEAVE
                self.warn_slices("stop", now + (LEAVE_GRACE_S if leave else STOP_GRACE_S))
            self.read_signal_file()
        if self.signalled is not None:
            number, self.signalled = self.signalled, None
            final = number in (signal.SIGTERM, signal.SIGINT)
            if final and self.release_file.exists():
                return "released"
            if final:
                self.warn_slices("preempted", now + self.options.term_grace)
            elif not self.expects_warning(now):
                self.warn_slices("preempted", now + self.options.warn_grace)
        if self.end is not None and now >= self.end and self.options.enforce:
            return "walltime"
        if self.notice_deadline is not None and now >= self.notice_deadline:
            return self.notice_reason
        return "ended"

    def expects_warning(self, now: float) -> bool:
        """Whether a warning at this time is that of the end which is known."""
        return self.end is not None and self.end - now <= self.options.warn_grace + WARNS_EARLY_S

    def read_signal_file(self) -> None:
        """Take a signal that reached the job script as if it had come here."""
        try:
            name, _, at = self.signal_file.read_text().strip().partition(" ")
        except FileNotFoundError:
            return
        # A requeued job finds what its former life was sent.
        if (name, at) != self.signal_read and at.isdigit() and int(at) >= int(self.start):
            self.signal_read = (name, at)
            self.signalled = signal.Signals[f"SIG{name}"]


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the supervisor's own options from the pool's command after ``--``."""
    parser = argparse.ArgumentParser(prog="hpc_hpo.worker.block", description=__doc__)
    parser.add_argument("--dir", required=True, help="study folder")
    parser.add_argument("--run", type=int, required=True, help="steering run")
    parser.add_argument("--block", required=True, help="block id")
    parser.add_argument("--workers", type=int, required=True, help="workers on this node")
    parser.add_argument(
        "--lead", action="store_true", help="the block's lead, which starts steps over its nodes"
    )
    parser.add_argument("--walltime", type=float, default=0.0, help="seconds; 0 = none known")
    parser.add_argument("--enforce", action="store_true", help="end the block at its walltime")
    parser.add_argument("--kill-grace", type=float, default=1.0, help="seconds TERM to KILL")
    parser.add_argument("--term-grace", type=float, default=1.0, help="seconds left after a TERM")
    parser.add_argument(
        "--warn-grace", type=float, default=60.0,
        help="... after a warning; also how long before a known end one is expected",
    )  # fmt: skip
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between stop-file looks")
    split = list(arguments).index("--")
    return parser.parse_args(list(arguments)[:split]), list(arguments)[split + 1 :]


def main() -> int:
    """Entry point of ``python -m hpc_hpo.worker.block``."""
    options, command = parse(sys.argv[1:])
    return Supervisor(options, command).run()


if __name__ == "__main__":
    sys.exit(main())
