"""``hpc-hpo report``: a study as one HTML file that opens without a network."""

from __future__ import annotations

import time
from pathlib import Path

import click

from hpc_hpo.cli.common import StudyView, open_study
from hpc_hpo.errors import InputError


@click.command()
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, metavar="[PATH]...")
@click.option("--compare", is_flag=True, help="Lay two or more studies over each other.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The file. Default: report.html in the study's folder; with --compare, compare.html here.",
)  # fmt: skip
def report(paths: tuple[Path, ...], compare: bool, output: Path | None) -> None:
    """Write a study as one HTML page: plots, timeline, failures, settings.

    PATH is the study's folder or its study.yaml (default: here). The page opens in any browser,
    without a network. The study may be running.
    """
    paths = paths or (Path("."),)
    if compare and len(paths) < 2:
        raise InputError("compares studies", key="--compare", found=str(paths[0]),
                         valid="two or more of them")  # fmt: skip
    if len(paths) > 1 and not compare:
        raise InputError("makes a page of one study", key="PATH", found=len(paths),
                         valid="one study, or --compare with several")  # fmt: skip
    views = [open_study(path) for path in paths]
    target = output or (Path("compare.html") if compare else views[0].folder.path / "report.html")
    if not target.parent.is_dir():
        why = "there is no such folder" if output else "the study has never been run"
        raise InputError(why, file=str(target.parent))
    if target.is_dir():
        raise InputError("is a folder", file=str(target), key="-o", valid="a file's name")
    size = _write(views, target)
    click.echo(f"{_what(views)} written to {target} ({size / 1e6:.1f} MB)")


def _write(views: list[StudyView], target: Path) -> int:
    from hpc_hpo.results.report.material import Material
    from hpc_hpo.results.report.page import write_report

    now = time.time()
    return write_report([Material(v.folder, v.study, v.state, now) for v in views], target)


def _what(views: list[StudyView]) -> str:
    if len(views) > 1:
        return f"{len(views)} studies"
    count = len(views[0].state.trials)
    return f"{count} trial{'s' * (count != 1)}"
