"""manifest.json: what was staged, from where, with size and sha256; and what could not be.

The file is replaced as a whole while prestage goes on, at most about once a second: a reader sees
the inputs that are complete at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import write_atomic
from hpc_hpo.study import Study

#: 2 added segments, failures and validators; a manifest of format 1 is read as one without them.
FORMAT = 2
READABLE = (1, FORMAT)


@dataclass(frozen=True)
class StagedFile:
    """One file of one input.

    Attributes:
        input: name of the input it belongs to.
        source: absolute path or URL it came from; ``archive!member`` for what was unpacked.
        target: path below the study folder.
        size: bytes.
        mtime_ns: the staged file's modification time; when it and the size are unchanged, the
            content is taken to be.
        sha256: hex digest of the content.
        mode: "link" or "copy".
        staged_at: seconds since the epoch.
        segment: the segment that alone needs the input; None: all trials do.
        validator: what the source's server says to tell one content of it from another (an ETag,
            or a time); None where the source is a local path.
    """

    input: str
    source: str
    target: str
    size: int
    mtime_ns: int
    sha256: str
    mode: str
    staged_at: float
    segment: str | None = None
    validator: str | None = None


@dataclass(frozen=True)
class Failure:
    """An input that could not be staged."""

    input: str
    segment: str | None
    problem: str


@dataclass(frozen=True)
class Manifest:
    """What is staged of a study.

    Attributes:
        files: the staged files of all inputs that are complete.
        paths: shared input -> the path its trials get, below the study folder.
        segments: the same for each segment's own inputs.
        failed: inputs that the last prestage could not stage.
    """

    files: list[StagedFile] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    segments: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    _needs: dict[int, dict[str | None, list[str]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def paths_of(self, segment: str | None) -> dict[str, str]:
        """The paths of one segment's own inputs, or of the shared ones."""
        return self.paths if segment is None else self.segments.get(segment, {})

    def holds(self, name: str, segment: str | None) -> bool:
        """Whether this input is completely staged."""
        return name in self.paths_of(segment)

    def absolute(self, folder: StudyFolder, segment: str | None = None) -> dict[str, str]:
        """Input name -> absolute path, as trials of a segment see it: the shared inputs, and the
        segment's own."""
        paths = {**self.paths, **(self.paths_of(segment) if segment is not None else {})}
        return {name: str(folder.path / path) for name, path in paths.items()}

    def ready(self, study: Study, segment: str | None = None) -> bool:
        """Whether all that trials of a segment need is staged: its own inputs and the shared."""
        needs = self._needs.get(id(study))
        if needs is None:
            needs = {None: []}
            for spec in study.all_inputs():
                needs.setdefault(spec.segment, []).append(spec.name)
            # One study at a time: another's id may be one that was used before.
            self._needs.clear()
            self._needs[id(study)] = needs
        return all(
            self.holds(name, owner)
            for owner in dict.fromkeys((None, segment))
            for name in needs.get(owner, ())
        )

    def problem_of(self, segment: str | None = None) -> str | None:
        """Why a segment's trials cannot have their inputs; None: nothing has failed."""
        owners = (None, segment)
        wrong = [f"input {f.input}: {f.problem}" for f in self.failed if f.segment in owners]
        return "; ".join(wrong) or None

    def save(self, folder: StudyFolder, *, durable: bool = True) -> None:
        """Replace manifest.json.

        Args:
            durable: wait until the disk has it; not needed for what is replaced in a second.
        """
        write_atomic(folder.manifest, self._text(asdict(file) for file in self.files),
                     durable=durable)  # fmt: skip

    def _text(self, files: Iterable[dict[str, Any]]) -> str:
        # A line for each file: short to write for many thousands, and to look through.
        lines = ",\n".join(map(json.dumps, files))
        head = {"format": FORMAT, "paths": self.paths, "segments": self.segments,
                "failed": [asdict(failure) for failure in self.failed]}  # fmt: skip
        return f'{json.dumps(head)[:-1]},\n"files": [\n{lines}\n]}}\n'


def load_manifest(folder: StudyFolder) -> Manifest | None:
    """The manifest, or None before the first prestage.

    Raises:
        InputError: it is no manifest of a known format.
    """
    try:
        text = folder.manifest.read_text()
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
        if record["format"] not in READABLE:
            raise InputError(
                "unknown format", file=str(folder.manifest), key="format",
                found=record["format"], valid=[str(number) for number in READABLE],
            )  # fmt: skip
        return Manifest(
            [StagedFile(**file) for file in record["files"]], record["paths"],
            record.get("segments", {}), [Failure(**one) for one in record.get("failed", [])],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is not a manifest ({error}); remove it and run `hpc-hpo prestage` again",
            file=str(folder.manifest),
        ) from None
