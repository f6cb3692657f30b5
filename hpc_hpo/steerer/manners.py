"""What a login node allows one process: the CPU time of steering, watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil

from hpc_hpo.clock import Clock
from hpc_hpo.site import CpuLimit
from hpc_hpo.units import format_duration

#: Shares of the CPU time at which the site slows a process down: say so, and end before it.
WARN_SHARE, END_SHARE = 0.75, 0.95
#: How often the time is read, in seconds.
LOOK_S = 10.0


def busiest_cpu_s(clock: Clock) -> float:
    """CPU seconds of the busier of this process and Parsl's interchange, which it started.

    A limit counts for each process. Workers on site ``local`` are children too, but not steering.
    """
    used = [clock.cpu()]
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "hpc_hpo.pilot.interchange" in child.cmdline():
                times = child.cpu_times()
                used.append(times.user + times.system)
    return max(used)


class CpuWatch:
    """Warns when steering comes near the login node's limit, and then asks it to end in order.

    Args:
        limit: the site's; None = there is none.
        clock: see Clock.
        say: tells the user one line.
        used: CPU seconds so far.
    """

    def __init__(
        self,
        limit: CpuLimit | None,
        clock: Clock,
        say: Callable[[str], None],
        used: Callable[[Clock], float] = busiest_cpu_s,
    ) -> None:
        self._limit, self._clock, self._say, self._used = limit, clock, say, used
        self._next_look = 0.0
        self._warned = False
        self._over = False

    def wish(self) -> str:
        """As Steering's `stop` asks it: "drain" once the limit is near."""
        if self._limit is None or self._over or self._clock.now() < self._next_look:
            return "drain" if self._over else ""
        self._next_look = self._clock.now() + LOOK_S
        used, most = self._used(self._clock), self._limit.warn
        self._over = used >= END_SHARE * most
        if not self._warned and used >= WARN_SHARE * most:
            self._warned = True
            self._say(
                f"steering has used {format_duration(round(used))} of CPU time here; the site "
                f"slows a process down at {format_duration(most)} and kills it at "
                f"{format_duration(self._limit.kill)}, so it ends in order at "
                f"{format_duration(round(END_SHARE * most))}"
            )
        return "drain" if self._over else ""
