"""manifest.json: what was staged, from where, with size and sha256."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import sha256_of, write_atomic

FORMAT = 1


@dataclass(frozen=True)
class StagedFile:
    """One file of one input.

    Attributes:
        input: name of the input it belongs to.
        source: absolute path it came from.
        target: path below the study folder.
        size: bytes.
        mtime_ns: the source's modification time; when it and the size are unchanged, the
            content is taken to be.
        sha256: hex digest of the content.
        mode: "link" or "copy".
        staged_at: seconds since the epoch.
    """

    input: str
    source: str
    target: str
    size: int
    mtime_ns: int
    sha256: str
    mode: str
    staged_at: float


@dataclass(frozen=True)
class Manifest:
    """All staged files, and for each input the path its trials get, below the study folder."""

    files: list[StagedFile] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)

    def save(self, folder: StudyFolder) -> None:
        """Write manifest.json."""
        record = {
            "format": FORMAT,
            "paths": self.paths,
            "files": [asdict(file) for file in self.files],
        }
        write_atomic(folder.manifest, json.dumps(record, indent=1) + "\n")

    def absolute(self, folder: StudyFolder) -> dict[str, str]:
        """Input name -> absolute path, as trials see it."""
        return {name: str(folder.path / path) for name, path in self.paths.items()}


def load_manifest(folder: StudyFolder) -> Manifest | None:
    """The manifest, or None before the first prestage.

    Raises:
        InputError: it is no manifest of a known format.
    """
    if not folder.manifest.exists():
        return None
    try:
        record = json.loads(folder.manifest.read_text())
        if record["format"] != FORMAT:
            raise InputError(
                "unknown format", file=str(folder.manifest), key="format",
                found=record["format"], valid=str(FORMAT),
            )  # fmt: skip
        return Manifest([StagedFile(**file) for file in record["files"]], record["paths"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is not a manifest ({error}); remove it and run `hpc-hpo prestage` again",
            file=str(folder.manifest),
        ) from None


def verify(manifest: Manifest, folder: StudyFolder, *, rehash: bool) -> Iterator[str]:
    """What is wrong with the staged files, one sentence each.

    Args:
        rehash: read every file again; otherwise only those whose size or time has changed.
    """
    for file in manifest.files:
        path = folder.path / file.target
        try:
            stat = path.stat()
        except OSError as error:
            yield f"input {file.input}: {file.target} is missing ({error.strerror})"
            continue
        if stat.st_size != file.size:
            yield (
                f"input {file.input}: {file.target} has {stat.st_size} bytes, "
                f"{file.size} were staged"
            )
        elif (rehash or stat.st_mtime_ns != file.mtime_ns) and sha256_of(path) != file.sha256:
            yield f"input {file.input}: {file.target} has changed since it was staged"
