"""The keeper of one rank: process.program("keeper", "ranks.json"), started by the launcher.

It finds out which rank it is, takes that rank's share of the slice's place (GPUs, cores, threads),
starts the payload and stays beside it: it passes signals and messages on, tells the worker how
the payload ended, and ends it when the worker hangs up.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_hpo.errors import HpoError
from hpc_hpo.model import Place, Shape
from hpc_hpo.ranks import rank_share
from hpc_hpo.worker.channel import Channel, ChannelClosed
from hpc_hpo.worker.node import node_name
from hpc_hpo.worker.node_local import NodeCopies, python_of
from hpc_hpo.worker.place import bind, distributed, hardware_threads, share_variables
from hpc_hpo.worker.process import end_session, program, signal_session, start

#: (rank, rank on its node) as launchers tell them; those of srun count only under srun, for a
#: batch script of Slurm has them, too.
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID")
_OTHERS = (
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK"),
    ("PALS_RANKID", "PALS_LOCAL_RANKID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "MPI_LOCALRANKID"),
    ("PMIX_RANK", ""),
)
#: How long a keeper tries to reach its worker, and each address of it, in seconds.
CONNECT_S, EACH_S = 30.0, 3.0
_TICK_S = 0.05
#: How long a payload's last words are waited for after its end, and its stack when it is asked
#: for, in seconds.
_LAST_WORDS_S = 0.5


def find_rank(launcher: str, environ: Mapping[str, str]) -> tuple[int, int | None]:
    """(rank, rank on its node or None) as the launcher tells them.

    Raises:
        RuntimeError: it does not tell.
    """
    for rank, local in (_SLURM,) if launcher == "srun" else _OTHERS:
        if environ.get(rank, "").isdigit():
            on_node = environ.get(local, "")
            return int(environ[rank]), int(on_node) if on_node.isdigit() else None
    raise RuntimeError(f"{launcher} has not told its process which rank it is")


def find_share(
    place: Place, shape: Shape, rank: int, local: int | None, name: str
) -> tuple[int, int]:
    """(node's number in the place, rank on it): by the node's name, else by the order of ranks."""
    names = [node[0] for node in place["nodes"]]
    if local is not None and names.count(name) == 1 and local < shape.per_node:
        return names.index(name), local
    return rank // shape.per_node, rank % shape.per_node


class Keeper:
    """Stays beside one rank's payload."""

    def __init__(self, spec: dict[str, Any], environ: Mapping[str, str]) -> None:
        self.spec = spec
        self.place: Place = spec["place"]
        self.shape = Shape(*spec["shape"])
        launcher = os.path.basename(self.place["launch"][0])
        self.rank, local = find_rank(launcher, environ)
        self.node, self.local = find_share(
            self.place, self.shape, self.rank, local, node_name(environ)
        )
        self.cores, gpus = rank_share(self.shape, self.place["nodes"][self.node], self.local)
        self.environment = {**environ, **spec["environment"]}
        variables = share_variables(self.place, gpus, self.shape, spec["given"])
        if launcher == "jsrun" and self.place["mask"] in environ:
            # jsrun masks by itself, in its own numbering.
            variables.pop(self.place["mask"], None)
        self.environment.update(variables)
        if spec["argv"] is not None:
            more = distributed(self.place, self.shape, self.node, self.local, spec["master_port"])
            self.environment.update({k: v for k, v in more.items() if k not in spec["given"]})
        self.line = self._connect()

    def _connect(self) -> Channel:
        """Reach the worker at one of its addresses.

        Raises:
            OSError: none answers as it should.
        """
        end = time.monotonic() + CONNECT_S
        hello = {"token": self.spec["token"], "rank": self.rank, "hello": node_name(os.environ)}
        while True:
            for address in self.spec["addresses"]:
                with contextlib.suppress(OSError, ChannelClosed, ValueError):
                    line = Channel(socket.create_connection((address, self.spec["port"]), EACH_S))
                    line.send(hello)
                    if line.receive(EACH_S) == {"welcome": True}:
                        return line
                    line.close()
            if time.monotonic() > end:
                raise OSError(
                    f"rank {self.rank} cannot reach its worker at {self.spec['addresses']}"
                )
            time.sleep(0.2)

    def run(self) -> int:
        """Run the payload; its exit status, as a shell would tell it."""
        ours, theirs = socket.socketpair()
        self.stack, stack_end = os.pipe()
        with theirs:
            fds = (theirs.fileno(), stack_end)
            try:
                self._bring_inputs()
            except HpoError as error:
                message = f"node {node_name(os.environ)}: {error}"
                self._tell({"failed": {"kind": "storage", "message": message, "transient": True}})
                return 1
            argv = self.spec["argv"] or program(
                "rank_main", fds[0], self.shape.ranks, fds[1], python=python_of(self.spec["inside"])
            )
            if self.place["bind"]:
                # Inherited; threads that do not exist yet are bound, too.
                bind(os.getpid(), hardware_threads(self.cores))
            try:
                child = self._start(argv, fds)
            except OSError as error:
                message = f"{argv[0]}: cannot be started: {error.strerror}"
                self._tell({"failed": {"kind": "command", "message": message}})
                return 127
        self.child, self.payload = child, Channel(ours)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, lambda n, _: self._pass_signal(n))
        for number in (signal.SIGTERM, signal.SIGINT):
            # The launcher ends its ranks; how much time there is, the worker knows.
            signal.signal(number, lambda n, _: None)
        try:
            return self._stay()
        finally:
            end_session(child, 0.0)

    def _bring_inputs(self) -> None:
        """Make sure of this node's copies of inputs, and keep them while this process lives."""
        if self.spec["local"]:
            copies = NodeCopies(Path(self.spec["local_folder"]))
            for name, local in self.spec["local"].items():
                copies.use(name, local)
            self.copies = copies

    def _start(self, argv: list[str], fds: Sequence[int]) -> subprocess.Popen[bytes]:
        # What was inherited is passed on: among it may be the launcher's, for the MPI start-up.
        passed = [int(n) for n in os.listdir("/proc/self/fd") if int(n) > 2 and _inherited(int(n))]
        return start(
            argv, cwd=None, env=self.environment, log_fd=1, pass_fds=[*passed, *fds], error_fd=2
        )

    def _pass_signal(self, number: int) -> None:
        if self.spec["argv"] is not None:
            signal_session(self.child.pid, number)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ChannelClosed):
            self.line.send({**message, "rank": self.rank})

    def _stay(self) -> int:
        selector = selectors.DefaultSelector()
        selector.register(self.line.fileno(), selectors.EVENT_READ, self.line)
        selector.register(self.payload.fileno(), selectors.EVENT_READ, self.payload)
        # What came together with the welcome has been read already: no select would tell of it.
        with contextlib.suppress(ChannelClosed):
            self._from_worker()
        while self.child.poll() is None:
            for key, _ in selector.select(_TICK_S):
                try:
                    if key.data is self.line:
                        self._from_worker()
                    else:
                        self._from_payload()
                except ChannelClosed:
                    if key.data is self.line:
                        return 1  # the slice is over
                    selector.unregister(key.fd)
        with contextlib.suppress(ChannelClosed):
            end = time.monotonic() + _LAST_WORDS_S
            while self._from_payload() and time.monotonic() < end:
                pass
        code = self.child.returncode
        if code != 0:
            self._tell({"status": code})
        return code if code >= 0 else 128 - code

    def _from_worker(self) -> None:
        while (message := self.line.receive(0)) is not None:
            if "signal" in message:
                signal_session(self.child.pid, message["signal"])
            elif "stack" in message:
                self._tell_stack()
            elif self.spec["argv"] is None:
                self.payload.send(message)

    def _tell_stack(self) -> None:
        """Where the payload stands; nothing where it does not say."""
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGQUIT)
        told = b""
        # It comes in parts, quickly.
        wait = _LAST_WORDS_S
        while select.select([self.stack], [], [], wait)[0]:
            told, wait = told + os.read(self.stack, 1 << 16), _TICK_S
        self._tell({"stack": told.decode(errors="replace")})

    def _from_payload(self) -> bool:
        message = self.payload.receive(0)
        if message is not None:
            self._tell(message)
        return message is not None


def _inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # that of the listing itself


def main(path: str) -> int:
    """Entry point: the file that RankServer wrote."""
    try:
        keeper = Keeper(json.loads(Path(path).read_text()), os.environ)
    except (OSError, RuntimeError) as error:
        print(f"hpc-hpo: {error}", file=sys.stderr)
        return 1
    return keeper.run()
