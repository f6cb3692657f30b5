"""Submission files in place of studies, and turned into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    space = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    keys = {"evaluationExec": "true", "searchSpaceFile": "space.json", "noEmail": True}
    path = tmp_path / "phpo.json"
    path.write_text(json.dumps(keys))
    return path


def test_that_a_submission_becomes_a_study(hpc_hpo: Command, submission: Path) -> None:
    target = submission.with_name("study.yaml")
    done = hpc_hpo("convert", submission, target)
    assert done.exit_code == 0, done.output
    assert "note: noEmail has no effect" in done.output
    assert hpc_hpo("check", target).exit_code == 0
    again = hpc_hpo("convert", submission, target)
    assert (again.exit_code, "exists already" in again.output) == (2, True)


@pytest.mark.parametrize("command", ["check", "plan", "status", "prestage"])
def test_that_commands_take_a_submission(hpc_hpo: Command, submission: Path, command: str) -> None:
    done = hpc_hpo(command, submission)
    if command == "plan":
        assert "expected_time" in done.output  # what a grid never asked for
    else:
        assert done.exit_code == 0, done.output


def test_that_what_cannot_be_converted_is_told(
    hpc_hpo: Command, submission: Path, tmp_path: Path
) -> None:
    assert "no such file" in hpc_hpo("convert", tmp_path / "a.json", tmp_path / "b").output
    study = tmp_path / "study.yaml"
    hpc_hpo("convert", submission, study)
    done = hpc_hpo("convert", study, tmp_path / "b.yaml")
    assert (done.exit_code, "a study already" in done.output) == (2, True)
    (tmp_path / "other").mkdir()
    done = hpc_hpo("convert", submission, tmp_path / "other" / "study.yaml")
    assert (done.exit_code, "paths would lead elsewhere" in done.output) == (2, True)
    submission.write_text('{"evaluationExec": "true", "alrbArgs": "-x"}')
    done = hpc_hpo("convert", submission, tmp_path / "c.yaml")
    assert done.exit_code == 2
    assert "alrbArgs: this cannot be kept" in done.output
    assert not (tmp_path / "c.yaml").exists()
