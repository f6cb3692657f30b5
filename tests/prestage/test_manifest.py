"""The manifest: what readers see of inputs while they are being staged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, StudyHeld
from hpc_hpo.folder import HOLDER_TTL_S, StudyFolder
from hpc_hpo.prestage import running
from hpc_hpo.prestage.lock import PrestageLock
from hpc_hpo.prestage.manifest import Failure, Manifest, load_manifest
from hpc_hpo.prestage.sources import check_inputs
from hpc_hpo.prestage.staging import stage
from hpc_hpo.study import load_study

STUDY = """
name: small
objective: objective.py:train
space: {x: {float: [0, 1]}}
budget: {trials: 5}
segments: [{name: a}, {name: b.c}]
inputs:
- {name: common, source: common.txt}
- {name: data, segment: a, source: a.txt}
- {name: data, segment: b.c, source: b.txt}
- {name: more, segment: b.c, source: "*.csv", mode: copy}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY)
    for name in ("common.txt", "a.txt", "b.txt", "1.csv", "2.csv"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "small")


def test_that_a_segment_s_trials_see_its_inputs_and_the_shared_ones(
    place: Path, folder: StudyFolder
) -> None:
    study = load_study(place / "study.yaml")
    stage(study, folder)
    manifest = load_manifest(folder)
    assert manifest is not None
    read = {name: Path(path) for name, path in manifest.absolute(folder, "b.c").items()}
    assert read["common"].read_text() == "common.txt" and read["data"].read_text() == "b.txt"
    assert sorted(path.name for path in read["more"].iterdir()) == ["1.csv", "2.csv"]
    assert Path(manifest.absolute(folder, "a")["data"]).read_text() == "a.txt"
    assert list(manifest.absolute(folder)) == ["common"]
    assert {file.segment for file in manifest.files} == {None, "a", "b.c"}


def test_that_a_segment_is_ready_once_its_inputs_and_the_shared_ones_are(place: Path) -> None:
    study = load_study(place / "study.yaml")
    manifest = Manifest()
    assert not manifest.ready(study) and not manifest.ready(study, "a")
    manifest.segments["a"] = {"data": "inputs/segment-a/data/a.txt"}
    assert not manifest.ready(study, "a"), "the shared input is missing"
    manifest.paths["common"] = "inputs/common/common.txt"
    assert manifest.ready(study) and manifest.ready(study, "a")
    manifest.segments["b.c"] = {"data": "inputs/segment-b%2Fc/data/b.txt"}
    assert not manifest.ready(study, "b.c"), "it has another input"
    assert manifest.ready(study, "z"), "a segment without inputs of its own needs the shared ones"


def test_that_the_missing_input_of_a_segment_fails_alone(place: Path, folder: StudyFolder) -> None:
    (place / "a.txt").unlink()
    study = load_study(place / "study.yaml")
    assert check_inputs(study, segments=False) == []
    (problem,) = check_inputs(study)
    assert "inputs[1].source: no such file" in str(problem)
    stage(study, folder)
    manifest = load_manifest(folder)
    assert manifest is not None
    assert manifest.ready(study, "b.c") and not manifest.ready(study, "a")
    assert "no such file" in (manifest.problem_of("a") or "")
    assert manifest.problem_of("b.c") is None
    (place / "a.txt").write_text("back")
    assert stage(study, folder).failed == []


def test_that_the_missing_shared_input_stops_staging(place: Path, folder: StudyFolder) -> None:
    (place / "common.txt").unlink()
    with pytest.raises(InputError, match=r"inputs\[0\].source: no such file"):
        stage(load_study(place / "study.yaml"), folder)


def test_that_a_manifest_reads_as_it_was_written(folder: StudyFolder, place: Path) -> None:
    folder.make()
    manifest = stage(load_study(place / "study.yaml"), folder)
    manifest.failed.append(Failure("x", "s", 'it said "no"\n'))
    manifest.save(folder)
    assert load_manifest(folder) == manifest
    lines = folder.manifest.read_text().splitlines()
    assert sum('"target"' in line for line in lines) == len(manifest.files), "one a line"


def test_that_an_empty_manifest_reads_as_it_was_written(folder: StudyFolder) -> None:
    folder.make()
    Manifest().save(folder)
    assert load_manifest(folder) == Manifest()


def test_that_a_manifest_of_the_first_format_is_still_read(folder: StudyFolder) -> None:
    folder.make()
    file = {
        "input": "data", "source": "/d/a", "target": "inputs/data/a", "size": 1, "mtime_ns": 2,
        "sha256": "0" * 64, "mode": "copy", "staged_at": 3.0,
    }  # fmt: skip
    old = {"format": 1, "paths": {"data": "inputs/data/a"}, "files": [file]}
    folder.manifest.write_text(json.dumps(old))
    manifest = load_manifest(folder)
    assert manifest is not None and manifest.holds("data", None)
    assert manifest.files[0].segment is None and manifest.segments == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 3}', '{"format": 2, "files": [1]}'])
def test_that_what_is_no_manifest_is_refused_by_name(folder: StudyFolder, text: str) -> None:
    folder.make()
    folder.manifest.write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_manifest(folder)


def test_that_prestage_is_seen_while_it_runs_and_one_at_a_time(folder: StudyFolder) -> None:
    folder.make()
    assert not running(folder)
    lock = PrestageLock(folder)
    lock.acquire()
    assert running(folder)
    with pytest.raises(StudyHeld, match=f"staged by process {os.getpid()}"):
        PrestageLock(folder).acquire()
    lock.release()
    assert not running(folder)


def test_that_a_prestage_that_died_is_not_taken_for_running(folder: StudyFolder) -> None:
    folder.make()
    lock = PrestageLock(folder)
    lock.acquire()
    record = json.loads(folder.prestage_holder.read_text())
    folder.prestage_holder.write_text(json.dumps({**record, "process_start": 1.0}))
    assert not running(folder), "another process has its number now"
    elsewhere = {**record, "host": "another", "alive": record["alive"] - HOLDER_TTL_S - 1}
    folder.prestage_holder.write_text(json.dumps(elsewhere))
    assert not running(folder)
    folder.prestage_holder.write_text(json.dumps({**elsewhere, "alive": record["alive"]}))
    assert running(folder), "it gave a sign of life a moment ago"
    lock.release()
