"""The front door: quick help, and errors that end with a message and a code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hpc_hpo.cli import main as front
from hpc_hpo.errors import HpoError, InputError, StudyHeld

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"yaml", "pydantic", "parsl", "numpy", "h5py", "skopt", "sklearn", "rich", "filelock"}


def hpc_hpo(*args: str, then: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; `then` is Python code run after it."""
    code = f"import sys\nfrom hpc_hpo.cli.main import main\ncode = main()\n{then}\nsys.exit(code)"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_that_help_imports_nothing_heavy() -> None:
    done = hpc_hpo("--help", then="print(*sys.modules, sep='\\n', file=sys.stderr)")
    assert done.returncode == 0
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert not HEAVY & loaded
    own = {name for name in loaded if name.startswith("hpc_hpo")}
    assert own == {
        "hpc_hpo",
        "hpc_hpo.cli",
        "hpc_hpo.cli.main",
        "hpc_hpo.errors",
        "hpc_hpo.version",
    }


def test_that_help_lists_every_command_with_its_line() -> None:
    text = CliRunner().invoke(front.cli, ["--help"]).output
    for name, (_, line) in front.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", front.COMMANDS)
def test_that_every_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(front.cli, [name, "-h"])
    assert done.exit_code == 0, done.output
    assert f"hpc-hpo {name}" in done.output or f" {name} " in done.output


@pytest.mark.parametrize(
    ("word", "hint"), [("stats", "did you mean 'status'?"), ("xyz", "valid: init, check")]
)
def test_that_an_unknown_command_is_answered_with_the_nearest(word: str, hint: str) -> None:
    done = CliRunner().invoke(front.cli, [word])
    assert done.exit_code == 2
    assert f"no command '{word}'" in done.stderr and hint in done.stderr


def with_command(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    """Put a command `probe` into the table that calls `function`."""

    def get(group: click.Group, ctx: click.Context, name: str) -> click.Command:
        return click.Command("probe", callback=function)  # type: ignore[arg-type]

    monkeypatch.setattr(front.LazyGroup, "get_command", get)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("too large", file="a.yaml", line=3, key="space.lr"), 2),
        (StudyHeld("held by process 7"), 4),
        (HpoError("something else"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_that_an_error_ends_with_its_message_and_its_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail() -> None:
        raise error

    with_command(monkeypatch, fail)
    done = CliRunner().invoke(front.cli, ["probe"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr == f"hpc-hpo: {error if str(error) else 'interrupted'}\n"


@pytest.mark.parametrize("code", [0, 3, 8])
def test_that_a_command_returns_its_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with_command(monkeypatch, lambda: code)
    assert CliRunner().invoke(front.cli, ["probe"]).exit_code == code


def test_that_a_fault_of_the_program_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("oops")

    with_command(monkeypatch, fail)
    monkeypatch.setattr(sys, "argv", ["hpc-hpo", "probe"])
    assert front.main() == 1
    text = capsys.readouterr().err
    assert "Traceback" in text and "ZeroDivisionError: oops" in text
    assert "a fault of the program, not of your input" in text


def test_that_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""


def test_that_the_version_is_told() -> None:
    from hpc_hpo import __version__

    assert __version__ in CliRunner().invoke(front.cli, ["--version"]).output
