"""Staging of local files, folders and globs: linked or copied into the study folder."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import sha256_of, storage_error
from hpc_hpo.prestage.manifest import Failure, Manifest, StagedFile, load_manifest
from hpc_hpo.study import Input, Study

CHUNK = 1 << 20


def home_of(spec: Input) -> str:
    """The folder of an input, below the study folder."""
    if spec.segment is None:
        return f"inputs/{spec.name}"
    # A name holds no hyphen, so that no shared input is called as a segment's folder.
    return f"inputs/segment-{quote(spec.segment, safe='')}/{spec.name}"


def source_problem(
    study: Study, spec: Input, problem: str, *, found: str | None = None, valid: str | None = None
) -> InputError:
    """An error about an input's source, with its place in the study file."""
    for index, other in enumerate(study.inputs):
        if other is spec:
            return study.problem(f"inputs[{index}].source", problem, found=found, valid=valid)
    return study.problem("segments", f"{spec.label()}: {problem}", found=found, valid=valid)


def _sources(study: Study, spec: Input) -> tuple[bool, list[tuple[Path, Path]]]:
    """(whether trials get one file, [(file, its path within the input)]).

    Raises:
        InputError: nothing is there.
    """
    pattern = os.path.join(study.folder, os.path.expanduser(spec.source))
    if not glob.has_magic(pattern):
        path = Path(pattern)
        if path.is_dir():
            return False, [(f, f.relative_to(path)) for f in sorted(_files_below(path))]
        if not path.exists():
            raise source_problem(study, spec, "no such file or folder", found=pattern)
        return True, [(path, Path(path.name))]
    found = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    files = [p for p in found if p.is_file()]
    if not files:
        raise source_problem(study, spec, "no file matches", found=pattern)
    base = Path(os.path.commonpath([p.parent for p in files]))
    return False, [(p, p.relative_to(base)) for p in files]


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def check_inputs(study: Study, *, segments: bool = True) -> list[InputError]:
    """What would make staging fail, without touching anything, nor any network.

    Args:
        segments: False looks only at what all trials share: a segment fails alone.
    """
    errors = []
    for spec in study.all_inputs():
        if spec.remote or not (segments or spec.segment is None):
            continue
        try:
            _sources(study, spec)
        except InputError as error:
            errors.append(error)
    return errors


def _copy(source: Path, target: Path) -> str:
    """Copy under a temporary name, then rename; the sha256 of what was written."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with open(source, "rb") as read, open(temporary, "wb") as write:
            while block := read.read(CHUNK):
                digest.update(block)
                write.write(block)
            write.flush()
            os.fsync(write.fileno())
        shutil.copystat(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(target, error) from error
    return digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source.resolve())
    os.replace(temporary, target)


def _stage_file(
    source: Path, target: Path, mode: str, known: StagedFile | None
) -> tuple[str, os.stat_result]:
    """Bring one file in; its sha256 and the source's stat."""
    stat = source.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    same = (
        known is not None
        and (known.source, known.size, known.mtime_ns, known.mode)
        == (str(source), stat.st_size, stat.st_mtime_ns, mode)
        and target.exists()
    )
    if same and known is not None:
        return known.sha256, stat
    if mode == "copy":
        return _copy(source, target), stat
    _link(source, target)
    return sha256_of(source), stat


def stage(
    study: Study,
    folder: StudyFolder,
    *,
    now: Callable[[], float] = time.time,
    tell: Callable[[str, int], None] = lambda name, size: None,
) -> Manifest:
    """Bring every input of the study in and write the manifest.

    A file that was staged before from the same source, with the same size and time, is left
    as it is. What an earlier manifest held and the study no longer names is removed.

    Args:
        tell: called with each file's target and size in bytes.

    Raises:
        InputErrors: sources that do not exist, all of them.
        StorageError: the study folder cannot be written.
    """
    problems = check_inputs(study, segments=False)
    if problems:
        raise InputErrors(problems)
    folder.make()
    before = load_manifest(folder) or Manifest()
    known = {file.target: file for file in before.files}
    manifest = Manifest()
    for spec in study.all_inputs():
        home = folder.path / home_of(spec)
        try:
            single, sources = _sources(study, spec)
        except InputError as error:
            manifest.failed.append(Failure(spec.name, spec.segment, str(error)))
            continue
        for source, inner in sources:
            target = home / inner
            name = target.relative_to(folder.path).as_posix()
            sha256, stat = _stage_file(source, target, spec.mode, known.pop(name, None))
            manifest.files.append(
                StagedFile(
                    spec.name, str(source), name, stat.st_size, stat.st_mtime_ns, sha256,
                    spec.mode, now(), spec.segment,
                )
            )  # fmt: skip
            tell(name, stat.st_size)
        path = home / sources[0][1] if single else home
        paths = manifest.paths
        if spec.segment is not None:
            paths = manifest.segments.setdefault(spec.segment, {})
        paths[spec.name] = path.relative_to(folder.path).as_posix()
    for name in known:
        (folder.path / name).unlink(missing_ok=True)
    manifest.save(folder)
    return manifest
