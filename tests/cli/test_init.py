"""`hpc-hpo init` writes studies that are valid, and payloads that survive being stopped."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from hpc_hpo.cli.init import COMMAND_STUDY, PYTHON_STUDY
from hpc_hpo.study import check_payload, load_study

Command = Callable[..., Result]
POINT = {"lr": 0.05, "batch": 16, "schedule": "decay", "rate": 0.9}


@pytest.mark.parametrize(("options", "names"), [([], PYTHON_STUDY), (["--command"], COMMAND_STUDY)])
def test_that_a_new_study_is_valid_and_says_how_to_run_it(
    hpc_hpo: Command, tmp_path: Path, options: list[str], names: dict[str, str]
) -> None:
    folder = tmp_path / "new" / "study"
    done = hpc_hpo("init", folder, *options)
    assert done.exit_code == 0
    assert f"hpc-hpo run {folder / 'study.yaml'}" in done.output
    assert {entry.name for entry in folder.iterdir()} == set(names.values())
    study = load_study(folder / "study.yaml")
    assert check_payload(study) == []
    assert study.site == "local"
    assert hpc_hpo("status", folder).exit_code == 0


@pytest.mark.parametrize("options", [[], ["--command"]])
def test_that_nothing_is_overwritten(hpc_hpo: Command, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    done = hpc_hpo("init", tmp_path, *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"hpc-hpo: {tmp_path / 'study.yaml'}: exists already")
    assert (tmp_path / "study.yaml").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1, "not even the other file is written"


def test_that_a_folder_that_cannot_be_made_is_told(hpc_hpo: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = hpc_hpo("init", tmp_path / "file" / "below")
    assert done.exit_code == 5
    assert "cannot be written" in done.stderr


def test_that_the_current_folder_is_the_default(
    hpc_hpo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hpc_hpo("init").exit_code == 0
    assert (tmp_path / "objective.py").exists()


class StubTrial:
    """Stops its objective after `steps` calls of should_stop; keeps what it checkpoints."""

    seed = 5

    def __init__(self, saved: dict[str, Any] | None, steps: float) -> None:
        self.saved, self.steps = saved, steps
        self.reports: dict[int, float] = {}

    def restore(self) -> dict[str, Any] | None:
        # As from a file: what comes back is no alias of what was saved.
        copy: dict[str, Any] | None = json.loads(json.dumps(self.saved))
        return copy

    def should_stop(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    def should_checkpoint(self) -> bool:
        return False

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.saved = json.loads(json.dumps(state))

    def report(self, step: int, **metrics: float) -> None:
        self.reports[step] = metrics["loss"]


def test_that_the_objective_gets_the_same_loss_when_it_is_stopped(
    hpc_hpo: Command, tmp_path: Path
) -> None:
    hpc_hpo("init", tmp_path)
    spec = importlib.util.spec_from_file_location("new_objective", tmp_path / "objective.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    whole = StubTrial(None, float("inf"))
    expected = module.train(POINT, whole)
    assert expected < 0.5 < whole.reports[0], "it learns"
    loss, saved, slices = None, None, 0
    while loss is None:
        trial = StubTrial(saved, 7)
        loss, saved, slices = module.train(POINT, trial), trial.saved, slices + 1
    assert slices > 5
    assert loss == expected


def train(script: Path, folder: Path, *, stop: bool) -> subprocess.CompletedProcess[bytes]:
    """One slice of the command, told to stop (if asked) at its first epoch."""
    folder.mkdir(exist_ok=True)
    arguments = [f"--{name}={value}" for name, value in POINT.items()]
    # The script sends itself the signal as soon as it handles it, so it comes neither too soon
    # nor too late.
    starter = (
        "import os, runpy, signal, sys\n"
        "install = signal.signal\n"
        "def listen(number, handler):\n"
        "    install(number, handler)\n"
        f"    {'os.kill(os.getpid(), number)' if stop else 'pass'}\n"
        "signal.signal = listen\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", starter, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "HPC_HPO_SEED": "5", "HPC_HPO_CHECKPOINT_SIGNAL": "SIGUSR2"},
        timeout=60,
    )


def test_that_the_command_gets_the_same_loss_when_it_is_stopped(
    hpc_hpo: Command, tmp_path: Path
) -> None:
    hpc_hpo("init", tmp_path, "--command")
    script, whole, parts = tmp_path / "train.py", tmp_path / "whole", tmp_path / "parts"
    assert train(script, whole, stop=False).returncode == 0
    for _ in range(2):
        stopped = train(script, parts, stop=True)
        assert stopped.returncode == 1, stopped.stderr
        assert b"stopped at a checkpoint" in stopped.stderr
        assert not (parts / "output.json").exists()
    assert json.loads((parts / "checkpoint.json").read_text())[0] == 2, "one epoch a slice"
    assert train(script, parts, stop=False).returncode == 0
    losses = [json.loads((f / "output.json").read_text())["loss"] for f in (whole, parts)]
    assert losses[0] == losses[1]


def test_that_the_templates_are_shipped() -> None:
    setup = (Path(__file__).resolve().parents[2] / "setup.cfg").read_text()
    assert "hpc_hpo.cli = templates/*" in setup
