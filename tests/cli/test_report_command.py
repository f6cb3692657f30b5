"""``hpc-hpo report``."""

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from hpc_hpo.folder import StudyFolder

Command = Callable[..., Result]


def test_that_the_page_lies_in_the_folder_or_where_it_is_wanted(
    hpc_hpo: Command, folder: StudyFolder, tmp_path: Path
) -> None:
    done = hpc_hpo("report", folder.path)
    assert done.exit_code == 0, done.output
    assert (folder.path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "2 trials written to" in done.output
    wanted = tmp_path / "page.html"
    assert hpc_hpo("report", folder.path, "-o", wanted).exit_code == 0
    assert wanted.stat().st_size > 1_000_000


def test_that_studies_are_compared(hpc_hpo: Command, folder: StudyFolder, tmp_path: Path) -> None:
    wanted = tmp_path / "both.html"
    done = hpc_hpo("report", "--compare", folder.path, folder.path, "-o", wanted)
    assert done.exit_code == 0, done.output
    assert "2 studies written to" in done.output and wanted.exists()


def test_that_a_wrong_call_is_one_error(
    hpc_hpo: Command, folder: StudyFolder, tmp_path: Path
) -> None:
    for call, words in (
        (["report", "--compare", folder.path], "two or more"),
        (["report", folder.path, folder.path], "--compare with several"),
        (["report", folder.path, "-o", tmp_path / "no" / "x.html"], "there is no such folder"),
        (["report", folder.path, "-o", tmp_path], "is a folder"),
        (["report", tmp_path / "nothing"], "does not exist"),
    ):
        done = hpc_hpo(*call)
        assert done.exit_code == 2
        assert words in done.output and "Traceback" not in done.output
