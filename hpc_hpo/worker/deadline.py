"""When a block ends, from all that is known about it: the earliest moment counts."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Set by the job script (pilot/launchers.py): when the job began, seconds since the epoch; when
#: it asked the scheduler for its remaining time, and the answer; which start of the job this is.
JOB_START = "HPC_HPO_JOB_START"
TIME_LEFT = "HPC_HPO_TIME_LEFT"
RESTART = "HPC_HPO_RESTART"

#: squeue's %L: [days-][hours:]minutes:seconds
_SLURM = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)\Z")
#: bjobs's time_left: hours:minutes and L, of the run limit. E is LSF's own estimate, X is past it.
_LSF = re.compile(r"(\d+):(\d+) L\Z")


def parse_time_left(text: str) -> float | None:
    """Seconds that a scheduler's answer leaves at most; None when it does not say.

    LSF tells whole minutes, of which the last may have just begun.
    """
    text = text.strip()
    if match := _LSF.match(text):
        return int(match[1]) * 3600.0 + int(match[2]) * 60.0 + 59.0
    if match := _SLURM.match(text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24.0 + hours) * 60.0 + minutes) * 60.0 + seconds
    return None


def find_start(environ: Mapping[str, str], now: float) -> float:
    """When the job began: by its script, else now. Seconds since the epoch."""
    text = environ.get(JOB_START, "")
    return float(text) if text.isdigit() else now


def find_end(environ: Mapping[str, str], walltime_s: float, start: float) -> float | None:
    """The block's end in seconds since the epoch; None when nobody knows one.

    Args:
        environ: with the variables above, and Slurm's own where it sets them.
        walltime_s: what was asked for; 0 = nothing.
        start: of the job.
    """
    ends = [start + walltime_s] if walltime_s else []
    if (told := environ.get("SLURM_JOB_END_TIME", "")).isdigit():
        ends.append(float(told))
    asked, _, answer = environ.get(TIME_LEFT, "").partition(" ")
    left = parse_time_left(answer)
    if asked.isdigit() and left is not None:
        ends.append(float(asked) + left)
    return min(ends, default=None)


def block_name(block: str, environ: Mapping[str, str]) -> str:
    """The block's id; a requeued job is a new block under the same job id."""
    restart = environ.get(RESTART, "0")
    return block if restart in ("", "0") else f"{block}.{restart}"
