"""What a scheduler could start at once: backfill windows of LSF, idle nodes of Slurm.

A window is a promise to nobody: another user may take it first, and idle nodes of Slurm may be
kept for jobs that wait already. A job shaped to it starts no later for that.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from hpc_hpo.errors import PilotError
from hpc_hpo.pilot.queues import slurm_queue
from hpc_hpo.pilot.scheduler import Caller, Reply, call
from hpc_hpo.site import Site

#: bslots prints slots and, for instance, "1 hours 30 minutes 0 seconds", or UNLIMITED.
_WINDOW = re.compile(
    r"(?P<slots>\d+)\s+(?:(?P<unlimited>UNLIMITED)"
    r"|(?:(?P<hours>\d+) hours? ?)?(?:(?P<minutes>\d+) minutes? ?)?(?:(?P<seconds>\d+) seconds?)?)"
)
_NO_WINDOW = "No backfill window"


class Window(NamedTuple):
    """Nodes that are free now, and for how long."""

    nodes: int
    seconds: float  #: infinity where nothing is known to end it


class NotTold(PilotError):
    """The scheduler does not say what is free."""


def free_windows(site: Site, queue: str | None, caller: Caller = call) -> list[Window]:
    """What a job of this user could have at once, largest first.

    Args:
        site: whose scheduler is asked, with one command.
        queue: a queue's name; None = the site's default.
        caller: runs the command; replaced in tests.

    Raises:
        NotTold: the command failed, or the scheduler has none for this.
        InputError: the site lists its queues, and not this one.
    """
    if site.scheduler == "lsf":
        # Without the selection the launch nodes of a jsrun site are counted, too.
        select = ["-Rselect[CN]"] if site.launcher == "jsrun" else []
        windows = _bslots(caller(["bslots", *select], None), site.node.cores)
    elif site.scheduler == "slurm":
        partition, _ = slurm_queue(site, queue)
        where = [f"--partition={partition}"] if partition else []
        windows = _sinfo(caller(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N", *where], None))
    else:
        raise NotTold(f"the scheduler of {site.name} ({site.scheduler}) does not say what is free")
    return sorted((w for w in windows if w.nodes), reverse=True)


def _bslots(reply: Reply, cores: int) -> list[Window]:
    if _NO_WINDOW in reply.out + reply.err:
        return []
    lines = [line.strip() for line in reply.out.splitlines() if line.strip()]
    if reply.status != 0 or not lines or not lines[0].startswith("SLOTS"):
        raise NotTold(f"bslots did not say what is free:\n{reply}")
    windows = []
    for line in lines[1:]:
        match = _WINDOW.fullmatch(line)
        if match is None:
            raise NotTold(f"bslots said something else:\n{reply}")
        hours, minutes, seconds = (int(match[k] or 0) for k in ("hours", "minutes", "seconds"))
        lasts = math.inf if match["unlimited"] else 3600.0 * hours + 60.0 * minutes + seconds
        windows.append(Window(int(match["slots"]) // cores, lasts))
    return windows


def _sinfo(reply: Reply) -> list[Window]:
    if reply.status != 0:
        raise NotTold(f"sinfo did not say what is free:\n{reply}")
    return [Window(len(set(reply.out.split())), math.inf)]
