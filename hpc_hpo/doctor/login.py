"""What can be seen from the login node: the scheduler, the network, the versions."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from hpc_hpo.doctor.rows import Row, State
from hpc_hpo.errors import HpoError
from hpc_hpo.pilot.executor import port_ranges
from hpc_hpo.pilot.queues import queue_name, slurm_queue
from hpc_hpo.pilot.scheduler import Caller, call
from hpc_hpo.pilot.sources import address_of
from hpc_hpo.preflight import Versions, compare, versions_here
from hpc_hpo.site import Site
from hpc_hpo.site.target import target_of

#: The commands by which blocks are submitted, watched and cancelled.
COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "pbs": ("qsub", "qstat", "qdel"),
}
#: What a launcher is called on PATH.
LAUNCHERS = {"srun": "srun", "jsrun": "jsrun", "mpiexec": "mpiexec", "openmpi": "mpirun"}
#: A scheduler that takes longer to answer is slow, in seconds.
SLOW_S = 5.0
#: Fewer free ports than this are soon used up by other users.
FEW_PORTS = 50


def scheduler_rows(site: Site, queue: str | None, caller: Caller = call) -> Iterator[Row]:
    """Whether the scheduler's commands are there and answer, and know the queue."""
    if not site.batch:
        yield Row("ok", "scheduler", "none: blocks are processes of this machine")
        return
    commands = COMMANDS[site.scheduler]
    absent = [name for name in commands if shutil.which(name) is None]
    if absent:
        yield Row(
            "fail", "scheduler commands", f"not on PATH: {', '.join(absent)}",
            "run it on the site's login node; or load the scheduler's module",
        )  # fmt: skip
    else:
        yield Row("ok", "scheduler commands", ", ".join(commands))
        yield from _answers(site, queue, caller)
    program = LAUNCHERS.get(site.launcher)
    if program is not None and shutil.which(program) is None:
        yield Row(
            "warn", "launcher", f"{program} is not on PATH here",
            "it may be there in jobs only; --job looks",
        )  # fmt: skip
    elif program is not None:
        yield Row("ok", "launcher", program)


def _answers(site: Site, queue: str | None, caller: Caller) -> Iterator[Row]:
    ask = {
        "slurm": ["squeue", "-h", "-u", getpass.getuser(), "-o", "%i"],
        "lsf": ["bjobs", "-noheader", "-o", "jobid stat"],
        "pbs": ["qstat"],
    }[site.scheduler]
    begun = time.monotonic()
    reply = caller(ask, None)
    took = time.monotonic() - begun
    # bjobs exits with 255 where a user has no job.
    idle = site.scheduler == "lsf" and "No unfinished job" in reply.err + reply.out
    if reply.status != 0 and not idle:
        said = " ".join((reply.err or reply.out).split())[:150]
        yield Row(
            "fail", "scheduler answers", f"{ask[0]}: exit status {reply.status}; {said}",
            "try again later; if it stays, ask the site's support",
        )  # fmt: skip
        return
    state: State = "warn" if took > SLOW_S else "ok"
    remedy = "a longer poll in the site's file is kind to it" if took > SLOW_S else ""
    yield Row(state, "scheduler answers", f"{ask[0]} in {took:.1f} s", remedy)
    yield _queue(site, queue, caller)


def _queue(site: Site, queue: str | None, caller: Caller) -> Row:
    name = queue_name(site, queue)
    if site.scheduler == "slurm":
        name, _ = slurm_queue(site, queue)
    ask = {
        "slurm": ["sinfo", "-h", "-o", "%R"], "lsf": ["bqueues", "-w"], "pbs": ["qstat", "-Q"]
    }[site.scheduler]  # fmt: skip
    if name is None:
        return Row("not checked", "queue", "the scheduler's own default", "--queue names one")
    reply = caller(ask, None)
    if reply.status != 0:
        return Row("not checked", "queue", f"{ask[0]}: exit status {reply.status}", "")
    names = sorted({line.split()[0] for line in reply.out.splitlines() if line.split()})
    if name in names:
        return Row("ok", "queue", name)
    listed = ", ".join(names)[:150] or "none"
    return Row("fail", "queue", f"{name} is not among {listed}", "name one of them: queue, --queue")


def network_rows(
    site: Site, ranges: Callable[[], dict[str, tuple[int, int]]] = port_ranges
) -> Iterator[Row]:
    """Whether the address that workers are told is this machine's, with ports that are free."""
    try:
        address = address_of(site)
    except HpoError as error:
        yield Row("fail", "address", str(error), "ip -brief address lists the interfaces")
        return
    via = f" ({site.interface})" if site.interface and address != site.address else ""
    try:
        with socket.create_server((address, 0)):
            pass
    except OSError as error:
        yield Row(
            "fail", "address", f"{address}{via} is not this machine's: {error.strerror}",
            "state interface or address in the site's file",
        )  # fmt: skip
        return
    if site.batch and address.startswith("127."):
        yield Row(
            "warn", "address", f"{address} is reached from this machine alone",
            "state the interface that compute nodes reach: interface in the site's file",
        )  # fmt: skip
    else:
        yield Row("ok", "address", f"{address}{via}")
    for who, (first, last) in ranges().items():
        place = address if who == "workers" else "127.0.0.1"
        free = sum(_free(place, port) for port in range(first, last))
        found = f"{free} of {last - first} are free from {first} on at {place}"
        state: State = "ok" if free >= FEW_PORTS else "warn" if free else "fail"
        yield Row(
            state,
            f"ports for {who}",
            found,
            "" if state == "ok" else "end what holds them: ss -ltnp",
        )


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def version_rows(site: Site) -> Iterator[Row]:
    """Python and packages here, and of the workers as far as their files show."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Row("ok", "Python here", f"{version} ({sys.executable})")
    try:
        needs = importlib.metadata.requires("hpc_hpo") or []
    except importlib.metadata.PackageNotFoundError:
        needs = []
        yield Row(
            "not checked", "packages here", "hpc_hpo is not installed, it runs from its source",
            "pip install it, so that its requirements are known",
        )  # fmt: skip
    for line in needs:
        need = Requirement(line)
        if need.name in ("parsl", "numpy", "h5py") and need.marker is None:
            yield _package(need)
    yield from _workers(site)


def _package(need: Requirement) -> Row:
    install = f"pip install '{need}'"
    try:
        version = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return Row("fail", f"{need.name} here", "not installed", install)
    if not need.specifier.contains(Version(version), prereleases=True):
        return Row("fail", f"{need.name} here", f"{version}, needed is {need.specifier}", install)
    return Row("ok", f"{need.name} here", version)


def _workers(site: Site) -> Iterator[Row]:
    what, ask = "workers' environment", "--job asks a node"
    if site.python is None:
        loaded = "modules" if site.modules else "worker_init" if site.worker_init else ""
        if loaded:
            yield Row("not checked", what, f"what {loaded} of the site makes of it", ask)
        elif site.arch != platform.machine():
            yield Row(
                "fail", what, f"this one, of {platform.machine()}; the nodes are {site.arch}",
                "state python in the site's file, or run it on the site's login node",
            )  # fmt: skip
        else:
            yield Row("ok", what, f"this one ({sys.executable})")
        return
    python = Path(os.path.expanduser(site.python))
    prefix = python.parent.parent
    found = Versions()
    for pattern in ("lib*/python3*/site-packages/*-info", "lib*/python3*/os.py", "conda-meta/p*"):
        for path in prefix.glob(pattern):
            found.note(str(prefix), path.relative_to(prefix).as_posix())
    place = found.places.get(str(prefix))
    if not python.exists():
        yield Row("fail", what, f"{site.python} is not there", "python in the site's file")
    elif place is None or "parsl" not in place.packages:
        yield Row("not checked", what, f"no Parsl was found beside {site.python}", ask)
    else:
        levels: dict[str, State] = {"wrong": "fail", "warning": "warn"}
        rows = list(compare(found, versions_here(), target_of(site).python))
        for row in rows:
            state = levels.get(row.level, "not checked")
            yield Row(state, what, f"{row.found}; needed is {row.needed}", row.remedy)
        if not rows:
            listed = ", ".join(f"{k} {v}" for k, v in sorted(place.packages.items()))
            yield Row("ok", what, f"{listed} in {prefix}")
