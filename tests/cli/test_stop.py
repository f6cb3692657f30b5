"""`hpc-hpo stop` asks the steering process, and only one that lives."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hpc_hpo.cli import stop as stopping
from hpc_hpo.folder import StudyFolder
from tests import events as ev

Command = Callable[..., Result]


def test_that_stop_leaves_a_request_for_the_steering_process(
    hpc_hpo: Command, steered_by_us: StudyFolder
) -> None:
    done = hpc_hpo("stop", steered_by_us.path)
    assert done.exit_code == 0
    assert f"asked process {os.getpid()} on " in done.output
    assert steered_by_us.stop_request.exists()
    assert hpc_hpo("stop", steered_by_us.path).exit_code == 0, "asking twice does no harm"


@pytest.mark.parametrize("options", [[], ["--wait"]])
def test_that_stop_leaves_no_request_when_nobody_runs_the_study(
    hpc_hpo: Command, folder: StudyFolder, options: list[str]
) -> None:
    done = hpc_hpo("stop", folder.path, *options)
    assert done.exit_code == 0
    assert "nobody is running this study" in done.output
    assert not folder.stop_request.exists()


def test_that_stop_of_a_study_never_run_says_so(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("stop", study_file)
    assert done.exit_code == 0
    assert "nobody is running this study" in done.output


def test_that_stop_waits_until_the_process_is_gone(
    hpc_hpo: Command, steered_by_us: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Clock:
        def now(self) -> float:
            return ev.START + sum(waits)

        def sleep(self, seconds: float) -> None:
            assert steered_by_us.stop_request.exists(), "asked before waiting"
            waits.append(seconds)
            if len(waits) == 3:
                steered_by_us.holder.unlink()

    monkeypatch.setattr(stopping, "SystemClock", Clock)
    done = hpc_hpo("stop", steered_by_us.path, "--wait")
    assert done.exit_code == 0
    assert len(waits) == 3
    assert done.output.endswith("it has stopped\n")


def test_that_a_request_that_cannot_be_written_is_told(
    hpc_hpo: Command, steered_by_us: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = hpc_hpo("stop", steered_by_us.path)
    assert done.exit_code == 5
    assert "cannot be written" in done.stderr
