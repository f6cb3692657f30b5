"""The worker's line to the ranks of a slice: one connection from the keeper of each rank.

A trial of several ranks is started by the site's launcher. Each rank is a *keeper* (keeper.py),
which takes its share of the place and starts the payload. The connections carry what launchers do
not carry alike: signals, stop requests, and which rank failed and how. A keeper that loses its
connection ends its payload, so that no rank outlives its slice, whatever became of the launcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import selectors
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hpc_hpo.model import ErrorInfo
from hpc_hpo.worker.channel import Channel, ChannelClosed
from hpc_hpo.worker.job import SliceJob, signal_name
from hpc_hpo.worker.local_inputs import environment_folder
from hpc_hpo.worker.node import own_addresses
from hpc_hpo.worker.place import master_port
from hpc_hpo.worker.process import program

FILE = "ranks.json"
_HOST = re.compile(r"\{host:([^}]*)\}")


def host_numbers(environ: Mapping[str, str]) -> dict[str, int]:
    """jsrun's number of each compute node of the job: from 1, for 0 is the batch node.

    The order is that of LSF's host file (LSB_DJOB_HOSTFILE), which begins with the batch node.
    """
    try:
        names = Path(environ["LSB_DJOB_HOSTFILE"]).read_text().split()
    except (KeyError, OSError):
        names = environ.get("LSB_HOSTS", "").split()
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _program(name: str) -> str:
    """The launcher beside this Python, where MPI was installed with it: another on the PATH would
    be another MPI's."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


class RankServer:
    """Writes what the keepers need, composes the launch line, and talks with the keepers.

    Args:
        job: of several ranks, placed.
        folder: on the shared file system, for the file that the keepers read.
        argv: the command of each rank; None for a Python objective.
        environment: of the ranks; the launcher passes it on, and the keepers make sure of it.

    Attributes:
        launch: the argument list to start.
        failures: what ranks said of their failures, the first first: (rank, error).

    Raises:
        ValueError: the slice has no place, or it names a node that the job does not have.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        job: SliceJob,
        folder: Path,
        *,
        argv: Sequence[str] | None = None,
        environment: Mapping[str, str],
    ) -> None:
        place = job.request.get("place")
        if place is None or not place["launch"]:
            raise ValueError("a trial of several ranks, but no launcher that could start them")
        self.job = job
        self.failures: list[tuple[int, ErrorInfo]] = []
        self._token = secrets.token_hex(16)
        self._listener = socket.create_server(("", 0), backlog=job.shape.ranks + 8)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._guests: dict[Channel, socket.socket] = {}
        self.channels: dict[int, Channel] = {}
        self._file = folder / FILE
        names = set(job.task.get("env", {})) | {"PYTHONPATH"}
        inside = environment_folder(job.task)
        if inside is not None:
            names |= {"PATH", "CONDA_PREFIX", "VIRTUAL_ENV"}
        sent = {k: v for k, v in environment.items() if k in names or k.startswith("HPC_HPO_")}
        sent.pop("HPC_HPO_NODE", None)
        content = {
            "addresses": own_addresses(),
            "port": self._listener.getsockname()[1],
            "token": self._token,
            "shape": job.request["shape"],
            "place": place,
            "argv": list(argv) if argv is not None else None,
            "environment": sent,
            "given": job.task.get("env", {}),
            "master_port": master_port(job.request, os.environ.get("HPC_HPO_BLOCK", "")),
            "local": job.task.get("local", {}),
            "local_folder": job.task.get("local_folder"),
            "inside": inside,
        }
        self._write(self._file, json.dumps(content))
        self.launch = [*self._launch_line(folder), *program("keeper", self._file)]

    @staticmethod
    def _write(path: Path, text: str) -> None:
        # For this user's eyes: it holds the token.
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text)

    def _launch_line(self, folder: Path) -> list[str]:
        place = self.job.request["place"]
        line = list(place["launch"])
        if place.get("erf"):
            numbers = host_numbers(os.environ)

            def number(match: re.Match[str]) -> str:
                if match[1] not in numbers:
                    raise ValueError(f"node {match[1]} is not among the job's: {sorted(numbers)}")
                return str(numbers[match[1]])

            erf = folder / "ranks.erf"
            self._write(erf, _HOST.sub(number, place["erf"]))
            line = [word.replace("{erf}", str(erf)) for word in line]
        return [_program(line[0]), *line[1:]]

    # -- messages ----------------------------------------------------------------

    @property
    def present(self) -> int:
        """Ranks that have come up so far."""
        return len(self.channels)

    def pump(self, timeout_s: float) -> list[tuple[int, dict[str, Any]]]:
        """Messages of ranks, waiting up to `timeout_s` seconds for the first."""
        found: list[tuple[int, dict[str, Any]]] = []
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._accept()
                continue
            channel: Channel = key.data[0]
            try:
                while (message := channel.receive(0)) is not None:
                    self._take(channel, message, found)
            except ChannelClosed:
                self._drop(channel)
        return found

    def _accept(self) -> None:
        end, _ = self._listener.accept()
        channel = Channel(end)
        self._guests[channel] = end
        self._selector.register(end, selectors.EVENT_READ, (channel,))

    def _drop(self, channel: Channel) -> None:
        end = self._guests.pop(channel, None)
        if end is not None:
            self._selector.unregister(end)
            channel.close()

    def _take(
        self, channel: Channel, message: dict[str, Any], found: list[tuple[int, dict[str, Any]]]
    ) -> None:
        if message.get("token") != self._token and channel not in self.channels.values():
            self._drop(channel)
            return
        rank = int(message["rank"])
        if "hello" in message:
            self.channels[rank] = channel
            channel.send({"welcome": True})
        elif "failed" in message:
            self.failures.append((rank, cast(ErrorInfo, message["failed"])))
        elif "status" in message:
            self.failures.append((rank, self._death(message["status"])))
        found.append((rank, message))

    @staticmethod
    def _death(status: int) -> ErrorInfo:
        if status < 0:
            message = f"was killed by {signal_name(-status)}"
            return ErrorInfo(kind="signal", message=message, exit_code=status)
        return ErrorInfo(kind="exit", message=f"exited with status {status}", exit_code=status)

    def send(self, message: dict[str, Any], rank: int | None = None) -> None:
        """To one rank, or to all; those that are gone do not hear it."""
        for number, channel in self.channels.items():
            if rank is None or number == rank:
                with contextlib.suppress(ChannelClosed):
                    channel.send(message)

    def first_failure(self) -> ErrorInfo | None:
        """The first failure that a rank told of, with its number; the others' are in its wake."""
        if not self.failures:
            return None
        rank, error = self.failures[0]
        others = sorted({r for r, _ in self.failures} - {rank})
        wake = f" (then {', '.join(map(str, others[:8]))})" if others else ""
        told = error.copy()
        told["message"] = f"rank {rank} of {self.job.shape.ranks}: {error['message']}{wake}"
        return told

    def close(self) -> None:
        """Hang up: keepers that still run end their payloads."""
        for channel in list(self._guests):
            self._drop(channel)
        self._selector.close()
        self._listener.close()
        self._file.unlink(missing_ok=True)
        self._file.with_name("ranks.erf").unlink(missing_ok=True)
