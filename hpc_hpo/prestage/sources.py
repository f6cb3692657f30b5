"""Which files an input consists of, on this machine's file systems or behind a URL."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from hpc_hpo.errors import InputError
from hpc_hpo.prestage import remote
from hpc_hpo.study import Input, Study


@dataclass(frozen=True)
class Source:
    """One file of an input, before it is staged.

    Attributes:
        place: absolute path, or the path as the input's file system takes it.
        inner: its path within the input.
        size: bytes; None: not known.
        mtime_ns: of a local file.
        validator: of a remote file, see StagedFile; None: not known.
    """

    place: str
    inner: str
    size: int | None = None
    mtime_ns: int = 0
    validator: str | None = None


@dataclass(frozen=True)
class Found:
    """What a source holds: one file by itself, or the files of a folder or pattern."""

    single: bool
    files: list[Source]

    @property
    def size(self) -> int:
        """Bytes, as far as they are known."""
        return sum(file.size or 0 for file in self.files)


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
        if other == spec:
            return study.problem(f"inputs[{index}].source", problem, found=found, valid=valid)
    return study.problem("segments", f"{spec.label()}: {problem}", found=found, valid=valid)


def find(study: Study, spec: Input) -> Found:
    """The files of an input; asks the server of a remote one.

    Raises:
        InputError: nothing is there, or it is not what the input's other keys say.
        OSError: it cannot be read, or its server not be reached.
    """
    found = _find_remote(study, spec) if spec.remote else _find_local(study, spec)
    if not found.files:
        raise source_problem(study, spec, "no file matches", found=spec.source)
    if not found.single:
        if spec.sha256 is not None:
            raise source_problem(
                study, spec, "a sha256 is of one file, but this is a folder", found=spec.source
            )
        if spec.unpack:
            raise source_problem(
                study, spec, "one archive is unpacked, but this is a folder", found=spec.source
            )
    return found


# -- local ---------------------------------------------------------------------


def _find_local(study: Study, spec: Input) -> Found:
    source = spec.source.removeprefix("file://")
    pattern = os.path.join(study.folder, os.path.expanduser(source))
    if not glob.has_magic(pattern):
        if os.path.isdir(pattern):
            return Found(False, [_local(path, pattern) for path in sorted(_files_below(pattern))])
        if not os.path.exists(pattern):
            raise source_problem(study, spec, "no such file or folder", found=pattern)
        return Found(True, [_local(pattern, os.path.dirname(pattern))])
    paths = [p for p in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(p)]
    if not paths:
        raise source_problem(study, spec, "no file matches", found=pattern)
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    return Found(False, [_local(path, base) for path in paths])


def _files_below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in names)


def _local(path: str, base: str) -> Source:
    stat = os.stat(path)
    return Source(path, os.path.relpath(path, base), stat.st_size, stat.st_mtime_ns)


# -- remote --------------------------------------------------------------------


def _find_remote(study: Study, spec: Input) -> Found:
    system, path = remote.open_system(spec.source, spec.options)
    if spec.glob:
        listed = system.glob(path, detail=True)
        files = {name: info for name, info in listed.items() if info.get("type") != "directory"}
        names = sorted(files)
        if not names:
            return Found(False, [])
        base = os.path.commonpath([os.path.dirname(name) for name in names])
    else:
        if not spec.source.endswith("/"):
            info = system.info(path)
            if info.get("type") != "directory":
                return Found(True, [_remote(path, file_name(spec), info)])
        files = system.find(path, detail=True)
        names, base = sorted(files), path.rstrip("/")
    return Found(False, [_remote(n, _inner(study, spec, n, base), files[n]) for n in names])


def file_name(spec: Input) -> str:
    """The name of a remote file without the folders and the query of its URL."""
    name = unquote(PurePosixPath(urlsplit(spec.source.rpartition("::")[2]).path).name)
    return spec.name if name in ("", ".", "..") or "/" in name or "\0" in name else name


def _remote(place: str, inner: str, info: dict[str, object]) -> Source:
    size = info.get("size")
    return Source(
        place, inner, size if isinstance(size, int) else None, validator=remote.validator_of(info)
    )


def _inner(study: Study, spec: Input, name: str, base: str) -> str:
    """A listed file's path within the input. A server is a stranger: it must lie inside."""
    inner = unquote(name.removeprefix(base).lstrip("/").partition("?")[0])
    path = PurePosixPath(inner)
    if not inner or path.is_absolute() or ".." in path.parts or "\0" in inner:
        raise source_problem(study, spec, "the listing holds a path outside it", found=name)
    return inner


def check_inputs(study: Study, *, segments: bool = True) -> list[InputError]:
    """What would make staging fail, without touching anything, nor any network: local sources
    that are not there, and URLs that cannot be opened here.

    Args:
        segments: False looks only at what all trials share: a segment fails alone.
    """
    errors = []
    for spec in study.all_inputs():
        if not segments and spec.segment is not None:
            continue
        try:
            if spec.remote:
                if problem := remote.source_problem(spec.source):
                    raise source_problem(study, spec, problem, found=spec.source)
            else:
                find(study, spec)
        except InputError as error:
            errors.append(error)
        except OSError as error:
            errors.append(source_problem(study, spec, f"cannot be read: {error.strerror or error}",
                                         found=spec.source))  # fmt: skip
    return errors
