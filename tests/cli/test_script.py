"""`hpc-hpo script`: scripts compared whole with those in jobs/, which users copy."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"
ODD = Path(__file__).with_name("scripts")
Command = Callable[..., Result]

STUDY = """\
name: digits
objective: objective.py:train
space: {{lr: {{float: [0.0, 1.0]}}}}
budget: {{trials: 2000}}
trial: {{gpus_per_rank: {gpus}, expected_time: 20m}}
account: ABC123
blocks: {{nodes: {nodes}, walltime: "2:00"}}
"""
#: golden copy -> site, nodes, GPUs of a trial, folder of the study, further options
CASES = {
    JOBS / "summit.lsf": ("summit", 8, 1, "digits", []),
    JOBS / "lsf.sh": ("lsf", 2, 0, "digits", []),
    JOBS / "frontier.slurm": ("frontier", 8, 1, "digits", []),
    JOBS / "slurm.sh": ("slurm", 4, 0, "digits", []),
    JOBS / "polaris.pbs": ("polaris", 10, 1, "digits", []),
    JOBS / "prestage.sh": ("local", 1, 0, "digits", ["--steer", "prestage"]),
    ODD / "odd-path.lsf": ("summit", 1, 0, 'it\'s a "study" of $HOME', ["--dir", "my runs"]),
    ODD / "odd-path.sh": ("local", 1, 0, "it's; rm", ["--steer", "prestage", "--dir", "my runs"]),
    ODD / "no-chain.slurm": ("frontier", 8, 0, "digits", []),
}


def make_study(folder: Path, nodes: int = 1, gpus: int = 0, more: str = "") -> Path:
    folder.mkdir()
    file = folder / "study.yaml"
    file.write_text(STUDY.format(nodes=nodes, gpus=gpus) + more)
    return file


@pytest.mark.parametrize("golden", CASES, ids=lambda path: path.name)
def test_that_a_script_is_as_its_golden_copy(
    golden: Path, hpc_hpo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, nodes, gpus, name, options = CASES[golden]
    more = "queue: debug\n" if golden.stem == "no-chain" else ""
    file = make_study(tmp_path / name, nodes, gpus, more)
    # Sites that describe no node of their own take this machine's.
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(32)))
    monkeypatch.setattr(sys, "executable", "/sw/hpo/bin/python")
    monkeypatch.chdir(tmp_path)
    done = hpc_hpo("script", file, "--site", site, *options)
    assert done.exit_code == 0, done.output
    assert done.output.replace(str(tmp_path), "/proj/abc123") == golden.read_text()


@pytest.mark.parametrize("golden", CASES, ids=lambda path: path.name)
def test_that_a_shell_reads_every_word_as_it_was_meant(golden: Path) -> None:
    text = golden.read_text()
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines), "short enough to read"
    head, _, call = text.rpartition('exec "$PYTHON"')
    values = "\n".join(line for line in head.splitlines() if line.startswith(("STUDY=", "SCRIPT=")))
    if not call or not head:
        values = next(line for line in lines if line.startswith("STUDY="))
        call = lines[-1].removeprefix('"$PYTHON"')
    printed = subprocess.run(
        ["bash", "-uc", f"{values}\nprintf '%s\\n'{call}"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    folder = CASES[golden][3]
    assert printed[:2] == ["-m", "hpc_hpo.cli.main"]
    assert printed[3] == f"/proj/abc123/{folder}/study.yaml"
    if "--dir" in printed:
        assert printed[printed.index("--dir") + 1] == "/proj/abc123/my runs"
    if "--script" in printed:
        script = printed[printed.index("--script") + 1]
        assert script == f"/proj/abc123/{folder}/digits.{script.rpartition('.')[2]}"
    assert subprocess.run(["bash", "-n", golden], check=False).returncode == 0


def test_that_each_script_in_jobs_has_its_case() -> None:
    kinds = {".lsf", ".slurm", ".pbs", ".sh"}
    assert {p for p in JOBS.iterdir() if p.suffix in kinds} == {
        p for p in CASES if p.parent == JOBS
    }


def test_that_a_script_knows_the_file_it_is_written_to(hpc_hpo: Command, tmp_path: Path) -> None:
    file = make_study(tmp_path / "digits")
    target = tmp_path / "my job.lsf"
    done = hpc_hpo("script", file, "--site", "summit", "-o", target)
    assert done.exit_code == 0 and not done.output
    assert f"SCRIPT='{target}'\n" in target.read_text()


def test_that_auto_blocks_are_those_of_the_plan(hpc_hpo: Command, tmp_path: Path) -> None:
    file = make_study(tmp_path / "digits")
    file.write_text(file.read_text().replace('{nodes: 1, walltime: "2:00"}', "auto"))
    done = hpc_hpo("script", file, "--site", "summit")
    assert done.exit_code == 0, done.output
    assert "#BSUB -nnodes " in done.output and "#BSUB -W " in done.output


@pytest.mark.parametrize(
    ("site", "old", "new", "words"),
    [
        ("local", "", "", "has no batch system"),
        ("summit", "account: ABC123", "", "account"),
        ("summit", "account:", "queue: bach\naccount:", "bach"),
        ("summit", '"2:00"', '"3:00"', "you asked for 1 nodes and 3:00"),
    ],
)
def test_that_a_job_which_would_be_refused_is_not_printed(
    site: str, old: str, new: str, words: str, hpc_hpo: Command, tmp_path: Path
) -> None:
    file = make_study(tmp_path / "digits")
    file.write_text(file.read_text().replace(old, new))
    done = hpc_hpo("script", file, "--site", site)
    assert done.exit_code == 2
    assert words in done.stderr and not done.stdout
