"""What runs when a command of the fake is called: one request to the daemon, and jsrun's tasks.

Started as a file by ``python -I -S``, with the standard library alone, so that a command takes a
few hundredths of a second. Arguments: the command's name, the state folder, its own arguments.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from io import BufferedRWPair
from types import FrameType
from typing import IO, Any

DOWN = "LSF is down. Please wait ...\n"
#: Signals that jsrun passes on to its tasks.
FORWARDED = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGCONT")


def connect(folder: str) -> socket.socket:
    """A connection to the daemon. A Unix socket's path is short, so it is named from inside."""
    here = os.open(".", os.O_RDONLY)
    channel = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(folder)
        channel.connect("socket")
    finally:
        os.fchdir(here)
        os.close(here)
    return channel


def send(stream: BufferedRWPair, message: dict[str, Any]) -> None:
    """Send one message."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: BufferedRWPair) -> dict[str, Any]:
    """The daemon's next message; a daemon that died in between looks like LSF being down."""
    line = stream.readline()
    if not line:
        return {"rc": 255, "err": DOWN}
    message: dict[str, Any] = json.loads(line)
    return message


def run_tasks(reply: dict[str, Any]) -> int:
    """Run the tasks of a step; the exit code is the worst of theirs."""
    running: list[subprocess.Popen[bytes]] = []
    early: list[int] = []
    complete = False

    def forward(number: int, frame: FrameType | None) -> None:
        if not complete:
            # Kept until all tasks are there, so that each gets the signal once.
            early.append(number)
            return
        for task in running:
            with suppress(ProcessLookupError):
                os.killpg(task.pid, number)

    for name in FORWARDED:
        signal.signal(getattr(signal, name), forward)
    streams: dict[str, IO[bytes]] = {}
    for key in ("stdout", "stderr"):
        if reply[key]:
            streams[key] = open(reply[key], "ab")  # noqa: SIM115 (open until this process ends)
    codes = []
    # Isolated as this is, it does not find its neighbours by itself.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    from pmi import Manager, descriptors  # type: ignore[import-not-found]

    # Spectrum MPI is switched off by --smpiargs=off.
    manager = Manager(len(reply["tasks"])) if reply.get("mpi") else None
    for rank, extra in enumerate(reply["tasks"]):
        env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | extra
        if manager is not None:
            env |= manager.environment(rank)
        try:
            task = subprocess.Popen(
                reply["command"],
                env=env,
                cwd=reply["chdir"],
                stdin=subprocess.DEVNULL,
                stdout=streams.get("stdout"),
                stderr=streams.get("stderr", streams.get("stdout")),
                start_new_session=True,
                pass_fds=descriptors(manager, rank),
            )
        except OSError as error:
            sys.stderr.write(f"Error: {reply['command'][0]}: {error.strerror}\n")
            codes.append(127)
            continue
        running.append(task)
    if manager is not None:
        manager.serve()
    complete = True
    for number in early:
        forward(number, None)
    codes += [task.wait() for task in running]
    return max(code if code >= 0 else 128 - code for code in codes)


def main() -> int:
    """Do one command; the exit code."""
    command, folder, *argv = sys.argv[1:]
    request = {"command": command, "argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}
    try:
        stream = connect(folder).makefile("rwb")
    except OSError:
        sys.stderr.write(DOWN)
        return 255
    send(stream, request)
    reply = receive(stream)
    if reply.get("need_stdin"):
        send(stream, {"stdin": sys.stdin.read()})
        reply = receive(stream)
    if reply.get("detach"):
        # jsrun --immediate: the step goes on in the child, which still dies with its job.
        if os.fork():
            os._exit(0)
        reply = receive(stream)
    if "tasks" in reply:
        # The open connection is the step: the daemon ends it when this process is gone.
        return run_tasks(reply)
    sys.stdout.write(reply.get("out", ""))
    sys.stderr.write(reply.get("err", ""))
    return int(reply["rc"])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        sys.exit(main())
    sys.exit(130)
