"""Archives from strangers, unpacked so that nothing leaves the target folder.

Layer 0: standard library only; prestage unpacks with it, and workers on their node's own disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from hpc_hpo.errors import InputError

_CHUNK = 1 << 20
#: Shown to a user whose archive holds what is refused.
_VALID = "an archive whose members and links stay inside it, without absolute paths and devices"


def is_archive(path: Path) -> bool:
    """Whether the content is a tar (also gz, bz2, xz) or a zip, whatever the name says.

    Raises:
        OSError: the file cannot be read.
    """
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)


def check_archive(path: Path) -> int:
    """Look at every member without unpacking any.

    Returns:
        The bytes that its files will take.

    Raises:
        InputError: it is no archive, it is damaged, or a member may not be unpacked; by name.
        OSError: the file cannot be read.
    """
    with _opened(path) as archive:
        if isinstance(archive, tarfile.TarFile):
            return sum(member.size for member in _tar_members(path, archive) if member.isreg())
        return sum(member.file_size for member in _zip_members(path, archive))


def unpack(
    path: Path, target: Path, *, expect: Callable[[int], object] = lambda size: None
) -> None:
    """Unpack an archive into a folder that is new or empty.

    Tar archives pass through Python's `data` filter (PEP 706), and every member is looked at
    before the first one is written. Files come out readable and writable for their owner.

    Args:
        expect: called with the bytes that the files will take, before any is written; may raise.

    Raises:
        InputError: as of check_archive. Nothing was written outside the target.
        OSError: the archive cannot be read, or the target not be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _opened(path) as archive:
        if isinstance(archive, tarfile.TarFile):
            members = list(_tar_members(path, archive))
            expect(sum(member.size for member in members if member.isreg()))
            archive.extractall(target, members=members, filter="data")
        else:
            infos = list(_zip_members(path, archive))
            expect(sum(info.file_size for info in infos))
            for info in infos:
                _extract_zipped(archive, info, target)


def fix_prefixes(folder: Path) -> None:
    """Tell the scripts of an environment that conda-pack has packed where they are now.

    Its own `bin/conda-unpack` does it, which needs no more than a Python: ours, because the
    environment may be for nodes of another architecture.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    script = folder / "bin" / "conda-unpack"
    if script.is_file():
        subprocess.run([sys.executable, str(script)], check=True, capture_output=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile | zipfile.ZipFile]:
    """The open archive; what its reader finds wrong becomes an InputError."""
    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            "archives are not unpacked by this Python: its tarfile module has no filter against "
            "members that leave the target",
            file=str(path), valid="Python 3.10.12, 3.11.4 or later",
        )  # fmt: skip
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield tar
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                yield zipped
        else:
            raise InputError("is not an archive", file=str(path), valid="tar, tar.gz, tar.bz2, "
                             "tar.xz or zip")  # fmt: skip
    except tarfile.FilterError as error:
        raise _refused(path, error.tarinfo.name, _reason(error)) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InputError(f"is a damaged archive: {error}", file=str(path)) from None
    except Exception as error:
        # zlib.error and lzma.LZMAError, which have no common root, and need not be built in.
        if type(error).__name__ in ("error", "LZMAError", "BadGzipFile"):
            raise InputError(f"is a damaged archive: {error}", file=str(path)) from None
        raise


def _refused(path: Path, member: str, reason: str) -> InputError:
    return InputError(f"its member {member!r} is refused: {reason}", file=str(path), valid=_VALID)


def _reason(error: tarfile.FilterError) -> str:
    words = {
        "AbsolutePathError": "its path is absolute",
        "OutsideDestinationError": "its path leaves the archive",
        "SpecialFileError": "it is a device or pipe",
        "AbsoluteLinkError": "it is a link to an absolute path",
        "LinkOutsideDestinationError": "it is a link out of the archive",
    }
    return words.get(type(error).__name__, str(error))


def _name_problem(name: str) -> str | None:
    """What is wrong with a member's path, whatever the operating system would make of it."""
    if name.startswith(("/", "\\")) or PurePosixPath(name).is_absolute():
        return "its path is absolute"
    if ".." in PurePosixPath(name).parts:
        return "its path leads upwards"
    return None


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, each of which may be unpacked."""
    links: set[str] = set()
    for member in archive:
        problem = _name_problem(member.name)
        name = PurePosixPath(member.name)
        if problem is None and any(str(parent) in links for parent in name.parents):
            # The filter judges a path before the links of this archive exist on the disk.
            problem = "it lies below a link"
        if problem is None and (member.issym() or member.islnk()):
            if member.linkname.startswith("/"):
                problem = "it is a link to an absolute path"
            elif _climbs_out(name.parent if member.issym() else PurePosixPath(), member.linkname):
                problem = "it is a link out of the archive"
        if problem is not None:
            raise _refused(path, member.name, problem)
        if member.issym():
            links.add(str(name))
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _refused(path, member.name, "it is a device or pipe")
        yield member


def _climbs_out(start: PurePosixPath, link: str) -> bool:
    """Whether a relative link, followed from `start`, leaves the archive's top."""
    depth = len(start.parts)
    for part in PurePosixPath(link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """The members, each of which may be unpacked."""
    for info in archive.infolist():
        problem = _name_problem(info.filename)
        mode = info.external_attr >> 16
        if problem is None and mode and stat.S_ISLNK(mode):
            problem = "links in zip archives are not unpacked (use tar)"
        if problem is None and info.flag_bits & 0x1:
            problem = "it is encrypted"
        if problem is not None:
            raise _refused(path, info.filename, problem)
        yield info


def _extract_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    place = target / info.filename
    if info.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, open(place, "wb") as stream:
        shutil.copyfileobj(source, stream, _CHUNK)
    # zipfile forgets who may execute a file.
    if (info.external_attr >> 16) & stat.S_IXUSR:
        os.chmod(place, 0o755)
