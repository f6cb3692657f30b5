"""Checkpoints of a trial: folders that appear whole, are verified, and are never half there.

``trials/<id>/ckpt-<slice>-<seq>/`` holds ``meta.json`` (one sealed line: the files' sizes and
sha256, the step, the reports so far) and the files, ``state.h5`` and ``files/...``. It is built
under a temporary name and committed by one rename.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_hpo.clock import Clock
from hpc_hpo.errors import CheckpointError
from hpc_hpo.fsio import fsync_dir, seal, sha256_of, unseal
from hpc_hpo.model import INHERITED, CheckpointInfo
from hpc_hpo.worker.fence import check_fence, checkpoints_of, list_names

META = "meta.json"
STATE = "state.h5"
FILES = "files"
_ANY = re.compile(r"ckpt-(\d{6,})-(\d{6,})$")
_LEFTOVER = re.compile(r"\.(?:ckpt|fence)-(\d{6,}).*\.tmp$")


@dataclass(frozen=True)
class Saved:
    """One committed checkpoint and what its meta.json says."""

    folder: Path
    meta: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def info(self) -> CheckpointInfo:
        """What an outcome tells about it."""
        number = _ANY.match(self.name)
        assert number is not None
        return CheckpointInfo(
            name=self.name, slice=int(number[1]), at=self.meta["at"], step=self.meta["step"]
        )

    @property
    def reports(self) -> dict[int, dict[str, float]]:
        """Metrics by step, all that had been reported when it was committed."""
        return {int(step): metrics for step, metrics in self.meta["reports"]}


def _hash_and_sync(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
        os.fsync(stream.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _seal_folder(folder: Path, meta: dict[str, Any]) -> None:
    """Write meta.json about all files of `folder` and make everything durable."""
    files = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            files[path.relative_to(folder).as_posix()] = _hash_and_sync(path)
    with open(folder / META, "wb") as stream:
        stream.write(seal({"files": files, **meta}))
        stream.flush()
        os.fsync(stream.fileno())
    for place, _, _ in os.walk(folder):
        fsync_dir(Path(place))


def read_saved(folder: Path) -> Saved:
    """The checkpoint in `folder`, its meta.json checked but not its files.

    Raises:
        CheckpointError: missing, or its meta.json is damaged.
    """
    try:
        meta = unseal((folder / META).read_bytes().rstrip(b"\n"))
    except OSError as error:
        raise CheckpointError(f"{folder}: {error.strerror}") from error
    if meta is None:
        raise CheckpointError(f"{folder / META}: its checksum does not match")
    return Saved(folder, meta)


def verify(folder: Path) -> Saved:
    """The checkpoint in `folder`, every file compared with its size and sha256.

    Raises:
        CheckpointError: the text names the first file that differs.
    """
    saved = read_saved(folder)
    for name, expected in saved.meta["files"].items():
        path = folder / name
        try:
            if path.stat().st_size != expected["size"]:
                raise CheckpointError(
                    f"{path}: {path.stat().st_size} bytes, {expected['size']} were written"
                )
            if sha256_of(path) != expected["sha256"]:
                raise CheckpointError(f"{path}: its sha256 does not match")
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
    return saved


def choose(
    folder: Path, names: list[str], note: Callable[[str], object]
) -> tuple[Saved | None, list[str]]:
    """The first whole checkpoint of `names`, and its name with those after it that exist.

    Args:
        folder: the trial's folder.
        names: candidates, best first (fence.candidates).
        note: told about every damaged checkpoint that is passed over.
    """
    present = [name for name in names if (folder / name).is_dir()]
    for position, name in enumerate(present):
        try:
            return verify(folder / name), present[position:]
        except CheckpointError as error:
            note(f"checkpoint {name} is damaged and passed over: {error}")
    return None, []


def inherit(source: Path, folder: Path) -> Saved:
    """Give a trial that has not begun the checkpoint of another.

    Its files become links to the same content where the file system has hard links, so that it
    costs no space and outlives the other's pruning; copies elsewhere.

    Args:
        source: the checkpoint's folder.
        folder: the new trial's.

    Raises:
        CheckpointError: it is gone or damaged, or is being removed.
        OSError: the folder cannot be written.
    """
    saved, final = read_saved(source), folder / INHERITED
    temporary = folder / f".{INHERITED}.{os.getpid()}.tmp"
    # What a crash left behind of a trial that was never announced.
    shutil.rmtree(final, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name in (*saved.meta["files"], META):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source / name, target)
        os.rename(temporary, final)
        fsync_dir(folder)
    except FileNotFoundError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{source}: {error.strerror}") from error
    return Saved(final, saved.meta)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        # No hard links here, or too many of one file.
        shutil.copy2(source, target)


def names_of(folder: Path) -> list[str]:
    """Names of a trial's checkpoints, those of its newest slice and the newest of each first."""
    return sorted((name for name in list_names(folder) if _ANY.match(name)), reverse=True)


def newest_of(folder: Path, slice_: int) -> Saved | None:
    """The newest checkpoint a slice has committed, for outcomes of payloads that died."""
    for name in checkpoints_of(list_names(folder), slice_):
        try:
            return read_saved(folder / name)
        except CheckpointError:
            continue  # the one before is the newest readable one
    return None


def remove_leftovers(folder: Path, slice_: int) -> None:
    """Remove the temporary files and folders that dead older slices left behind."""
    for name in list_names(folder):
        match = _LEFTOVER.match(name)
        if match and int(match[1]) < slice_:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class Store:
    """Commits the checkpoints of one slice.

    Args:
        folder: the trial's folder, made at the first commit.
        slice_: the fencing number.
        lineage: names of the checkpoints gone on from, newest first.
        keep: how many to keep; two at least, for the one before has to stand in for a
            damaged newest one, and the next slice's choice relies on it (see fence).
        clock: injected time.
    """

    def __init__(
        self, folder: Path, slice_: int, lineage: list[str], keep: int, clock: Clock
    ) -> None:
        self.folder, self.slice, self.keep = folder, slice_, max(2, keep)
        self._lineage, self._clock = list(lineage), clock
        self._sequence = 0
        self.last: Saved | None = None
        self.last_at: float | None = None
        self.longest_s = 0.0
        self.first_at: float | None = None

    def commit(
        self,
        build: Callable[[Path], None],
        *,
        step: int | None,
        reports: dict[int, dict[str, float]],
        kind: str,
    ) -> Saved:
        """Let `build` fill a new folder and make it the trial's newest checkpoint.

        Raises:
            Fenced: a newer slice has started; nothing was committed.
            CheckpointError: from `build`.
            OSError: it cannot be written; what was written is removed.
        """
        begun = self._clock.now()
        number = self._sequence + 1
        name = f"ckpt-{self.slice:06d}-{number:06d}"
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        final = self.folder / name
        meta = {
            "kind": kind,
            "step": step,
            "at": begun,
            "reports": [[s, m] for s, m in reports.items()],
        }
        try:
            temporary.mkdir(parents=True)
            build(temporary)
            _seal_folder(temporary, meta)
            check_fence(self.folder, self.slice)
            os.rename(temporary, final)
            fsync_dir(self.folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError):
                # A newer slice removes what older ones are writing.
                check_fence(self.folder, self.slice)
            raise
        self._sequence = number
        self._lineage.insert(0, name)
        now = self._clock.now()
        self.longest_s = max(self.longest_s, now - begun)
        self.last, self.last_at = Saved(final, meta), now
        self.first_at = now if self.first_at is None else self.first_at
        self._prune()
        return self.last

    def _prune(self) -> None:
        # A slice that started meanwhile may have chosen one of these; it removes them itself.
        check_fence(self.folder, self.slice)
        kept = self._lineage[: self.keep]
        for name in list_names(self.folder):
            match = _ANY.match(name)
            if match and int(match[1]) <= self.slice and name not in kept:
                shutil.rmtree(self.folder / name, ignore_errors=True)
        self._lineage = kept
