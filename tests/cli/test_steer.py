"""The command as iDDS calls it: files, exit codes, and what a call costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

SPACE = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
Command = Callable[..., Result]


def call(hpc_hpo: Command, folder: Path, text: str, *more: object) -> Result:
    """One call on an input file with this text, beside an output of an earlier call."""
    (folder / "idds_input.json").write_text(text)
    (folder / "idds_output.json").write_text("as it was")
    return hpc_hpo(
        *("steer", "--in", folder / "idds_input.json", "--out", folder / "idds_output.json"),
        *("--num-points", 3, "--max-points", 10, *more),
    )


def test_that_new_points_are_written(hpc_hpo: Command, tmp_path: Path) -> None:
    text = json.dumps({"points": [[{"x": 0.5}, 0.0]], "opt_space": SPACE})
    done = call(hpc_hpo, tmp_path, text)
    assert done.exit_code == 0, done.output
    points = json.loads((tmp_path / "idds_output.json").read_text())
    assert len(points) == 3
    assert all(p.keys() == {"x"} for p in points)
    assert {p.name for p in tmp_path.iterdir()} == {"idds_input.json", "idds_output.json"}


@pytest.mark.parametrize("optimizer", ["sobol", '{"name": "tpe", "n_initial": 2}'])
def test_that_the_optimizer_can_be_named(hpc_hpo: Command, tmp_path: Path, optimizer: str) -> None:
    text = json.dumps({"points": [], "opt_space": SPACE})
    assert call(hpc_hpo, tmp_path, text, "--optimizer", optimizer).exit_code == 0
    points = json.loads((tmp_path / "idds_output.json").read_text())
    assert len(points) == 3


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", [], "the file is empty"),
        ('{"points": [[{"x": 0.5}, 0.', [], "half written?"),
        ('{"points": [], "opt_space": {}, "more": 1}', [], "more: unknown key"),
        (json.dumps({"points": [], "opt_space": SPACE}), ["--optimizer", "tp"], "--optimizer"),
        (json.dumps({"points": [], "opt_space": SPACE}), ["--optimizer", "{tp"], "not valid JSON"),
        (
            json.dumps({"points": [], "opt_space": SPACE}),
            ["--optimizer", '{"name": "tpe", "n_inital": 3}'],
            "--optimizer.n_inital: unknown key",
        ),
    ],
)
def test_that_a_mistake_is_told_and_the_output_stays(
    hpc_hpo: Command, tmp_path: Path, text: str, options: list[str], message: str
) -> None:
    done = call(hpc_hpo, tmp_path, text, *options)
    assert done.exit_code == 2
    assert message in done.output
    assert (tmp_path / "idds_output.json").read_text() == "as it was"
    assert {p.name for p in tmp_path.iterdir()} == {"idds_input.json", "idds_output.json"}


def test_that_a_missing_input_is_told(hpc_hpo: Command, tmp_path: Path) -> None:
    done = hpc_hpo(
        *("steer", "--in", tmp_path / "none.json", "--out", tmp_path / "o.json"),
        *("--num-points", 1, "--max-points", 1),
    )
    assert done.exit_code == 2
    assert "none.json: --in: cannot be read: No such file" in done.output
    assert not (tmp_path / "o.json").exists()


def test_that_a_call_imports_no_library_that_takes_long(tmp_path: Path) -> None:
    """An answer within a second of Python's start has no time for them."""
    points = [[{"x": i / 50}, i % 7 + 0.5] for i in range(50)]
    (tmp_path / "i.json").write_text(json.dumps({"points": points, "opt_space": SPACE}))
    slow = ("skopt", "sklearn", "scipy", "pydantic", "yaml", "rich", "parsl", "h5py", "psutil")
    code = (
        "import sys; from hpc_hpo.cli.main import main\n"
        "sys.argv = ['hpc-hpo', 'steer', '--in', 'i.json', '--out', 'o.json',"
        " '--num-points', '2', '--max-points', '99']\n"
        f"code = main(); print(code, [m for m in {slow} if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(root)}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "0 []"
    assert len(json.loads((tmp_path / "o.json").read_text())) == 2
