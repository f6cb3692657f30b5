"""Python objectives: the worker's side of the runner process."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING, cast

from hpc_hpo.model import SliceOutcome
from hpc_hpo.worker.channel import Channel, ChannelClosed
from hpc_hpo.worker.job import SliceJob, base_environment, start_payload
from hpc_hpo.worker.local_inputs import environment_folder
from hpc_hpo.worker.node_local import python_of
from hpc_hpo.worker.process import end_session, program

if TYPE_CHECKING:
    from hpc_hpo.worker.gate import Gate

_TICK_S = 0.1


class RunnerClient:
    """Holds at most one runner process and gives it slices."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._gate: Gate | None = None
        self._key: object = None

    def run(self, job: SliceJob) -> SliceOutcome:
        """Run one slice in the runner; the outcome's fields that only the payload knows."""
        process, channel = self._ready(job)
        try:
            outcome = self._attend(job, process, channel)
        except ChannelClosed:
            outcome = self._after_death(job, process)
        if job.task.get("fresh_process"):
            self.close()
        return outcome

    def _ready(self, job: SliceJob) -> tuple[subprocess.Popen[bytes], Channel]:
        """A runner that fits the job: the same study, log, variables and import path."""
        env, path = job.task.get("env", {}), job.task.get("path", [])
        # Libraries look once at which GPUs there are and how many threads to start.
        place = job.request.get("place")
        share = None if place is None else (place["nodes"][0][2], job.shape.threads)
        python = python_of(environment_folder(job.task))
        key = (job.request["dir"], job.log.name, tuple(sorted(env.items())), tuple(path), share,
               python)  # fmt: skip
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died between two slices
        if self._process is None or self._channel is None or key != self._key:
            self.close()
            self._start(job, python)
            self._key = key
        assert self._process is not None and self._channel is not None
        job.bind(self._process.pid)
        return self._process, self._channel

    def _start(self, job: SliceJob, python: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process, self._gate = start_payload(
                    job,
                    program("runner", theirs.fileno(), python=python),
                    cwd=None,
                    env=base_environment(job),
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise
        self._channel = Channel(ours)

    def _attend(
        self, job: SliceJob, process: subprocess.Popen[bytes], channel: Channel
    ) -> SliceOutcome:
        """Wait for the answer, passing on stop requests and enforcing the time limits."""
        channel.send(
            {
                "request": job.request,
                "task": job.task,
                "folder": str(job.folder),
                "lineage": job.lineage,
                "deadline": job.watch.deadline,
            }
        )
        told = None
        while True:
            answer = channel.receive(_TICK_S)
            if answer is not None:
                outcome = cast(SliceOutcome, answer)
                if "error" in outcome:
                    outcome["error"].setdefault("log_tail", job.log_tail())
                return outcome
            if process.poll() is not None:
                raise ChannelClosed("the runner died")
            stop = job.watch.look()
            if stop is not None and stop != told:
                channel.send({"stop": stop.reason, "deadline": stop.deadline})
                told = stop
            if job.past_timeout():
                self.kill(job.kill_grace_s)
                return job.timed_out()
            if job.past_last_call():
                self.kill(0.0)
                return job.lost(
                    "the objective was still running at the deadline; to go on later it has to "
                    "call trial.should_stop() often enough, checkpoint, and return None"
                )

    def _after_death(self, job: SliceJob, process: subprocess.Popen[bytes]) -> SliceOutcome:
        try:
            code = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.kill(0.0)
            return job.failed("exit", "the objective closed the files of its process")
        self.kill(0.0)
        return job.died(code)

    def kill(self, grace_s: float) -> None:
        """End the runner and all it has started: TERM, and KILL after `grace_s` seconds."""
        if self._process is not None:
            end_session(self._process, grace_s)
        self._drop()

    def close(self) -> None:
        """Let an idle runner end by itself, and kill what is left of it."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)
            end_session(self._process, 0.0)
        self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._gate is not None:
            self._gate.close()
        self._process = self._channel = self._gate = self._key = None
