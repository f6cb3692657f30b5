"""Jobs as real processes: environment, signals, walltime, preemption and requeue.

A job's script is a session of its own on the batch node (the first host on the plain flavour),
marked in its environment. The marker stands for the cgroup: all processes that inherited it are
the job's, whatever session they moved to. The steps of jsrun carry a second marker: a signal to
the job reaches them only through jsrun, and only the final SIGKILL reaches the compute nodes too.

Sources: LSF's documentation of RUNLIMIT (SIGUSR2, then SIGINT, SIGTERM, SIGKILL), of bkill (INT,
TERM, KILL) and of the job environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from tests.fakes.lsf.cluster import Cluster
from tests.fakes.lsf.state import DONE, EXIT, PEND, PSUSP, RUN, SSUSP, Clock, Job, reason_words

BATCH_NODE = "batch1"
JOB_MARK, STEP_MARK = "FAKE_LSF_JOB", "FAKE_LSF_STEP"
_RUN_LIMIT = (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_KILL = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
#: What a job does not inherit from the job that submitted it.
_OWN = (
    "LSB_",
    "LS_SUBCWD",
    "FAKE_HOST",
    "CSM_",
    "JSM_",
    "PMIX_",
    "OMPI_COMM_",
    "CUDA_VISIBLE_",
    STEP_MARK,
)


def marked_processes(name: str, value: str) -> dict[int, dict[str, str]]:
    """Environments, as they were at their start, of the processes in which `name` begins so."""
    found: dict[int, dict[str, str]] = {}
    sought = f"\0{name}={value}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # A process may end at any moment, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            raw = b"\0" + Path(entry.path, "environ").read_bytes()
            if sought in raw:
                pairs = raw.decode(errors="replace").split("\0")
                found[int(entry.name)] = dict(p.split("=", 1) for p in pairs if "=" in p)
    return found


def send(pids: Sequence[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Runner:
    """Starts, signals and ends jobs.

    Args:
        changed: called after each change of a job's state, so that others may start.
        release: called when a job gives its nodes back.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        folder: Path,
        changed: Callable[[Job], None],
        release: Callable[[Job], None],
    ) -> None:
        self.cluster, self.clock, self.folder = cluster, clock, folder
        self._changed, self._release = changed, release
        self._token = uuid.uuid4().hex
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._kills: dict[int, asyncio.Task[None]] = {}
        (folder / "spool").mkdir(exist_ok=True)

    def mark(self, job: Job) -> str:
        """What stands in the environment of every process of this run of the job."""
        return f"{self._token}.{job.id}.{job.runs}."

    def spool(self, job: Job) -> Path:
        """Keep a copy of the script: editing the file later does not change the job."""
        path = self.folder / "spool" / f"{job.id}.sh"
        body = job.request.script or f"#!/bin/sh\n{job.request.command}\n"
        path.write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def environment(self, job: Job) -> dict[str, str]:
        """The submission's environment with what LSF adds for the job."""
        assert job.allocation is not None
        request, hosts = job.request, job.allocation.slots
        # At Summit the batch node comes first in the list of hosts, with one slot.
        listed = {BATCH_NODE: 1, **hosts} if self.cluster.by_nodes else dict(hosts)
        lines = [host for host, slots in listed.items() for _ in range(slots)]
        hostfile = self.folder / "spool" / f"{job.id}.hosts"
        hostfile.write_text("".join(f"{line}\n" for line in lines))
        env = {k: v for k, v in job.env.items() if not k.startswith(_OWN)}
        env |= {
            JOB_MARK: self.mark(job),
            "FAKE_HOST": next(iter(listed)),
            "LSB_JOBID": str(job.id),
            "LSB_BATCH_JID": str(job.id),
            "LSB_JOBINDEX": "0",
            "LSB_JOBNAME": request.name,
            "LSB_QUEUE": request.queue,
            "LSB_PROJECT_NAME": request.project,
            "LSB_SUB_HOST": "login1",
            "LSB_HOSTS": " ".join(lines),
            "LSB_MCPU_HOSTS": " ".join(f"{host} {slots}" for host, slots in listed.items()),
            "LSB_DJOB_HOSTFILE": str(hostfile),
            "LSB_DJOB_NUMPROC": str(len(lines)),
            "LS_SUBCWD": job.cwd,
        }
        if job.runs > 1:
            env["LSB_RESTART"] = "Y"
        if self.cluster.by_nodes:
            env["CSM_ALLOCATION_ID"] = str(job.id)
        elif request.gpus_per_host:
            first = job.allocation.gpus[next(iter(hosts))]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, first))
        return env

    def start(self, job: Job) -> None:
        """Begin the job, whose allocation is made."""
        job.runs += 1
        job.state, job.started = RUN, self.clock.now()
        job.exit_code = job.reason = job.finished = job.ending = None
        hosts = " ".join(f"<{host}>" for host in (job.allocation.slots if job.allocation else ()))
        job.note(job.started, f"Dispatched {job.request.slots} Task(s) on Host(s) {hosts}")
        self._tasks[job.id] = asyncio.create_task(self._live(job))

    def _open(self, job: Job, name: str | None) -> IO[bytes]:
        """An output file, appended to as LSF does; lost output lands in the spool folder."""
        path = self.folder / "spool" / f"{job.id}.out"
        if name is not None:
            wanted = Path(job.cwd, name.replace("%J", str(job.id)))
            path = wanted if wanted.parent.is_dir() else path
        return open(path, "ab")

    async def _live(self, job: Job) -> None:
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self._open(job, job.request.output))
            errors = out
            if job.request.errors is not None:
                errors = stack.enter_context(self._open(job, job.request.errors))
            if not Path(job.cwd).is_dir():
                self._fail_start(job)
                return
            try:
                process = await asyncio.create_subprocess_exec(
                    str(self.folder / "spool" / f"{job.id}.sh"),
                    *job.request.arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    cwd=job.cwd,
                    env=self.environment(job),
                    start_new_session=True,
                )
            except OSError as error:
                # The shell would say that the script's interpreter cannot be run.
                errors.write(f"{error}\n".encode())
                self._finish(job, 127, out)
                return
            job.pid = process.pid
            job.note(self.clock.now(), f"Starting (Pid {process.pid})")
            self._changed(job)
            watch = asyncio.create_task(self._watch(job))
            code = await process.wait()
            watch.cancel()
            # The first process is the job: when it has ended, what is left of it is removed.
            send(list(marked_processes(JOB_MARK, self.mark(job))), signal.SIGKILL)
            self._finish(job, code if code >= 0 else 128 - code, out)

    async def _watch(self, job: Job) -> None:
        """Warn, then end the job at its walltime."""
        limit, request = job.limit, job.request
        if limit is None:
            return
        if request.warn_minutes is not None and request.warn_signal is not None:
            ahead = min(60.0 * request.warn_minutes, limit)
            await asyncio.sleep((limit - ahead) / self.clock.speed)
            self.signal(job, signal.Signals[f"SIG{request.warn_signal}"])
            limit = ahead
        await asyncio.sleep(limit / self.clock.speed)
        job.ending = job.ending or "TERM_RUNLIMIT"
        await self._send_all(job, _RUN_LIMIT)

    def signal(self, job: Job, number: int) -> None:
        """A signal to the job's processes on the batch node; SIGKILL reaches the others too."""
        found = marked_processes(JOB_MARK, self.mark(job))
        send([p for p, env in found.items() if number == 9 or STEP_MARK not in env], number)

    async def _send_all(self, job: Job, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.signal(job, number)
            await asyncio.sleep(self.cluster.grace)

    def kill(self, job: Job, reason: str) -> None:
        """Begin the kill sequence; the first reason stays."""
        if job.id in self._kills:
            return
        job.ending = job.ending or reason
        if job.state == SSUSP:
            self.resume(job)
        self._kills[job.id] = asyncio.create_task(self._send_all(job, _KILL))

    def suspend(self, job: Job) -> None:
        """Stop the running job's processes on all its nodes (SSUSP)."""
        job.state = SSUSP
        send(list(marked_processes(JOB_MARK, self.mark(job))), signal.SIGSTOP)
        self._changed(job)

    def resume(self, job: Job) -> None:
        """Let a stopped job go on."""
        job.state = RUN
        send(list(marked_processes(JOB_MARK, self.mark(job))), signal.SIGCONT)
        self._changed(job)

    def _fail_start(self, job: Job) -> None:
        """A job that cannot be started is held, not ended."""
        job.state, job.started = PSUSP, None
        job.pend_reason = "Failed to start: the working directory is not there"
        job.note(self.clock.now(), job.pend_reason)
        self._release(job)
        self._changed(job)

    def _finish(self, job: Job, code: int, out: IO[bytes]) -> None:
        kill = self._kills.pop(job.id, None)
        if kill is not None:
            kill.cancel()
        now = self.clock.now()
        self._release(job)
        if job.ending == "TERM_PREEMPT" and job.request.rerun:
            job.state, job.started, job.pid, job.ending = PEND, None, None, None
            job.note(now, "Job has been requeued after preemption; Pending")
            self._changed(job)
            return
        self.end(job, code, job.ending)
        if job.request.output is not None and job.request.report:
            out.write(report(job).encode())
            out.flush()
        self._changed(job)

    def end(self, job: Job, code: int, reason: str | None) -> None:
        """Record the job's end; a job that is killed has failed, whatever its script returned."""
        job.finished, job.exit_code, job.reason = self.clock.now(), code, reason
        job.state = DONE if code == 0 and reason is None else EXIT
        job.note(job.finished, "Done successfully" if job.state == DONE else exit_words(code))

    async def stop(self) -> None:
        """Kill every job at once and wait until its processes are gone."""
        waiting = set(self._tasks.values())
        while waiting:
            # Again and again: a process may have been starting another when it was killed.
            send(list(marked_processes(JOB_MARK, f"{self._token}.")), signal.SIGKILL)
            _, waiting = await asyncio.wait(waiting, timeout=0.05)
        send(list(marked_processes(JOB_MARK, f"{self._token}.")), signal.SIGKILL)


def exit_words(code: int) -> str:
    """How LSF tells an exit code."""
    return f"Exited with exit code {code}"


def report(job: Job) -> str:
    """The report at the end of a job's output file."""
    words = "Successfully completed." if job.state == DONE else f"{exit_words(job.exit_code or 0)}."
    reason = f"{reason_words(job)}.\n" if job.reason else ""
    return (
        f"\n{'-' * 60}\nSender: LSF System\n"
        f"Subject: Job {job.id}: <{job.request.name}> in cluster <fake> "
        f"{'Done' if job.state == DONE else 'Exited'}\n\n"
        f"{reason}{words}\n\nThe output (if any) is above this job summary.\n"
    )
