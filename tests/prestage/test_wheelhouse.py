"""Wheelhouses, from a folder of tiny wheels in place of an index."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.cli.main import cli
from hpc_hpo.errors import InputError
from hpc_hpo.preflight import scan
from hpc_hpo.prestage import wheelhouse
from hpc_hpo.prestage.requirements import read_requirements
from hpc_hpo.prestage.wheelhouse import (
    IndexUnreachable,
    Wheelhouse,
    fetch_wheelhouse,
    load_wheelhouse,
)
from hpc_hpo.site import load_site
from hpc_hpo.site.target import target_of
from tests.preflight.objects import elf, zipped

SUMMIT = replace(target_of(load_site("summit")), python=(3, 11))
POWER, INTEL = "cp311-cp311-manylinux_2_17_ppc64le", "cp311-cp311-manylinux_2_17_x86_64"
Fetch = Callable[..., Wheelhouse]


def has_pip() -> bool:
    call = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(call, capture_output=True).returncode == 0


needs_pip = pytest.mark.skipif(not has_pip(), reason="needs pip in this Python: ensurepip")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds a wheel to the index; pip of this test sees no other, and no user's settings."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("CONSTRAINT", "EXTRA_INDEX_URL", "INDEX_URL"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def add(name: str, version: str, tags: str = "py3-none-any", *needs: str) -> None:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
        info = f"{name}-{version}.dist-info"
        files = {
            f"{name}/__init__.py": b"",
            f"{info}/METADATA": metadata.encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
            f"{info}/RECORD": b"",
        }
        if "ppc64le" in tags:
            files[f"{name}/_c.so"] = elf()
        (folder / f"{name}-{version}-{tags}.whl").write_bytes(zipped(files))

    return add


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def fetch_lines(*lines: str, **options: object) -> Wheelhouse:
        file = tmp_path / "requirements.txt"
        file.write_text("\n".join(lines))
        target = options.pop("target", SUMMIT)
        return fetch_wheelhouse(file, tmp_path / "house", target, **options)  # type: ignore[arg-type]

    return fetch_lines


def names(result: Wheelhouse) -> list[str]:
    return ["-".join(wheel.name.split("-")[:2]) for wheel in result.wheels]


@needs_pip
def test_that_wheels_for_the_site_are_fetched_with_all_they_need(
    index: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    index("core", "1.0", POWER)
    index("core", "1.0", INTEL)
    index("core", "2.0", INTEL)  # the newest is not for the site
    index("top", "1.0", "py3-none-any", "core>=1", "tool; extra == 'cli'", "win; os_name == 'nt'")
    index("tool", "3.0")
    result = fetch("top[cli]  # a comment", "")
    assert names(result) == ["core-1.0", "tool-3.0", "top-1.0"] and result.missing == []
    assert sorted(tmp_path.joinpath("house").glob("*.whl")) == result.wheels
    assert scan([tmp_path / "house"], SUMMIT) == []


@needs_pip
def test_that_what_has_no_wheel_is_listed_with_the_line_that_supplies_it(
    index: Callable[..., None], fetch: Fetch
) -> None:
    index("numpy", "2.0", INTEL)
    index("torch", "2.0", INTEL)
    index("science", "1.0", "py3-none-any", "numpy>=1.24")
    result = fetch("science", "torch", supplies={"Torch": "module load open-ce"})
    assert names(result) == ["science-1.0"]
    numpy, torch = result.missing
    assert (numpy.name, numpy.needed, numpy.by) == ("numpy", ">=1.24", "science")
    assert "ppc64le, Python 3.11, glibc 2.28" in numpy.why or "no such package" in numpy.why
    assert torch.remedy == "module load open-ce"


@needs_pip
def test_that_a_package_of_other_machines_alone_is_told_from_one_nobody_knows(
    index: Callable[..., None], fetch: Fetch
) -> None:
    here = f"cp3{sys.version_info[1]}-cp3{sys.version_info[1]}-linux_{load_site('local').arch}"
    index("numpy", "2.0", here)
    odd = replace(SUMMIT, arch_name="s390x")
    numpy, wrong = fetch("numpy", "nunpy", target=odd).missing
    assert "no wheel for s390x" in numpy.why and "conda" in numpy.remedy
    assert "no such package" in wrong.why and "spelling" in wrong.remedy


@needs_pip
def test_that_markers_are_those_of_the_nodes(index: Callable[..., None], fetch: Fetch) -> None:
    for name in ("a", "b", "c"):
        index(name, "1.0")
    result = fetch(
        'a; platform_machine == "x86_64"',
        'b; platform_machine == "ppc64le"',
        'c; python_version >= "3.11"',
    )
    assert names(result) == ["b-1.0", "c-1.0"]


@needs_pip
def test_that_the_nodes_glibc_and_python_choose_the_wheel(
    index: Callable[..., None], fetch: Fetch
) -> None:
    index("p", "1.0", "cp311-cp311-manylinux_2_17_ppc64le")
    index("p", "2.0", "cp311-cp311-manylinux_2_28_ppc64le")
    index("p", "3.0", "cp311-cp311-manylinux_2_34_ppc64le")
    index("p", "4.0", "cp312-cp312-manylinux_2_17_ppc64le")
    index("p", "5.0", "cp39-abi3-musllinux_1_2_ppc64le")
    assert names(fetch("p")) == ["p-2.0"]
    assert names(fetch("p", target=replace(SUMMIT, glibc=None))) == ["p-1.0"]
    assert names(fetch("p", target=replace(SUMMIT, python=(3, 12)))) == ["p-4.0"]


@needs_pip
def test_that_versions_are_exchanged_until_all_agree(
    index: Callable[..., None], fetch: Fetch
) -> None:
    index("a", "1.0", "py3-none-any", "shared")
    index("b", "1.0", "py3-none-any", "shared<2")
    index("shared", "1.5", "py3-none-any")
    index("shared", "2.0", "py3-none-any", "gone")
    index("gone", "1.0")
    assert names(fetch("a", "b")) == ["a-1.0", "b-1.0", "shared-1.5"]


@needs_pip
@pytest.mark.slow
def test_that_the_same_request_is_not_fetched_twice_and_a_smaller_one_removes(
    index: Callable[..., None], fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index("a", "1.0")
    index("b", "1.0")
    first = fetch("a", "b", "nothing")
    with monkeypatch.context() as patch:
        patch.setattr(wheelhouse.subprocess, "run", None)
        assert fetch("a", "b", "nothing") == first
    first.wheels[0].unlink()
    assert fetch("a", "b", "nothing") == first and first.wheels[0].exists()
    assert names(fetch("a")) == ["a-1.0"]
    assert [p.name for p in sorted((tmp_path / "house").iterdir())] == [
        "a-1.0-py3-none-any.whl", "wheelhouse.json",
    ]  # fmt: skip
    assert load_wheelhouse(tmp_path / "house") is not None
    assert load_wheelhouse(tmp_path) is None


@needs_pip
def test_that_an_index_out_of_reach_is_no_statement_about_packages(
    index: Callable[..., None], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(IndexUnreachable, match="does not answer"):
        fetch("--index-url http://127.0.0.1:9/simple", "numpy")


def test_that_a_python_without_pip_is_told(fetch: Fetch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(InputError, match="ensurepip"):
        fetch("numpy", python=str(python))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-e .", "no wheel can be fetched"),
        ("git+https://h/x.git", "no wheel can be fetched"),
        ("numpy=>1", "no wheel can be fetched"),
        ("-r gone.txt", "cannot be read"),
        ("-r requirements.txt", "include each other"),
        ("--what x", "no wheel can be fetched"),
    ],
)
def test_that_lines_that_ask_for_no_wheel_are_refused(fetch: Fetch, line: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fetch("a", line)


def test_that_files_may_include_others_and_continue_lines(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("b>=1 \\\n  ,<2\n")
    (tmp_path / "wheels").mkdir()
    file = tmp_path / "r.txt"
    file.write_text("# all\na==1 --hash=sha256:00\n-r more.txt\n-c=c.txt\n-f wheels\n--pre\n")
    read = read_requirements(file)
    assert [(str(r), by) for r, _, by in read.asked] == [
        ("a==1", "r.txt:2"),
        ("b<2,>=1", "more.txt:1"),
    ]
    assert read.asked[0][1].endswith("--hash=sha256:00")
    assert read.options == [f"-c {tmp_path}/c.txt", f"--find-links {tmp_path}/wheels", "--pre"]


@given(st.text(alphabet="ab-=<>[]1.;#\\\n '\"rc", max_size=40))
def test_that_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_text(text)
    try:
        read_requirements(file)
    except InputError as error:
        assert str(file.parent) in str(error)


STUDY = """
name: wheels
command: [python3, -c, "print('loss 1')"]
loss: {stdout: "loss (.*)"}
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 1}
account: ABC123
site: ./site.yaml
blocks: {walltime: 1:00}
inputs: [{name: packages, source: requirements.txt, kind: requirements}]
"""
SITE = """
extends: summit
name: power
python_version: "3.11"
supplies: {torch: module load open-ce}
"""


@needs_pip
@pytest.mark.slow
def test_that_prestage_fetches_the_wheels_of_a_study_and_its_table_lists_what_has_none(
    index: Callable[..., None], tmp_path: Path
) -> None:
    index("core", "1.0", POWER)
    index("torch", "1.0", INTEL)
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "more.txt").write_text("core\n")
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    study = str(tmp_path / "study.yaml")
    run = CliRunner().invoke
    before = run(cli, ["check", study])
    assert before.exit_code == 0, before.output
    done = run(cli, ["prestage", study])
    assert done.exit_code == 0, done.output
    house = tmp_path / "wheels/inputs/packages"
    (wheel,) = house.glob("*.whl")
    assert "1 compiled objects fit ppc64le" in run(cli, ["check", study]).output

    (tmp_path / "requirements.txt").write_text("core\ntorch>=1\n")
    done = run(cli, ["prestage", study])
    (row,) = [line for line in done.output.splitlines() if "torch" in line]
    assert "inputs/packages: torch>=1" in row and "by requirements.txt:2" in row
    assert row.endswith("module load open-ce")
    assert run(cli, ["prestage", study, "--verify"]).exit_code == 0
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"x")
    done = run(cli, ["prestage", study, "--verify"])
    assert done.exit_code == 2 and f"{wheel.name} has changed" in done.output
    wheel.unlink()
    assert f"{wheel.name} is missing" in run(cli, ["run", study]).output
