"""The preflight as `check` and `prestage` show it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hpc_hpo.preflight import versions_here
from tests.preflight.objects import X86, elf, oci, sif, tar, zipped

Command = Callable[..., Result]
STUDY = """
name: fit
command: [python3, -c, "print('loss 1')"]
loss: {stdout: "loss (.*)"}
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 1}
account: ABC123
site: ./site.yaml
blocks: {walltime: 1:00}
inputs:
"""
SITE = """
name: power
extends: summit
python_version: "3.11"
"""
BAD, GOOD = elf(X86), elf()
PLACE = f"lib/python3.{sys.version_info[1]}/site-packages"


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with these input files at a site of Summit's kind."""

    def write(site: str = "", **files: bytes) -> Path:
        (tmp_path / "site.yaml").write_text(SITE.replace("3.11", f"3.{sys.version_info[1]}") + site)
        rows = []
        for name, content in files.items():
            file = tmp_path / f"{name}.bin"
            file.write_bytes(content)
            rows.append(f"  - {{name: {name}, source: {file.name}}}\n")
        (tmp_path / "study.yaml").write_text(STUDY + "".join(rows or ["  []\n"]))
        return tmp_path / "study.yaml"

    return write


def environment(**versions: str) -> bytes:
    here = versions_here().packages
    held = {"parsl": here["parsl"], "numpy": here["numpy"], **versions}
    return tar({f"{PLACE}/{n}-{v}.dist-info/METADATA": b"x" for n, v in held.items()})


def test_that_what_will_not_run_is_refused_in_one_table_with_names(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    file = study(
        env=tar({"lib/hidden.so": BAD, "lib/fine.so": GOOD}),
        image=tar(oci("ppc64le", [tar({"usr/bin/tool": BAD})]), "w"),
        old=sif("02", "02"),
        data=b"1,2,3\n",
    )
    done = hpc_hpo("check", file, "--plain")
    assert done.exit_code == 2
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["file", "found", "needed", "at", "power", "remedy"]
    wrong = [row for row in rows if row.startswith("wrong")]
    for name in ("env.bin!lib/hidden.so", "!usr/bin/tool", "old.bin (header)"):
        (row,) = [row for row in wrong if name in row]
        assert "x86_64" in row and "ppc64le" in row and "build" in row
    assert "fine.so" not in done.stdout and "data.bin" not in done.stdout
    assert "env.bin!lib/hidden.so: x86_64, needed is ppc64le; and 3 more" in done.stderr


def test_that_many_files_with_one_fault_are_one_row_unless_all_are_asked_for(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    file = study(env=tar({f"lib/{n}.so": BAD for n in range(9)}), more=tar({"x.so": BAD}))
    short, long = hpc_hpo("check", file), hpc_hpo("check", file, "--all")
    assert sum(line.startswith("wrong") for line in short.stdout.splitlines()) == 2
    assert "(and 8 more)" in short.stdout
    assert sum(line.startswith("wrong") for line in long.stdout.splitlines()) == 10


def test_that_what_fits_is_summed_up(hpc_hpo: Command, study: Callable[..., Path]) -> None:
    done = hpc_hpo("check", study(env=tar({"a.so": GOOD, "b.so": GOOD}), e2=environment()))
    assert done.exit_code == 0, done.output
    assert "preflight  2 compiled objects fit ppc64le" in done.stdout


def test_that_another_parsl_on_the_other_end_is_refused(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    done = hpc_hpo("check", study(env=environment(parsl="2025.1.1")))
    assert done.exit_code == 2
    assert "Parsl 2025.1.1" in done.stdout and versions_here().packages["parsl"] in done.stdout


def test_that_an_environment_without_parsl_is_warned_of(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    file = study(env=tar({f"{PLACE}/numpy-2.0.dist-info/METADATA": b"x"}))
    text = file.read_text().replace("env.bin", "env.bin, kind: environment")
    file.write_text(text)
    done = hpc_hpo("prestage", file)
    assert done.exit_code == 0, done.output
    (row,) = [line for line in done.stdout.splitlines() if "without Parsl" in line]
    assert row.startswith("warning") and versions_here().packages["parsl"] in row


def test_that_an_environment_nobody_can_look_at_is_said_to_be_not_checked(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    done = hpc_hpo("check", study("modules: [python]\n"))
    assert done.exit_code == 0
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("not checked")]
    assert "doctor" in row and "--job" in row


def test_that_the_site_s_own_python_is_looked_at(
    hpc_hpo: Command, study: Callable[..., Path], tmp_path: Path
) -> None:
    prefix = tmp_path / "venv"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").write_bytes(BAD)
    (prefix / "pyvenv.cfg").write_text("")
    (prefix / PLACE / "parsl-1.0.dist-info").mkdir(parents=True)
    (prefix / PLACE / "parsl-1.0.dist-info/METADATA").write_text("")
    (prefix / PLACE / "numpy-2.0.dist-info").mkdir(parents=True)
    (prefix / PLACE / "numpy-2.0.dist-info/METADATA").write_text("")
    done = hpc_hpo("check", study(f"python: {prefix}/bin/python\n"))
    assert done.exit_code == 2
    assert f"{prefix}/bin/python" in done.stdout and "Parsl 1.0" in done.stdout


def test_that_prestage_ends_with_the_preflight_of_what_it_staged(
    hpc_hpo: Command, study: Callable[..., Path], tmp_path: Path
) -> None:
    done = hpc_hpo("prestage", study(wheel=zipped({"p/x.so": BAD})))
    assert done.exit_code == 2
    assert "inputs/wheel/wheel.bin!p/x.so" in done.stdout
    assert (tmp_path / "fit/manifest.json").exists()
    done = hpc_hpo("prestage", study(wheel=zipped({"p/x.so": GOOD})))
    assert done.exit_code == 0
    assert "preflight for power: 1 compiled objects fit ppc64le" in done.stdout


def test_that_a_program_of_the_study_s_own_is_looked_at(
    hpc_hpo: Command, study: Callable[..., Path], tmp_path: Path
) -> None:
    file = study()
    (tmp_path / "sim").write_bytes(BAD)
    (tmp_path / "sim").chmod(0o755)
    file.write_text(file.read_text().replace("[python3, -c, \"print('loss 1')\"]", "[./sim]"))
    done = hpc_hpo("check", file)
    assert done.exit_code == 2 and f"{tmp_path}/sim" in done.stdout


def test_that_an_input_not_fetched_yet_is_said_to_be_not_checked(
    hpc_hpo: Command, study: Callable[..., Path]
) -> None:
    file = study()
    file.write_text(
        file.read_text().replace("  []", "  - {name: x, source: 'https://data.example/x.tar'}")
    )
    done = hpc_hpo("check", file)
    assert done.exit_code == 0, done.output
    assert "input x" in done.stdout and "not fetched yet" in done.stdout
