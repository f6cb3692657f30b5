"""`hpc-hpo logs`: the steering log, from wherever the folder can be seen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hpc_hpo.cli import logs as following
from hpc_hpo.folder import StudyFolder
from hpc_hpo.steerer.chain import Chain, change_chain, close_chain
from tests import events as ev

Command = Callable[..., Result]


class Clock:
    """Each sleep does the next thing."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)

    def now(self) -> float:
        return ev.START

    def sleep(self, seconds: float) -> None:
        assert self.steps, "slept although nothing was to come"
        self.steps.pop(0)()


def write(folder: StudyFolder, text: str) -> None:
    with open(folder.steering_log, "a") as stream:
        stream.write(text)


@pytest.fixture
def follow(hpc_hpo: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`logs -f`, while the steps happen one by one."""

    def run(folder: StudyFolder, *steps: Callable[[], object]) -> Result:
        clock = Clock(*steps)
        monkeypatch.setattr(following, "SystemClock", lambda: clock)
        done = hpc_hpo("logs", "-f", folder.path)
        assert not clock.steps, "ended too early"
        return done

    return run


def test_that_the_last_lines_are_shown(hpc_hpo: Command, folder: StudyFolder) -> None:
    write(folder, "".join(f"line {i}\n" for i in range(100)) + "half a li")
    assert hpc_hpo("logs", folder.path).output.splitlines()[0] == "line 50"
    assert hpc_hpo("logs", folder.path, "-n", 2).output == "line 98\nline 99\n"
    assert hpc_hpo("logs", folder.path, "-n", 0).output == ""


def test_that_a_study_never_submitted_has_no_log(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("logs", study_file)
    assert done.exit_code == 2
    assert "has no steering log" in done.stderr


def test_that_following_shows_what_comes_and_says_when_the_process_is_gone(
    follow: Callable[..., Result], steered_by_us: StudyFolder
) -> None:
    folder = steered_by_us
    write(folder, "old\nhalf")

    def end() -> None:
        write(folder, "last words\n")
        folder.holder.unlink()

    done = follow(folder, lambda: write(folder, " line\n"), lambda: None, end)
    assert done.exit_code == 0
    assert done.output == (
        f"old\nhalf line\nlast words\n{folder.path}: no steering process is at work any more\n"
    )


def test_that_following_a_dead_one_ends_at_once(
    follow: Callable[..., Result], folder: StudyFolder
) -> None:
    write(folder, "the end\n")
    assert "no steering process is at work any more" in follow(folder).output


def test_that_between_two_jobs_of_a_chain_following_goes_on(
    follow: Callable[..., Result], folder: StudyFolder
) -> None:
    write(folder, "first job\n")
    change_chain(folder, lambda _: Chain("s", 3, ("7", "8")))
    done = follow(
        folder,
        lambda: None,
        lambda: write(folder, "second job\n"),
        lambda: close_chain(folder, "the study is done"),
    )
    assert done.output.count("job 8 is to go on") == 1, "said once"
    assert done.output.endswith("second job\n" + f"{folder.path}: no steering process is at work "
                                "any more\n")  # fmt: skip
