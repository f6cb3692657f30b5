"""What a slice's place means for the processes that run it: variables, masks, bound cores."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpc_hpo.model import Place, Shape, SliceRequest

#: Variables by which launchers tell a process that it is a rank of their MPI world. A one-rank
#: trial that imports mpi4py under them would join the pilot's world and wait there for ever.
#: PMI: MPICH, Intel, Cray; PMIX, OMPI, PRTE: Open MPI, Spectrum; JSM: jsrun; PALS: HPE's mpiexec.
_WORLD = re.compile(
    r"(PMI|PMI2|PMIX|JSM|PALS|HYDI|HYDRA|PRTE|OMPI_COMM_WORLD|OMPI_UNIVERSE|OMPI_FIRST_RANKS"
    r"|OMPI_APP_CTX|OMPI_FILE_LOCATION|OMPI_MCA_ess|OMPI_MCA_orte|MPI_LOCALRANKID"
    r"|MPI_LOCALNRANKS|MPIEXEC)(_|$)|OMPI_MCA_(ess|orte)"
)
#: Ports for MASTER_PORT: below those that systems hand out by themselves.
FIRST_PORT, PORTS = 20_000, 10_000
#: Of OpenMP and its like, how many threads a rank starts.
THREADS = "OMP_NUM_THREADS"


def outside_worlds(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would make a process a rank of the pilot's own world."""
    return {name: value for name, value in environ.items() if not _WORLD.match(name)}


def shape_of(request: SliceRequest) -> Shape:
    """The shape of the slice's trial; one rank where none is said."""
    return Shape(*request["shape"]) if "shape" in request else Shape()


def share_variables(
    place: Place, gpus: Sequence[int], shape: Shape, given: Mapping[str, str]
) -> dict[str, str]:
    """What a rank learns of its share: the mask of its GPUs, and its threads.

    Args:
        gpus: the rank's, as its node numbers them.
        given: the study's own variables, which have the last word.
    """
    variables = {THREADS: str(shape.threads)}
    if place.get("mask"):
        # A rank without GPUs sees none: it would otherwise take the first one's memory.
        variables[place["mask"]] = ",".join(map(str, gpus))
        if place["mask"] == "CUDA_VISIBLE_DEVICES":
            # In nvidia-smi's order, by which a site's node.gpu_domains counts; CUDA's own is
            # another where GPUs differ.
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return {name: value for name, value in variables.items() if name not in given}


def master_port(request: SliceRequest, block: str) -> int:
    """MASTER_PORT of a slice: no two that run in a block at the same time have the same."""
    # Differs between studies and blocks that may share a node.
    offset = zlib.crc32(f"{request['dir']} {block}".encode())
    return FIRST_PORT + (offset + request["place"]["index"]) % PORTS


def distributed(place: Place, shape: Shape, node: int, local: int, port: int) -> dict[str, str]:
    """What torch.distributed, Horovod and their like read.

    RANK counts along the place's nodes, so that rank 0 is on the one that MASTER_ADDR names.
    """
    alone = len(place["nodes"]) == 1
    return {
        "MASTER_ADDR": "127.0.0.1" if alone else _address(place["nodes"][0][0]),
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(shape.ranks),
        "RANK": str(node * shape.per_node + local),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(shape.per_node),
        "NODE_RANK": str(node),
    }


def _address(name: str) -> str:
    """A node's name, or this machine's for one that exists in name only."""
    try:
        socket.gethostbyname(name)
    except OSError:
        return socket.gethostname()
    return name


def hardware_threads(cores: Iterable[int], allowed: Iterable[int] | None = None) -> set[int]:
    """The hardware threads of a node's cores, which are counted socket by socket.

    Args:
        cores: numbers from 0.
        allowed: the hardware threads to count in; those that this process may use by default.

    Returns:
        Nothing where the node has fewer cores than that: then nothing is bound.
    """
    usable = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    by_core: dict[tuple[int, int], set[int]] = {}
    for thread in usable:
        by_core.setdefault(_core_of(thread), set()).add(thread)
    groups = [by_core[core] for core in sorted(by_core)]
    wanted = list(cores)
    if not wanted or max(wanted) >= len(groups):
        return set()
    return set().union(*(groups[core] for core in wanted))


def _core_of(thread: int) -> tuple[int, int]:
    """(socket, core) of a hardware thread, from sysfs; each its own core where that is missing."""
    folder = Path(f"/sys/devices/system/cpu/cpu{thread}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int(
            (folder / "core_id").read_text()
        )
    except (OSError, ValueError):
        return (0, thread)


def bind(pid: int, threads: set[int]) -> None:
    """Bind a process, with all threads that it has, to hardware threads.

    A node that does not allow it (a cpuset that shrank) leaves the process unbound.
    """
    if not threads:
        return
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task), threads)
