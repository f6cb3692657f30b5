"""Whether the staged files are still what was staged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import sha256_of
from hpc_hpo.prestage.manifest import Manifest, StagedFile
from hpc_hpo.prestage.wheel_inputs import verify_wheels


def verify(
    manifest: Manifest,
    folder: StudyFolder,
    *,
    rehash: bool,
    segments: bool = True,
    tell: Callable[[str, int], None] = lambda name, size: None,
) -> Iterator[str]:
    """What is wrong with the staged files, one sentence each, in the manifest's order.

    Args:
        rehash: read every file again, several at one time; otherwise only those whose size or
            time has changed.
        segments: False looks only at what all trials share.
        tell: called with the target and size of each file that was looked at, in their order.
    """
    files = [file for file in manifest.files if segments or file.segment is None]

    def look(file: StagedFile) -> str | None:
        return _problem(file, folder, rehash)

    # Hashing a large block releases the interpreter's lock, so threads are as good as processes.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for file, problem in zip(files, pool.map(look, files), strict=True):
            tell(file.target, file.size)
            if problem is not None:
                owner = f" of segment {file.segment}" if file.segment is not None else ""
                yield f"input {file.input}{owner}: {file.target} {problem}"
    yield from verify_wheels(manifest, folder, rehash=rehash)


def broken_segments(manifest: Manifest, folder: StudyFolder) -> dict[str | None, str]:
    """Segments of which a staged input is not as it was -> what is wrong with it. Only files
    whose size or time has changed are read."""
    found: dict[str | None, str] = {}
    for file in manifest.files:
        if file.segment is None or file.segment in found:
            continue
        problem = _problem(file, folder, False)
        if problem is not None:
            found[file.segment] = (
                f"input {file.input}: {file.target} {problem}; bring it back, or take it as it is "
                "now: `hpc-hpo prestage --update`"
            )
    return found


def _problem(file: StagedFile, folder: StudyFolder, rehash: bool) -> str | None:
    path = folder.path / file.target
    try:
        stat = path.stat()
        if stat.st_size != file.size:
            return f"has {stat.st_size} bytes, {file.size} were staged"
        if (rehash or stat.st_mtime_ns != file.mtime_ns) and sha256_of(path) != file.sha256:
            return "has changed since it was staged"
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        return f"{'is missing' if gone else 'cannot be read'} ({error.strerror})"
    return None
