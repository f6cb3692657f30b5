"""``hpc-hpo prestage``, and what run and check make of inputs, through the command."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.prestage.server import Server, serving

STUDY = """\
name: digits
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: random
budget: {trials: 1}
"""
Command = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.delenv("HPC_HPO_STORE", raising=False)

    def write(more: str) -> Path:
        (tmp_path / "objective.py").write_text("def train(config, trial):\n    return 1.0\n")
        (tmp_path / "study.yaml").write_text(STUDY + more)
        return tmp_path / "study.yaml"

    return write


def test_that_prestage_downloads_and_run_and_verify_need_no_network(
    hpc_hpo: Command, study: Callable[[str], Path], server: Server, tmp_path: Path
) -> None:
    server.add("/data.csv", b"1,2")
    file = study(f"inputs: [{{name: data, source: '{server.url}/data.csv'}}]\n")
    for command in ("run", "submit"):
        refused = hpc_hpo(command, file)
        assert refused.exit_code == 2 and "inputs[0].source: has not been staged" in refused.output
    assert hpc_hpo("check", file).exit_code == 0
    assert server.requests == []
    done = hpc_hpo("prestage", file, "--site", "local")
    assert done.exit_code == 0 and "1 inputs staged, 1 files, 3B" in done.output, done.output
    assert (tmp_path / ".hpc_hpo" / "store" / "sha256").is_dir()
    server.requests.clear()
    assert hpc_hpo("prestage", file, "--verify").exit_code == 0
    (tmp_path / "digits" / "inputs" / "data" / "data.csv").unlink()
    for arguments in (["run"], ["submit"], ["prestage", "--verify"]):
        refused = hpc_hpo(arguments[0], file, *arguments[1:])
        assert refused.exit_code == 2, refused.output
        assert "input data: inputs/data/data.csv is missing" in refused.output
    assert server.requests == []


def test_that_the_store_is_where_the_variable_says(
    hpc_hpo: Command,
    study: Callable[[str], Path],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPC_HPO_STORE", str(tmp_path / "shared"))
    server.add("/data.csv", b"1,2")
    file = study(f"inputs: [{{name: data, source: '{server.url}/data.csv'}}]\n")
    assert hpc_hpo("prestage", file).exit_code == 0
    digest = hashlib.sha256(b"1,2").hexdigest()
    assert (tmp_path / "shared" / "sha256" / digest[:2] / digest).is_file()


def test_that_a_wrong_checksum_ends_prestage_with_the_name(
    hpc_hpo: Command, study: Callable[[str], Path], server: Server
) -> None:
    server.add("/data.csv", b"1,2")
    file = study(
        f"inputs: [{{name: data, source: '{server.url}/data.csv', sha256: '{'0' * 64}'}}]\n"
    )
    done = hpc_hpo("prestage", file)
    assert done.exit_code == 2 and "input data: " in done.output and "0" * 64 in done.output


def test_that_the_missing_input_of_a_segment_leaves_work_and_is_named(
    hpc_hpo: Command, study: Callable[[str], Path], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text("h")
    file = study(
        "segments: [{name: one}, {name: two}]\n"
        "inputs:\n- {name: data, segment: one, source: here}\n"
        f"- {{name: data, segment: two, source: '{server.url}/gone'}}\n"
    )
    done = hpc_hpo("prestage", file)
    assert done.exit_code == 3, done.output
    assert "segment two: input data: the server answers 404" in done.output
    assert "1 segments lack an input" in done.output and "1 inputs staged" in done.output


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gopher://host/file", "no protocol 'gopher'"),
        ("http:///file", "names no host"),
        ("nowhere.csv", "no such file"),
    ],
)
def test_that_check_names_a_source_that_cannot_be_opened_without_asking_for_it(
    hpc_hpo: Command, study: Callable[[str], Path], source: str, words: str
) -> None:
    done = hpc_hpo("check", study(f"inputs: [{{name: data, source: '{source}'}}]\n"))
    assert done.exit_code == 2 and "inputs[0].source" in done.output and words in done.output
