"""Python, Parsl and numpy on both ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.preflight import Versions, Walk, compare, versions_here
from hpc_hpo.preflight.versions import Installed
from tests.preflight.conftest import SUMMIT
from tests.preflight.objects import tar, zipped

HERE = Installed({"parsl": "2026.10.26", "numpy": "2.1.0"}, {11})


def told(*names: str) -> list[tuple[str, str, str]]:
    versions = Versions()
    for name in names:
        versions.note("env", name)
    return [(row.level, row.kind, row.found) for row in compare(versions, HERE, (3, 11))]


SITE = "lib/python3.11/site-packages"


def test_that_an_equal_environment_has_nothing_to_tell() -> None:
    assert (
        told(f"{SITE}/parsl-2026.10.26.dist-info/METADATA", f"{SITE}/numpy-2.3.1.dist-info/x") == []
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["lib/python3.10/site-packages/parsl-2026.10.26.dist-info/x"],
         [("wrong", "python", "Python 3.10"), ("wrong", "numpy", "no numpy")]),
        ([f"{SITE}/parsl-2025.1.1.dist-info/x", f"{SITE}/numpy-2.0.0.dist-info/x"],
         [("wrong", "parsl", "Parsl 2025.1.1")]),
        ([f"{SITE}/parsl-2026.10.26.dist-info/x", f"{SITE}/numpy-1.24.2.dist-info/x"],
         [("warning", "numpy", "numpy 1.24.2")]),
        # numpy 1.26 reads what numpy 2 has pickled.
        ([f"{SITE}/parsl-2026.10.26.dist-info/x", f"{SITE}/numpy-1.26.4.dist-info/x"], []),
        (["usr/lib/python3/dist-packages/parsl-2026.10.26.egg-info/x",
          "usr/lib/python3/dist-packages/numpy-2.0.0.egg-info/x"],
         [("not checked", "python", "a Python whose version shows nowhere")]),
        (["usr/lib/python3/dist-packages/parsl-2026.10.26.egg-info/x", "usr/lib/python3.11/os.py",
          "usr/lib/python3/dist-packages/numpy-2.0.0.egg-info/x"], []),
        (["conda-meta/python-3.9.7-h1_0.json", "lib/python3.9/os.py"], []),
    ],
)  # fmt: skip
def test_that_differences_are_told(names: list[str], expected: list[tuple[str, str, str]]) -> None:
    assert told(*names) == expected


def test_that_environments_in_archives_and_wheelhouses_are_read(tmp_path: Path) -> None:
    env = tar(
        {f"./{SITE}/parsl-1.0.dist-info/METADATA": b"x", f"{SITE}/numpy-2.0.dist-info/x": b""}
    )
    (tmp_path / "env.tar.gz").write_bytes(env)
    house = tmp_path / "wheels"
    house.mkdir()
    (house / "parsl-2.0-py3-none-any.whl").write_bytes(zipped({"parsl/x.py": b""}))
    walk = Walk(SUMMIT)
    walk.path(tmp_path / "env.tar.gz", "env")
    walk.path(house, "wheels")
    found = {row.where: row.found for row in compare(walk.versions, HERE, (3, 11))}
    assert found == {"env": "Parsl 1.0", "wheels": "Parsl 2.0"}


def test_that_this_end_knows_its_own_versions() -> None:
    here = versions_here()
    assert {"parsl", "numpy"} <= set(here.packages) and len(here.pythons) == 1
