"""The daemon: one process that holds the cluster's state and answers the commands.

    python -m tests.fakes.lsf.daemon DIR [--flavour plain] [--nodes N] [--speed N] ...

Commands reach it over a Unix socket in DIR, one JSON message a line. Each change of a job's
state is written to DIR/events.jsonl. SIGTERM, or with ``--until-eof`` the end of its standard
input (whoever started it has died), ends it and every process of every job.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.fakes.lsf.cluster import Cluster, plain_queues, summit_queues
from tests.fakes.lsf.commands import Answer, Jobs, Times, Usage, bslots
from tests.fakes.lsf.control import Control
from tests.fakes.lsf.depend import BadDependency, Dependency
from tests.fakes.lsf.run import JOB_MARK, STEP_MARK, Runner, marked_processes, send
from tests.fakes.lsf.schedule import Scheduler
from tests.fakes.lsf.state import FINISHED, STARTED, Clock, Job
from tests.fakes.lsf.steps import StepRefused, StepRequest, Steps, read_step
from tests.fakes.lsf.submit import Refused, read_request

FIRST_JOB = 1001
LARGEST_MESSAGE = 1 << 24
DOWN = "LSF is down. Please wait ...\n"


class Daemon:
    """The cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.clock = Clock(cluster.speed)
        self.jobs: dict[int, Job] = {}
        self.scheduler = Scheduler(cluster)
        self.runner = Runner(cluster, self.clock, folder, self.changed, self._release)
        self.steps = Steps(cluster.cpus, cluster.gpus, cluster.smt)
        self.listing = Jobs(cluster, self.clock, self.jobs)
        self.times = Times(cluster, self.clock)
        self.control = Control(self)
        self._log = open(folder / "events.jsonl", "a", buffering=1)  # noqa: SIM115 (its life long)
        self._background: set[asyncio.Task[None]] = set()
        self._open = True

    # ---- the life of jobs

    def changed(self, job: Job) -> None:
        """Log a job's new state and start what may start now."""
        event = {"time": self.clock.now(), "real": self.clock.real(self.clock.now())}
        self._log.write(json.dumps(event | job.summary()) + "\n")
        self.schedule()

    def _release(self, job: Job) -> None:
        if job.allocation is not None:
            self.scheduler.room.give(job.allocation)
            self.spawn(self.steps.wake(job.id, job.runs))
            job.allocation = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work beside all else; the task is kept, or it could be collected half done."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def schedule(self) -> None:
        """Start every job that may start."""
        while self._open:
            ordered = list(self.jobs.values())
            job = self.scheduler.start_next(ordered, self.jobs, self.clock.now())
            if job is None:
                return
            self.runner.start(job)

    def submit(self, message: dict[str, Any], stdin: str | None) -> Answer | None:
        """``bsub``; None when the job must be read from standard input first."""
        unfinished = [j.request.queue for j in self.jobs.values() if j.state not in FINISHED]
        try:
            request = read_request(message["argv"], message["cwd"], self.cluster, stdin, unfinished)
            if request is None:
                return None
            if request.after:
                named = Dependency(request.after).ids
                # A job that has aged out can no longer be named.
                if any(i not in self.jobs or not self.listing.known(self.jobs[i]) for i in named):
                    raise BadDependency(request.after)
        except Refused as error:
            return Answer(err=f"{error}\n", rc=255)
        except BadDependency:
            text = "Dependency condition invalid or never satisfied. Job not submitted.\n"
            return Answer(err=text, rc=255)
        now = self.clock.now()
        job = Job(FIRST_JOB + len(self.jobs), request, message["cwd"], message["env"], now)
        job.note(now, f"Submitted from host <login1>, to Queue <{request.queue}>")
        self.jobs[job.id] = job
        self.runner.spool(job)
        self.changed(job)
        kind = "queue" if request.explicit_queue else "default queue"
        return Answer(f"Job <{job.id}> is submitted to {kind} <{request.queue}>.\n")

    def bkill(self, argv: list[str]) -> Answer:
        """End jobs, or send them a signal; 0 means all unfinished ones."""
        rest = list(argv)
        number: int | None = None
        if len(rest) > 1 and rest[0] == "-s":
            name = rest[1]
            if not name.isdigit() and not hasattr(signal, f"SIG{name}"):
                raise Usage(f"{name}: Illegal signal value\n")
            number = int(name) if name.isdigit() else signal.Signals[f"SIG{name}"].value
            rest = rest[2:]
        if not rest:
            raise Usage("Job ID must be given\n")
        if rest == ["0"]:
            rest = [str(j.id) for j in self.jobs.values() if j.state not in FINISHED]
        out, err = "", ""
        for text in rest:
            job = self.jobs.get(int(text)) if text.isdigit() else None
            if job is None:
                err += f"Job <{text}>: No matching job found\n"
            elif job.state in FINISHED:
                err += f"Job <{text}>: Job has already finished\n"
            else:
                out += self._kill(job, number)
        return Answer(out, err, 255 if err else 0)

    def _kill(self, job: Job, number: int | None) -> str:
        final = number in (None, signal.SIGKILL)
        if job.state in STARTED:
            if number is None:
                self.runner.kill(job, "TERM_OWNER")
            else:
                job.ending = job.ending or ("TERM_OWNER" if final else None)
                self.runner.signal(job, number)
        elif final or number in (signal.SIGINT, signal.SIGTERM):
            self.runner.end(job, 0, "TERM_OWNER")
            self.changed(job)
        return f"Job <{job.id}> is being {'terminated' if final else 'signaled'}\n"

    # ---- messages

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client. A client that goes away at any point leaves nothing behind."""
        try:
            line = await reader.readline()
            if line:
                await self._answer(json.loads(line), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client was killed: it has no use for the answer.
            return
        finally:
            writer.close()

    async def _answer(
        self, message: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        command = message["command"]
        fault = None if command == "fake-lsf" else self.control.next_fault(command)
        if fault == "hang":
            # Until the client gives up; nothing has been done for it.
            await reader.read()
            return
        if fault in ("down", "refuse"):
            refusal = (
                f"{command}: Request rejected by the master batch daemon. Job not submitted.\n"
            )
            await tell(writer, {"rc": 255, "err": DOWN if fault == "down" else refusal})
            return
        if command == "jsrun":
            await self._step(message, reader, writer)
            return
        try:
            answer = await self._run(command, message, reader, writer)
        except Usage as error:
            answer = Answer(err=str(error), rc=255)
        out = answer.out
        if fault is not None:
            # The command did its work: only what it says is spoilt.
            out = "" if fault == "empty" else out[::-1].replace("<", "\x00").replace(" ", "\ufffd")
        await tell(writer, {"rc": answer.rc, "out": out, "err": answer.err})

    async def _run(
        self,
        command: str,
        message: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Answer:
        argv = message["argv"]
        if command == "bsub":
            answer = self.submit(message, None)
            if answer is None:
                await tell(writer, {"need_stdin": True})
                answer = self.submit(message, json.loads(await reader.readline())["stdin"])
            assert answer is not None
            return answer
        if command == "bslots":
            compute = "CN" in "".join(argv)
            jobs = list(self.jobs.values())
            windows = self.scheduler.windows(jobs, self.jobs, self.clock.now(), compute)
            return bslots(argv, self.times, windows)
        handlers = {
            "bjobs": self.listing.bjobs,
            "bhist": self.listing.bhist,
            "bkill": self.bkill,
            "fake-lsf": self.control.act,
        }
        return handlers[command](argv)

    async def _step(
        self, message: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One jsrun: wait for room, let the client run the tasks, free the room when it is gone."""
        env = message["env"]
        job = self.jobs.get(int(env.get("LSB_JOBID", 0)))
        if job is None or env.get(JOB_MARK) != self.runner.mark(job) or STEP_MARK in env:
            text = "Error: jsrun works only inside a job, on the batch node\n"
            await tell(writer, {"rc": 1, "err": text})
            return
        gone = asyncio.ensure_future(reader.read())
        number = 0
        nodes = self.steps.nodes(job)
        begin: asyncio.Task[tuple[int, list[dict[str, Any]]]] | None = None
        try:
            step = read_step(message["argv"], Path(message["cwd"]))
            if step.immediate:
                await tell(writer, {"detach": True})
            begin = asyncio.create_task(self.steps.begin(job, step))
            await asyncio.wait({gone, begin}, return_when=asyncio.FIRST_COMPLETED)
            if not begin.done():
                return
            number, tasks = begin.result()
            mark = f"{self.runner.mark(job)}{number}."
            await tell(writer, step_message(step, tasks, mark, message["cwd"]))
            await gone
            send(list(marked_processes(STEP_MARK, mark)), signal.SIGKILL)
        except StepRefused as error:
            await tell(writer, {"rc": 1, "err": f"{error}\n"})
        finally:
            gone.cancel()
            if begin is not None and not begin.done():
                begin.cancel()
            if number:
                await self.steps.end(nodes, number)

    async def stop(self) -> None:
        """End all jobs."""
        self._open = False
        await self.runner.stop()
        self._log.close()


def step_message(
    step: StepRequest, tasks: list[dict[str, Any]], mark: str, cwd: str
) -> dict[str, Any]:
    """What jsrun needs to run the tasks: the command, and each task's own environment."""
    own = []
    for rank, task in enumerate(tasks):
        names = {"JSM_NAMESPACE_": (rank, len(tasks), task["local"], task["local_size"])}
        if step.mpi:
            names["OMPI_COMM_WORLD_"] = names["JSM_NAMESPACE_"]
        env = {STEP_MARK: mark, "FAKE_HOST": task["host"], "PMIX_RANK": str(rank)}
        # All nodes are this machine: its host name does not tell them apart.
        env["HPC_HPO_NODE"] = task["host"]
        for prefix, values in names.items():
            for name, value in zip(
                ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"), values, strict=True
            ):
                env[prefix + name] = str(value)
        env["FAKE_CORES"] = ",".join(map(str, task["cores"]))
        if task["gpus"]:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, task["gpus"]))
        own.append(env | dict(pair.split("=", 1) for pair in step.env if "=" in pair))
    folder = Path(cwd, step.chdir or ".")
    files = {
        key: str(Path(cwd, name)) if name else None
        for key, name in (("stdout", step.stdout), ("stderr", step.stderr))
    }
    return {
        "tasks": own, "command": list(step.command), "chdir": str(folder), "mpi": step.mpi, **files
    }  # fmt: skip


async def tell(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Send one message."""
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def run(cluster: Cluster, folder: Path, until_eof: bool) -> None:
    """Serve until told to end."""
    # The socket's name is relative: an absolute path may be longer than a Unix socket allows.
    os.chdir(folder)
    daemon = Daemon(cluster, folder)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Handled, not ignored: jobs would inherit an ignored signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    Path("socket").unlink(missing_ok=True)
    server = await asyncio.start_unix_server(daemon.serve, "socket", limit=LARGEST_MESSAGE)
    Path("pid").write_text(f"{os.getpid()}\n")
    await ended.wait()
    server.close()
    await daemon.stop()
    Path("socket").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake LSF cluster")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flavour", choices=("summit", "plain"), default="summit")
    parser.add_argument("--until-eof", action="store_true")
    parser.add_argument("--real-times", action="store_true")
    for name in ("nodes", "cpus", "gpus", "smt", "eligible", "queued"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("speed", "grace", "clean-period"):
        parser.add_argument(f"--{name}", type=float)
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    folder, until_eof = given.pop("folder").resolve(), given.pop("until_eof")
    limits = {k: given.pop(k) for k in ("eligible", "queued") if k in given}
    queues = summit_queues if given["flavour"] == "summit" else plain_queues
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(Cluster(**given, queues=queues(**limits)), folder, until_eof))


if __name__ == "__main__":
    main()
