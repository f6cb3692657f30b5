"""The runner process: runs Python objectives, one slice after the other.

It is a program of its own, started by its worker and ended with it, so that an objective that
hangs, crashes or exhausts the memory can be killed without losing the worker.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_hpo.clock import SystemClock
from hpc_hpo.errors import CheckpointError
from hpc_hpo.model import SliceEnd, SliceOutcome
from hpc_hpo.worker.channel import Channel, ChannelClosed
from hpc_hpo.worker.checkpoint import Store, read_saved
from hpc_hpo.worker.context import TrialContext
from hpc_hpo.worker.node import Stop
from hpc_hpo.worker.objective import describe_error, evaluate


class Runner:
    """Answers slice jobs that come over a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel | None = channel
        self._clock = SystemClock()
        self._signalled = False
        self._deadline: float | None = None

    def serve(self) -> None:
        """Run slices until the worker closes the channel."""
        assert self._channel is not None
        while True:
            try:
                message = self._channel.receive()
            except ChannelClosed:
                return
            # A stop request that crossed the end of its slice has no effect any more.
            if message is not None and "request" in message:
                try:
                    outcome = self.run(message)
                except (OSError, CheckpointError) as error:
                    # The study folder or the checkpoint is out of reach: not the payload's fault.
                    info = describe_error("storage", error)
                    info["transient"] = True
                    outcome = SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=info)
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                self._channel.send(dict(outcome))

    def run(self, job: dict[str, Any]) -> SliceOutcome:
        """One slice, from the message of payload_python.describe()."""
        request, task = job["request"], job["task"]
        folder = Path(job["folder"])
        lineage: list[str] = job["lineage"]
        os.chdir(request["dir"])
        self._signalled = False
        self._deadline = job["deadline"]
        store = Store(
            folder, request["slice"], lineage, task.get("checkpoint_keep", 2), self._clock
        )
        trial = self.context(
            id=request["trial"],
            seed=request["seed"],
            segment=request.get("segment"),
            inputs=task.get("inputs", {}),
            store=store,
            restored=read_saved(folder / lineage[0]) if lineage else None,
            clock=self._clock,
            deadline=self._deadline,
            margin_s=request.get("margin_s", 1.0),
            usual=request.get("usual"),
            checkpoint_every_s=task.get("checkpoint_every_s"),
            stop_step=request.get("stop_step"),
            poll=self.poll,
        )
        outcome = self.agree(evaluate(task, request["point"], trial), trial)
        if trial.fenced:
            outcome["end"], outcome["loss"] = SliceEnd.FENCED.value, None
        known = request.get("known_step")
        outcome["reports"] = [
            [step, metrics]
            for step, metrics in sorted(trial.reports.items())
            if known is None or step > known
        ]
        outcome["pace"] = trial.pace
        if store.last is not None:
            outcome["checkpoint"] = store.last.info
        return outcome

    #: what an objective sees of its trial
    context: Callable[..., TrialContext] = TrialContext

    def agree(self, outcome: SliceOutcome, trial: TrialContext) -> SliceOutcome:
        """The outcome of all ranks; that of the only one here."""
        return outcome

    def poll(self) -> Stop | None:
        """A stop request that has come in, by message or by SIGUSR1."""
        message = None
        if self._channel is not None:
            try:
                message = self._channel.receive(0)
            except ChannelClosed:
                return Stop("stop", self._deadline)
        if message is not None and "stop" in message:
            return Stop(message["stop"], message["deadline"])
        return Stop("stop", self._deadline) if self._signalled else None

    def on_signal(self, number: int, frame: object) -> None:
        """SIGUSR1, from a batch system or by hand, asks the running slice to stop."""
        self._signalled = True

    def forget_channel(self) -> None:
        """In a child that the objective has forked: the channel is the parent's."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def main(channel_fd: str) -> None:
    """Serve slices over the socket `channel_fd` until it is closed."""
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale; and what a crashing payload has printed is in the log.
        stream.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    runner = Runner(Channel(socket.socket(fileno=int(channel_fd))))
    os.register_at_fork(after_in_child=runner.forget_channel)
    signal.signal(signal.SIGUSR1, runner.on_signal)
    # A scheduler may send TERM to every process of a job: the worker, which gets it too, knows
    # how long there is and asks the objective to stop.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    runner.serve()
