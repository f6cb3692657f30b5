"""One slice without blocks and a pool: ``python -m hpc_hpo.worker.alone FILE``.

FILE holds a SliceRequest and the seconds that it may take; the outcome goes into FILE.out. It is
what `check --offline` starts in a network namespace, whose loopback interface is brought up here.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import time
from pathlib import Path

from hpc_hpo.fsio import from_json, to_json
from hpc_hpo.worker.entry import Worker
from hpc_hpo.worker.node import Node

#: ioctl(2) requests of netdevice(7), and the flag of an interface that is up.
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


def bring_up_loopback() -> None:
    """Set `lo` up, which a new network namespace has down.

    Raises:
        OSError: it is down, and this process may not change that.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(end, _GET_FLAGS, request), 16)
        if not flags & _UP:
            fcntl.ioctl(end, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))


def main(path: Path) -> int:
    """Run the slice; 0 whatever became of it."""
    bring_up_loopback()
    job = from_json(path.read_bytes())
    node = Node(
        block="check", worker="0", host=socket.gethostname(), pid=os.getpid(),
        block_end=time.time() + job["seconds"],
    )  # fmt: skip
    worker = Worker(node)
    try:
        outcome = worker.run(job["request"])
    finally:
        worker.close()
    path.with_suffix(".out").write_text(to_json(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
