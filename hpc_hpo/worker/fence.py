"""Fences: which slice of a trial may commit, and which checkpoints it may go on from.

A node taken for dead may still run its slice while the trial has been started elsewhere. Slice
n >= 2 therefore first creates ``fence-<n>`` in the trial's folder, and every slice looks for a
higher fence before it commits. The order of a start is:

1. create the fence exclusively. From here on no older slice begins a commit or removes a
   checkpoint, except one it was already in the middle of;
2. choose among the checkpoints: those of the slice that held the fence before, then those this
   one had itself gone on from. A late commit of any older slice is not among them;
3. write the choice into the fence (one atomic replace).

A fence without a choice belongs to a slice that never ran its payload; it committed nothing, so
the next slice looks through it to the one before. A slice in the middle of a commit in step 1 may
still remove the checkpoint two before its newest; no slice chooses that one, because at least
two are kept.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from hpc_hpo.fsio import write_atomic
from hpc_hpo.model import INHERITED

_FENCE = re.compile(r"fence-(\d{6,})$")
_CHECKPOINT = re.compile(r"ckpt-(\d{6,})-(\d{6,})$")


class Fenced(BaseException):
    """A newer slice of the trial exists.

    Not an Exception, so that an objective's ``except Exception`` does not go on past it.
    """


def list_names(folder: Path) -> list[str]:
    """Names in the trial's folder; none when it does not exist."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def fence_path(folder: Path, slice_: int) -> Path:
    """The fence of a slice."""
    return folder / f"fence-{slice_:06d}"


def highest_fence(names: list[str]) -> int:
    """The highest fenced slice; 1 when there is none, for the first slice makes no fence."""
    return max((int(m[1]) for name in names if (m := _FENCE.match(name))), default=1)


def check_fence(folder: Path, slice_: int) -> None:
    """Raises Fenced when a newer slice of the trial has started."""
    newest = highest_fence(list_names(folder))
    if newest > slice_:
        raise Fenced(f"slice {newest} has taken over from slice {slice_}")


def claim(folder: Path, slice_: int) -> None:
    """Take the trial over from all older slices.

    Raises:
        Fenced: this or a newer slice has started already.
        OSError: the folder cannot be written.
    """
    check_fence(folder, slice_)
    if slice_ < 2:
        if checkpoints_of(list_names(folder), slice_):
            raise Fenced(f"slice {slice_} has started already")
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(fence_path(folder, slice_), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        raise Fenced(f"slice {slice_} has started already") from None
    check_fence(folder, slice_)


def checkpoints_of(names: list[str], slice_: int) -> list[str]:
    """Names of the checkpoints a slice has committed, the newest first."""
    mine = [(int(m[2]), n) for n in names if (m := _CHECKPOINT.match(n)) and int(m[1]) == slice_]
    return [name for _, name in sorted(mine, reverse=True)]


def _read_choice(path: Path) -> list[str] | None:
    """The checkpoints a slice chose to go on from, newest first; None before it has chosen."""
    content = path.read_bytes()
    if not content:
        return None
    return [str(name) for name in json.loads(content)["lineage"]]


def candidates(folder: Path, slice_: int, inherits: bool = False) -> list[str]:
    """Names of the checkpoints slice `slice_` may go on from, best first; some may be gone.

    Args:
        inherits: the trial began with a checkpoint of another.
    """
    names = list_names(folder)
    holders = sorted((int(m[1]) for n in names if (m := _FENCE.match(n))), reverse=True)
    for holder in holders:
        if holder >= slice_:
            continue
        choice = _read_choice(fence_path(folder, holder))
        if choice is not None:
            return checkpoints_of(names, holder) + choice
    first = checkpoints_of(names, 1) if slice_ > 1 else []
    return [*first, INHERITED] if inherits else first


def record_choice(folder: Path, slice_: int, lineage: list[str]) -> None:
    """Write what the slice goes on from, newest first, into its fence.

    Raises:
        StorageError: the folder cannot be written.
    """
    if slice_ < 2:
        return
    content = {"restored": lineage[0] if lineage else None, "lineage": lineage}
    write_atomic(fence_path(folder, slice_), json.dumps(content) + "\n")
