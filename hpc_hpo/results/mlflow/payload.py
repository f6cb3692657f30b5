"""Runs that an evaluation payload has left behind: an `mlruns/` in its archive of metrics.

Payloads of the grid write MLflow's store of files. It is read here without MLflow: a stranger's
archive is data, and MLflow itself opens such stores only for those who insist.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpc_hpo.archives import unpack
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.results.mlflow.records import OWN, Measured, Record, key_of, value_text
from hpc_hpo.results.table import printable
from hpc_hpo.worker.payload_evaluation import PRODUCTS

#: Larger archives are kept as they are and not looked into, in bytes when unpacked.
MOST_BYTES = 1 << 30
_MOST_META = 1 << 20
#: In front of what a payload calls by a name that its trial has, too.
PAYLOAD_NAME = "payload."
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


@dataclass
class PayloadRuns:
    """What was found in one archive.

    Attributes:
        runs: by their ids; artifacts are there while the archive is open.
        problems: what could not be read, in words.
    """

    runs: dict[str, Record] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def products_of(study: Mapping[str, Any], folder: StudyFolder, trial: int) -> dict[str, Path]:
    """The files that a trial's evaluation left behind: "metrics" and "meta", those that exist."""
    names = study.get("evaluation") or {}
    found = {}
    for kind in ("metrics", "meta"):
        if names.get(kind):
            path = folder.path / PRODUCTS / f"{Path(names[kind]).name}_{trial}"
            if path.is_file():
                found[kind] = path
    return found


@contextmanager
def payload_runs(archive: Path | None) -> Iterator[PayloadRuns]:
    """The runs in an archive; none without one, or where it holds something else."""
    found = PayloadRuns()
    if archive is None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="hpc-hpo-") as room:
        try:
            unpack(archive, Path(room), expect=_refuse_large)
        except InputError as error:
            found.problems.append(f"{archive.name}: {error.problem}")
        except OSError as error:
            found.problems.append(f"{archive.name}: {error}")
        else:
            _read_all(Path(room), archive.name, found)
        yield found


def _refuse_large(size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"is not looked into: it holds {size} bytes", valid=f"at most {MOST_BYTES}"
        )


def _read_all(room: Path, archive: str, found: PayloadRuns) -> None:
    """Every folder with a run's meta.yaml; links lead nowhere that the archive does not hold."""
    for file in sorted(room.rglob("meta.yaml")):
        inner = file.relative_to(room)
        if {"artifacts", ".trash", "models"} & set(inner.parts):
            continue
        try:
            meta = _meta(file)
            number = meta.get("run_id") or meta.get("run_uuid")
            if number is None and "experiment_id" in meta:
                continue
            if not isinstance(number, str) or not number:
                raise ValueError("it names no run")
            if meta.get("lifecycle_stage", "active") == "active":
                found.runs[printable(number)] = _run(file.parent, meta)
        except (ValueError, OverflowError, OSError, yaml.YAMLError) as error:
            found.problems.append(f"{archive}: {inner.parent}: {_words(error)}")
    if not (found.runs or found.problems) and any(path.is_dir() for path in room.rglob("mlruns")):
        found.problems.append(f"{archive}: its mlruns holds no run of MLflow")


def _words(error: Exception) -> str:
    return printable(str(error)).splitlines()[0] if str(error) else type(error).__name__


def _meta(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MOST_META:
        raise ValueError("meta.yaml is too large")
    meta = yaml.safe_load(file.read_text())
    if not isinstance(meta, dict):
        raise ValueError("meta.yaml is no mapping")
    return meta


def _run(folder: Path, meta: Mapping[str, Any]) -> Record:
    began, ended = meta.get("start_time"), meta.get("end_time")
    status = meta.get("status", 3)
    record = Record(
        printable(str(meta.get("run_name") or folder.name)),
        _STATUS.get(status, "FINISHED") if isinstance(status, int) else str(status),
        int(began or 0),
        int(ended) if ended else None,
    )
    if record.status not in _STATUS.values():
        raise ValueError(f"status {record.status!r} is none of MLflow's")
    for name, file in _files(folder / "params"):
        record.params[key_of(name)] = value_text(file.read_text(errors="backslashreplace"))
    for name, file in _files(folder / "tags"):
        if not name.startswith(("mlflow.", OWN)) or name == "mlflow.note.content":
            record.tags[key_of(name)] = value_text(file.read_text(errors="backslashreplace"))
    for name, file in _files(folder / "metrics"):
        record.metrics += _values(name, file)
    if (folder / "artifacts").is_dir() and any((folder / "artifacts").iterdir()):
        record.artifacts = folder / "artifacts"
    return record


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of each plain file below; a name with a slash is a file in a folder."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file


def _values(name: str, file: Path) -> Iterator[Measured]:
    """Lines of `time value [step]`, the time in milliseconds."""
    with open(file, errors="backslashreplace") as stream:
        for number, line in enumerate(stream, start=1):
            parts = line.split()
            if not parts:
                continue
            try:
                step = int(parts[2]) if len(parts) > 2 else 0
                yield Measured(key_of(name), float(parts[1]), int(float(parts[0])), step)
            except (ValueError, IndexError, OverflowError):
                raise ValueError(
                    f"metrics/{name}, line {number}: found {line.strip()[:40]!r}; "
                    "valid: time value step"
                ) from None


def merge(record: Record, own: Record, number: str) -> None:
    """Give a trial's run what its payload's only run holds.

    What the trial itself has keeps its name; the payload's gets PAYLOAD_NAME in front, unless it is
    the same parameter.
    """
    for name, value in own.params.items():
        if record.params.get(name, value) == value:
            record.params[name] = value
        else:
            record.params[key_of(PAYLOAD_NAME + name)] = value
    taken = {measured.key for measured in record.metrics}
    for one in own.metrics:
        key = key_of(PAYLOAD_NAME + one.key) if one.key in taken else one.key
        record.metrics.append(Measured(key, one.value, one.at, one.step))
    record.tags = {**own.tags, **record.tags, OWN + "payload_run": number}
    record.artifacts = own.artifacts
