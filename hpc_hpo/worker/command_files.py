"""The files of a command's working directory: checkpoints watched for, saved and put back."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hpc_hpo.worker.checkpoint import FILES, Saved

#: A file that did not change for this long is taken as whole.
QUIET_S = 0.25
#: Files that never come to rest are copied after this all the same, if no change falls into
#: the copying.
RESTLESS_S = 2.0
Signature = dict[str, tuple[int, int]]


def put_back(saved: Saved | None, workdir: Path) -> None:
    """Copy the files of a checkpoint to where the command had written them."""
    if saved is not None and (saved.folder / FILES).is_dir():
        shutil.copytree(saved.folder / FILES, workdir, dirs_exist_ok=True)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are, and of folders all that is in them."""
    for path in paths:
        yield path
        if path.is_dir():
            yield from path.rglob("*")


class FileWatch:
    """Says when the checkpoint files have changed and are quiet enough to be copied.

    Only changes that this object has seen itself count, so the clocks of file servers do not
    matter.

    Args:
        workdir: the command's working directory.
        globs: patterns of files and folders, relative to it.
        ignore: names never saved, because the worker or the command makes them anew.
    """

    def __init__(self, workdir: Path, globs: Sequence[str], ignore: Sequence[str]) -> None:
        self._workdir, self._globs, self._ignore = workdir, list(globs), frozenset(ignore)
        self._saved = self.look()
        self._seen = self._saved
        self._seen_at = float("-inf")
        self._unsaved_at: float | None = None

    def look(self) -> Signature:
        """Relative name -> (modification time in ns, size) of every checkpoint file."""
        found: Signature = {}
        for pattern in self._globs:
            for path in _files(self._workdir.glob(pattern)):
                try:
                    if path.is_file():
                        name = path.relative_to(self._workdir).as_posix()
                        status = path.stat()
                        found[name] = (status.st_mtime_ns, status.st_size)
                except FileNotFoundError:
                    continue  # replaced while we looked
        return {name: s for name, s in found.items() if name not in self._ignore}

    def changed(self, now: float, *, quiet: bool) -> Signature | None:
        """The files when they differ from the last save, and (if asked) have come to rest."""
        current = self.look()
        if current != self._seen:
            self._seen, self._seen_at = current, now
        if not current or current == self._saved:
            self._unsaved_at = None
            return None
        if self._unsaved_at is None:
            self._unsaved_at = now
        restless = now - self._unsaved_at >= RESTLESS_S
        return None if quiet and now - self._seen_at < QUIET_S and not restless else current

    def copy(self, signature: Signature, folder: Path) -> None:
        """Copy the files into a checkpoint's folder.

        Raises:
            OSError: one cannot be copied; errno EAGAIN when one changed meanwhile.
        """
        for name in signature:
            target = folder / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(self._workdir / name, target)
            except FileNotFoundError as error:
                raise OSError(errno.EAGAIN, f"{name} was removed while it was saved") from error
            os.utime(target, ns=(signature[name][0], signature[name][0]))
        if self.look() != signature:
            raise OSError(errno.EAGAIN, "a checkpoint file changed while it was saved")

    def mark_saved(self, signature: Signature) -> None:
        """The files as they were at the last save."""
        self._saved, self._unsaved_at = signature, None
