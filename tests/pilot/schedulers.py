"""A scheduler of prepared replies, and providers that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc_hpo.pilot.launchers import JobScript
from hpc_hpo.pilot.scheduler import Reply, SteadyJobs


class Replies:
    """Answers each command with the next of the replies prepared for its first word."""

    def __init__(self, **replies: list[tuple[int | None, str, str]]) -> None:
        self._replies = replies
        self.calls: list[list[str]] = []
        self.stdins: list[Path | None] = []

    def __call__(self, argv: Sequence[str], stdin: Path | None = None) -> Reply:
        self.calls.append(list(argv))
        self.stdins.append(stdin)
        prepared = self._replies[argv[0]]
        status, out, err = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        return Reply(" ".join(argv), status, out, err)

    def count(self, command: str) -> int:
        """How often a command was called."""
        return sum(1 for argv in self.calls if argv[0] == command)


def ready(jobs: SteadyJobs, folder: Path, replies: Replies) -> SteadyJobs:
    """A provider whose scripts hold `true` and whose commands are answered by `replies`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs.script_dir = str(folder)
    jobs.call = replies
    jobs.compose = lambda block, directives, command: JobScript(
        directives, (), "", (), command, f"{folder}/{block}.start", f"{folder}/{block}.signal"
    )
    return jobs
