"""The record of a chain of batch jobs, each of which steers the study and submits the next.

It lies in the study folder, because the chain is written to from the login node that begins it,
from each of its jobs, and from wherever it is stopped. It bounds the chain: a job that finds it
closed, or its number of jobs reached, submits none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock

from hpc_hpo.errors import StorageError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import storage_error, write_atomic

#: How long a writer waits for another one's turn, in seconds; a turn takes milliseconds.
TURN_S = 60.0


@dataclass(frozen=True)
class Chain:
    """What is known of a chain.

    Attributes:
        site: what its jobs were submitted to, as the path of the site's file.
        max_jobs: it has no more jobs than these.
        jobs: their ids, in the order of submission.
        closed: why it goes no further; "" while it may.
    """

    site: str
    max_jobs: int
    jobs: tuple[str, ...] = ()
    closed: str = ""

    def successor(self, job: str) -> str | None:
        """The job that was submitted to follow `job`."""
        after = self.jobs[self.jobs.index(job) + 1 :] if job in self.jobs else ()
        return after[0] if after else None

    @property
    def full(self) -> bool:
        """Whether it may have no further job."""
        return bool(self.closed) or len(self.jobs) >= self.max_jobs


def chain_file(folder: StudyFolder) -> Path:
    """Where the record is."""
    return folder.path / "chain.json"


def read_chain(folder: StudyFolder) -> Chain | None:
    """The study's newest chain; None when it never had one.

    Raises:
        StorageError: the record cannot be read.
    """
    path = chain_file(folder)
    try:
        facts = json.loads(path.read_text())
        return Chain(**{**facts, "jobs": tuple(facts["jobs"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"{path}: cannot be read: {error}; remove it when no job of the study is queued"
        ) from error


def waiting_job(chain: Chain | None) -> str | None:
    """The job that is to go on with the study, as far as the record tells; None = none is."""
    return chain.jobs[-1] if chain is not None and chain.jobs and not chain.closed else None


def change_chain(folder: StudyFolder, change: Callable[[Chain | None], Chain]) -> Chain:
    """Replace the record by what `change` makes of it, one writer at a time.

    Raises:
        StorageError: the record cannot be written, or another writer does not end.
    """
    lock = folder.path / "chain.lock"
    try:
        with filelock.FileLock(lock, timeout=TURN_S):
            chain = change(read_chain(folder))
            write_atomic(chain_file(folder), json.dumps(asdict(chain), indent=1) + "\n")
            return chain
    except filelock.Timeout:
        raise StorageError(f"{lock}: held by another process for {TURN_S:.0f} s") from None
    except OSError as error:
        raise storage_error(lock, error) from error


def add_job(folder: StudyFolder, job: str) -> Chain:
    """Record a job of the open chain; once is enough."""

    def change(chain: Chain | None) -> Chain:
        assert chain is not None, "a job belongs to a chain that was begun"
        return chain if job in chain.jobs else replace(chain, jobs=(*chain.jobs, job))

    return change_chain(folder, change)


def close_chain(folder: StudyFolder, why: str) -> Chain | None:
    """Let the chain go no further; the first reason stays. None when there is none."""
    if read_chain(folder) is None:
        return None

    def change(chain: Chain | None) -> Chain:
        assert chain is not None
        return chain if chain.closed else replace(chain, closed=why.splitlines()[0])

    return change_chain(folder, change)
