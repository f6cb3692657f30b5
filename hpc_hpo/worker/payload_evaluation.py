"""Evaluation payloads: programs that speak by files in their working directory.

The contract is that of ATLAS's HPO service as its wrapper on the grid keeps it (panda-wnscript,
src/runhpo/runHPO.py): a point in `input.json`, the data files' names in `input_ds.json`, the answer
in `output.json`, which counts whatever the program's exit status was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import storage_error
from hpc_hpo.model import EvaluationFiles, Point, TaskSpec
from hpc_hpo.worker.checkpoint import FILES
from hpc_hpo.worker.command_files import put_back
from hpc_hpo.worker.fence import check_fence
from hpc_hpo.worker.job import SliceJob

#: Where in the study folder metrics and meta files are kept, and checkpoints that were given.
PRODUCTS, GIVEN = "metrics", "given"
#: A larger meta file is refused, in bytes.
MOST_META = 1_000_000


def names_of(task: TaskSpec) -> EvaluationFiles:
    """The names of the payload's files, with their defaults."""
    names = EvaluationFiles(input="input.json", data="input_ds.json", output="output.json")
    names.update(task.get("evaluation", {}))
    return names


def ignored(task: TaskSpec) -> list[str]:
    """Files that are of one run of the payload alone, and no part of a checkpoint."""
    names = names_of(task)
    given = [names["input"], names["data"], names["output"], names.get("load")]
    return [name for name in given if name]


def given_checkpoint(study: Path, point: Point, segment: str | None) -> Path:
    """Where an archive with which a trial is to begin lies, if there is one.

    It is found by the point, because whoever brings it does not know the trial's number.
    """
    text = json.dumps([segment, point], sort_keys=True)
    return study / GIVEN / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.tar"


def prepare(job: SliceJob, workdir: Path) -> None:
    """Fill a new working directory: sandbox, checkpoint, point, data.

    Raises:
        OSError: a file cannot be written, or one of the sandbox cannot be read.
    """
    names = names_of(job.task)
    for source, name in names.get("sandbox", []):
        target = workdir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    _bring_back(job, workdir, names.get("load"))
    _write(workdir / names["input"], _point_of(job))
    _write(workdir / names["data"], _data_files(job.task.get("inputs", {}).values()))


def _point_of(job: SliceJob) -> Any:
    """The point; of a segment, with the model's id before it."""
    segment = job.request.get("segment")
    point = job.request["point"]
    return point if segment is None else [segment.get("number", segment["name"]), point]


def _data_files(inputs: Iterable[str]) -> list[str]:
    """The paths of all files of the inputs: of a folder, those in it."""
    found: list[str] = []
    for path in inputs:
        if os.path.isdir(path):
            files = (os.path.join(p, n) for p, _, names in os.walk(path) for n in names)
            found += sorted(files)
        else:
            found.append(path)
    return found


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _bring_back(job: SliceJob, workdir: Path, load: str | None) -> None:
    """The checkpoint's files under their names, or as one archive called `load`."""
    if job.restored is not None:
        if load is None:
            put_back(job.restored, workdir)
        else:
            pack(job.restored.folder / FILES, workdir / load)
        return
    segment = job.request.get("segment")
    name = None if segment is None else segment["name"]
    given = given_checkpoint(job.study, job.request["point"], name)
    if not given.exists():
        return
    if load is not None:
        shutil.copyfile(given, workdir / load)
        return
    try:
        unpack(given, workdir)
    except tarfile.TarError as error:
        job.log.note(f"the checkpoint that was given cannot be unpacked: {error}")


def pack(folder: Path, archive: Path) -> None:
    """All files of a folder as a compressed tar archive.

    Raises:
        OSError: it cannot be written.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(folder).as_posix(), recursive=False)


def unpack(archive: Path, folder: Path) -> None:
    """Extract the plain files of a tar archive, however compressed, below `folder`.

    Raises:
        tarfile.TarError: it is damaged, or a name leads out of the folder.
        OSError: a file cannot be written.
    """
    home = os.path.realpath(folder)
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue  # folders are made as needed; links could lead anywhere
            target = os.path.realpath(os.path.join(home, member.name))
            if os.path.commonpath([home, target]) != home:
                raise tarfile.ReadError(f"{member.name} leads out of the folder")
            content = tar.extractfile(member)
            assert content is not None, "a plain file has content"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with content, open(target, "wb") as stream:
                shutil.copyfileobj(content, stream)
            os.chmod(target, member.mode & 0o777 | 0o600)


def keep_products(job: SliceJob, workdir: Path) -> None:
    """Keep the metrics and the meta file of a payload that has ended.

    Files that cannot be kept cost no loss; the worker's log says so.

    Raises:
        Fenced: a newer slice of the trial has started.
    """
    names = names_of(job.task)
    metrics, meta = names.get("metrics"), names.get("meta")
    home, trial = job.study / PRODUCTS, job.request["trial"]
    try:
        if metrics and (workdir / metrics).exists():
            check_fence(job.folder, job.request["slice"])
            _keep(workdir / metrics, home / f"{Path(metrics).name}_{trial}")
        if meta and (workdir / meta).is_file():
            problem = _fault_of_meta(workdir / meta)
            if problem:
                job.log.note(f"trial {trial}: {meta} is not kept: {problem}")
                return
            check_fence(job.folder, job.request["slice"])
            _keep(workdir / meta, home / f"{Path(meta).name}_{trial}")
    except (OSError, StorageError) as error:
        job.log.note(f"trial {trial}: its metrics cannot be kept: {error}")


def _keep(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        if source.is_dir():
            pack(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise storage_error(target, error) from error


def _fault_of_meta(path: Path) -> str:
    """Why a meta file is no JSON object of under MOST_META bytes; "" when it is."""
    size = path.stat().st_size
    if size >= MOST_META:
        return f"it has {size} bytes, and the contract allows less than {MOST_META}"
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON: {error}"
    return "" if isinstance(content, dict) else "it is not a JSON object"
