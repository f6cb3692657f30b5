"""The studies of the job fastcalogan, and the table of their best points."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from hpc_hpo.cli.main import cli
from tests.jobs.scripts import JOBS, require_torch, scripts

JOB = JOBS / "fastcalogan"
#: Each study with the end of its slices and the folder of its showers.
STUDIES = {
    "study.yaml": (25, "data"),
    "demo.yaml": (25, "data/demo"),
    "study_300.yaml": (500, "data"),
}


@pytest.fixture
def best_points() -> Iterator[ModuleType]:
    with scripts("fastcalogan", ("best_points",)) as modules:
        yield modules["best_points"]


def check(path: Path) -> Result:
    """The command in this process."""
    return CliRunner().invoke(cli, ["check", str(path)], catch_exceptions=False)


@pytest.mark.parametrize("name", STUDIES)
def test_that_a_shipped_study_passes_its_check_with_its_data_and_names_what_is_missing(
    name: str, tmp_path: Path
) -> None:
    require_torch()  # check looks for what the objective imports
    job = tmp_path / "job"
    shutil.copytree(JOB, job, ignore=shutil.ignore_patterns("data", "fastcalogan*"))
    end, where = STUDIES[name]
    folder = job / where
    folder.mkdir(parents=True)
    for pid in (22, 11, 211):
        for low in range(0, end, 5):
            (folder / f"pid{pid}_eta_{low}_{low + 5}.v02.tar").touch()
    done = check(job / name)
    assert done.exit_code == 0, done.stderr
    (folder / "pid211_eta_5_10.v02.tar").unlink()
    done = check(job / name)
    assert done.exit_code == 2
    assert done.stderr.count("no file matches") == 1
    assert "segment pid211_eta5" in done.stderr


def test_that_the_large_study_fits_summit_too(tmp_path: Path) -> None:
    require_torch()
    job = tmp_path / "job"
    shutil.copytree(JOB, job, ignore=shutil.ignore_patterns("data", "fastcalogan*"))
    study = yaml.safe_load((job / "study_300.yaml").read_text())
    study["site"], study["blocks"] = "summit", {"nodes": 45, "walltime": "2:00", "max": 4}
    study["segments"]["table"] = {"pid": [22], "eta": [0]}
    (job / "data").mkdir()
    (job / "data" / "pid22_eta_0_5.v02.tar").touch()
    (job / "summit.yaml").write_text(yaml.safe_dump(study))
    done = check(job / "summit.yaml")
    assert done.exit_code == 0, done.stderr
    assert "up to 6 trials at one time on a node" in done.stdout


def trial(number: int, segment: str | None, loss: float | None, **more: Any) -> dict[str, Any]:
    return {
        "trial": number, "segment": segment, "loss": loss, "busy_s": 2.0, "error": None,
        "state": "failed" if loss is None else "completed", "point": {"lr": 0.00123456},
        "slices": [{"end": "completed", "restored": None}], **more,
    }  # fmt: skip


def test_that_the_table_has_the_best_point_of_each_gan(best_points: ModuleType) -> None:
    rows = best_points.rows_of(
        [
            trial(0, "pid22_eta0", 3.0),
            trial(1, "pid11_eta0", 2.0),
            trial(2, "pid22_eta0", 1.5, point={"lr": 0.01, "gdratio": 5}),
            trial(3, "pid211_eta0", None, error={"message": "DataError: cut.tar"}),
        ]
    )
    assert [row[:4] for row in rows] == [
        ["pid22_eta0", "1.50", "2 of 2", "0.01"],
        ["pid11_eta0", "2.00", "1 of 1", "0.00123"],
        ["pid211_eta0", "none", "0 of 1", "DataError: cut.tar"],
    ]
    lines = best_points.table(["GAN", "chi2/ndf", "points", *best_points.SHOWN], rows).splitlines()
    assert lines[1].split()[:2] == ["pid22_eta0", "1.50"]
    assert lines[3].endswith("DataError: cut.tar")
    assert lines[0].index("chi2/ndf") == lines[1].index("1.50") == lines[3].index("none")


def test_that_the_cost_counts_slices_that_went_on(best_points: ModuleType) -> None:
    slices = [{"end": "paused", "restored": None}, {"end": "completed", "restored": "ckpt-000001"}]
    text = best_points.cost([trial(0, None, 1.0, slices=slices), trial(1, None, 1.0)])
    assert text == (
        "2 trials in 3 slices: 2 completed, 1 paused; 1 went on from a checkpoint; 4 worker-seconds"
    )


def test_that_what_the_demonstration_cuts_is_named(best_points: ModuleType) -> None:
    demo, whole = (yaml.safe_load((JOB / name).read_text()) for name in ("demo.yaml", "study.yaml"))
    found = best_points.cuts(demo, whole)
    assert "budget.trials: 3, not 20" in found
    assert "space.epochs.dimension.value: 300, not 10000" in found
    assert not any(text.startswith("segments") for text in found), "all fifteen are there"
    assert best_points.cuts(whole, whole) == []
