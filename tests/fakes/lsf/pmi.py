"""A process manager's side of MPI's start-up: PMI-1, as MPICH's ranks speak it.

jsrun brings up Spectrum MPI by PMIx. The MPI of the tests is MPICH's, which knows PMI-1 over an
inherited socket (PMI_FD, PMI_RANK, PMI_SIZE): lines of ``cmd=... key=value``. It needs little:
a store of keys, and a barrier. Source: the PMI-1 wire protocol in MPICH's documentation.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence


class Manager:
    """Answers the ranks of one step.

    Attributes:
        theirs: each rank's end, to be inherited.
    """

    def __init__(self, ranks: int) -> None:
        pairs = [socket.socketpair() for _ in range(ranks)]
        self.theirs = [theirs for _, theirs in pairs]
        self._ours = [ours for ours, _ in pairs]
        # All ranks are on one machine, whatever their hosts are called.
        self._store = {"PMI_process_mapping": f"(vector,(0,1,{ranks}))"}
        self._waiting: set[int] = set()
        # MPICH names its shared memory by it: a step must not find that of one that was killed.
        self._name = f"kvs_{os.getpid()}_{time.time_ns()}"

    def environment(self, rank: int) -> dict[str, str]:
        """What tells a rank how to begin."""
        fd = self.theirs[rank].fileno()
        return {"PMI_FD": str(fd), "PMI_RANK": str(rank), "PMI_SIZE": str(len(self._ours))}

    def serve(self) -> None:
        """Answer in the background until all ranks have hung up; call after they were started."""
        for end in self.theirs:
            end.close()
        threading.Thread(target=self._serve, name="pmi", daemon=True).start()

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        buffers = {}
        for rank, end in enumerate(self._ours):
            selector.register(end, selectors.EVENT_READ, rank)
            buffers[rank] = b""
        while selector.get_map():
            for key, _ in selector.select():
                rank: int = key.data
                try:
                    part = self._ours[rank].recv(4096)
                except OSError:
                    part = b""
                if not part:
                    selector.unregister(key.fileobj)
                    continue
                *lines, buffers[rank] = (buffers[rank] + part).split(b"\n")
                for line in lines:
                    self._answer(rank, line.decode())

    def _answer(self, rank: int, line: str) -> None:
        words = dict(word.partition("=")[::2] for word in line.split())
        command, size = words.get("cmd"), len(self._ours)
        if command == "barrier_in":
            self._waiting.add(rank)
            if len(self._waiting) == size:
                self._waiting.clear()
                for other in range(size):
                    self._send(other, "cmd=barrier_out rc=0")
            return
        if command == "put":
            self._store[words["key"]] = words["value"]
        found = self._store.get(words.get("key", ""))
        replies: dict[str | None, str] = {
            "init": "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0",
            "get_maxes": "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024 rc=0",
            "get_appnum": "cmd=appnum appnum=0 rc=0",
            "get_my_kvsname": f"cmd=my_kvsname kvsname={self._name} rc=0",
            "get_universe_size": f"cmd=universe_size size={size} rc=0",
            "put": "cmd=put_result rc=0 msg=success",
            "get": "cmd=get_result rc=-1 msg=key_not_found"
            if found is None
            else f"cmd=get_result rc=0 msg=success value={found}",
            "finalize": "cmd=finalize_ack rc=0",
        }
        if command in replies:
            self._send(rank, replies[command])

    def _send(self, rank: int, line: str) -> None:
        try:
            self._ours[rank].sendall(line.encode() + b"\n")
        except OSError:
            return  # it died; jsrun sees to that


def descriptors(manager: Manager | None, rank: int) -> Sequence[int]:
    """What a rank inherits."""
    return [] if manager is None else [manager.theirs[rank].fileno()]
