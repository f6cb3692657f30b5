"""The example of the grid: its payload in bash, its submission, and the steering string."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from hpc_hpo.study import check_payload, load_study

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "atlas"
#: Third-party packages that the Containerfile installs.
IN_THE_IMAGE = ("numpy", "click")


def call(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", *arguments], cwd=cwd, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, check=False,
    )  # fmt: skip


def test_that_the_submission_is_a_study_that_could_run() -> None:
    study = load_study(JOB / "phpo.json")
    assert check_payload(study) == []
    assert (study.budget.trials, study.budget.parallel) == (20, 2)
    assert study.checkpoint.every == 60.0


def test_that_the_payload_needs_no_python(tmp_path: Path) -> None:
    script = (JOB / "evaluate.sh").read_text()
    assert script.startswith("#!/bin/bash")
    assert "python" not in script.replace("of Python", "")
    (tmp_path / "input.json").write_text('{"lr": 0.1, "momentum": 0.5}')
    room = tmp_path / "bin"
    room.mkdir()
    for name in ("bash", "sed", "awk", "mkdir", "mv", "sleep", "tar", "gzip", "cat", "env"):
        program = shutil.which(name)
        assert program is not None
        (room / name).symlink_to(program)
    subprocess.run(
        [room / "bash", JOB / "evaluate.sh"], cwd=tmp_path, check=True, capture_output=True,
        env={"PATH": str(room), "STEP_S": "0"},
    )  # fmt: skip
    output = json.loads((tmp_path / "output.json").read_text())
    assert output["status"] == 0
    assert 0 <= output["loss"] < 1e-6


def test_that_one_point_can_be_evaluated(tmp_path: Path) -> None:
    done = call(
        *("evaluate", str(JOB / "phpo.json"), "--dir", str(tmp_path / "e")),
        *("--point", '{"lr": 0.1, "momentum": 0.5}'),
        cwd=tmp_path, STEP_S="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == 0
    assert Path(result["metrics"]).is_file()


def strings() -> list[str]:
    lines = (JOB / "steering_exec.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_that_the_steering_strings_are_what_idds_can_fill_in() -> None:
    command, container = strings()
    assert command.startswith("hpc-hpo steer ")
    assert container.startswith("run --rm ")
    for text in (command, container):
        assert {"%IN", "%OUT", "%NUM_POINTS", "%MAX_POINTS"} == {
            word.rpartition("/")[2] for word in shlex.split(text) if "%" in word
        }
    assert json.loads((JOB / "phpo.json").read_text())["steeringExec"] == container.replace(
        "IMAGE", "hpc-hpo-steer"
    )


def test_that_steering_needs_no_more_than_the_image_holds(tmp_path: Path) -> None:
    """Whatever else is installed here is hidden, as it is missing there."""
    space = json.loads((JOB / "space.json").read_text())
    points = [[{"lr": 0.01 * (i + 1), "momentum": i / 40}, i / 3] for i in range(30)]
    (tmp_path / "in.json").write_text(json.dumps({"points": points, "opt_space": space}))
    guard = f"""
import sys
from importlib.machinery import PathFinder

class Guard:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path) if path is None else None
        origin = str(spec.origin or spec.submodule_search_locations) if spec else ""
        if "site-packages" in origin and name not in {IN_THE_IMAGE}:
            raise ImportError(f"{{name}} is not in the image")

sys.meta_path.insert(0, Guard())
from hpc_hpo.cli.main import main
sys.argv = ["hpc-hpo"] + {strings()[0].split()[1:]}
sys.exit(main())
"""
    for placeholder, value in {
        "%IN": "in.json", "%OUT": "out.json", "%NUM_POINTS": "5", "%MAX_POINTS": "33",
    }.items():  # fmt: skip
        guard = guard.replace(f"'{placeholder}'", f"'{value}'")
    done = subprocess.run(
        [sys.executable, "-c", guard], cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out.json").read_text())) == 3


def test_that_the_image_installs_what_the_code_is_tested_with() -> None:
    text = (JOB / "Containerfile").read_text()
    for name in IN_THE_IMAGE:
        assert f"python3-{name}" in text
    assert "ppc64le" in text
