"""What a study runs is looked at without being run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.study import check_payload, load_study, network_of, parse_study
from hpc_hpo.yamlio import load_yaml

REST = "name: s\nspace: {lr: {float: [0.1, 1.0]}}\nbudget: {trials: 4}\n"


def problems(folder: Path, line: str) -> list[InputError]:
    doc = load_yaml(REST + line, "study.yaml")
    return check_payload(parse_study(doc, path=folder / "study.yaml"))


def of_source(folder: Path, source: str) -> list[InputError]:
    (folder / "o.py").write_text(source)
    return problems(folder, "objective: o.py:train")


@pytest.mark.parametrize(
    "source",
    [
        "def train(config, trial): return 1",
        "def train(config): return 1",
        "def train(config, trial, extra=3, *, more=4): return 1",
        "def train(*args): return 1",
        "try:\n    import x\nexcept ImportError:\n    def train(c, t): return 1",
        "if True:\n    def train(c, t): return 1\nelse:\n    pass",
        "from elsewhere import train",
        "from elsewhere import *",
        "train = lambda c, t: 1",
        "class train:\n    def __new__(cls, c, t): return 1",
        "@wrap\ndef train(): return 1",
    ],
)
def test_that_a_callable_objective_passes(tmp_path: Path, source: str) -> None:
    assert of_source(tmp_path, source) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def trian(c, t): return 1", "did you mean 'trian'"),
        ("x = 1", "defines no such function"),
        ("class A:\n    def train(self, c): return 1", "defines no such function"),
        ("def f():\n    def train(c, t): return 1", "defines no such function"),
        ("def train(): return 1", "no positional argument"),
        ("def train(a, b, c): return 1", "more than two"),
        ("def train(a, *, b): return 1", "keyword argument"),
        ("async def train(a, b): return 1", "coroutine"),
        ("def train(a b): return 1", "not valid Python"),
    ],
)
def test_that_an_objective_that_cannot_be_called_is_told(
    tmp_path: Path, source: str, words: str
) -> None:
    (error,) = of_source(tmp_path, source)
    assert words in str(error)
    assert error.line is not None


def test_that_the_objective_is_not_imported(tmp_path: Path) -> None:
    assert of_source(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\ndef train(c): pass") == []
    assert not (tmp_path / "ran").exists()


def test_that_a_missing_objective_file_is_told_with_its_path(tmp_path: Path) -> None:
    (error,) = problems(tmp_path, "objective: code/o.py:train")
    assert (error.key, error.line) == ("objective", 4)
    assert str(tmp_path / "code" / "o.py") in str(error)


def test_that_a_module_is_found_without_importing_its_packages(tmp_path: Path) -> None:
    package = tmp_path / "a_package_of_this_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "mod.py").write_text("def train(c, t): return 1")
    name = package.name
    assert problems(tmp_path, f"objective: {name}.mod:train") == []
    (error,) = problems(tmp_path, f"objective: {name}.mod:other")
    assert "no such function" in str(error)
    (error,) = problems(tmp_path, f"objective: {name}.none:train")
    assert f"no module {name}.none" in str(error)
    assert name not in sys.modules


def test_that_an_installed_module_is_found_and_a_missing_one_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "objective: json.decoder:py_scanstring") == []
    assert problems(tmp_path, "objective: math:sin") == []
    (error,) = problems(tmp_path, "objective: no_such_package_here.mod:f")
    assert "no module no_such_package_here;" in str(error)


def test_that_a_program_is_looked_for_on_path_or_in_the_folder(tmp_path: Path) -> None:
    assert problems(tmp_path, "command: [sh, -c, 'exit']") == []
    (error,) = problems(tmp_path, "command: [no-such-program-here]")
    assert (error.key, error.line) == ("command[0]", 4)
    assert "PATH" in str(error)
    (error,) = problems(tmp_path, "command: [./run.sh]")
    assert str(tmp_path / "run.sh") in str(error)
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (error,) = problems(tmp_path, "command: [./run.sh]")
    assert "not executable" in str(error)
    (tmp_path / "run.sh").chmod(0o755)
    assert problems(tmp_path, "command: [./run.sh]") == []
    assert problems(tmp_path, "command: [run.sh]") == []
    assert problems(tmp_path, 'command: ["./{lr}.sh"]') == []


@pytest.mark.parametrize(
    ("network", "reachable", "expected"),
    [
        ("", True, (True, False, [])),
        ("", False, (True, True, [])),
        ("network: allow", False, (False, False, [])),
        ("network: deny", True, (True, True, [])),
        ("network: [db]", True, (True, True, ["db"])),
    ],
)
def test_that_the_study_says_what_the_network_is_else_the_site(
    network: str, reachable: bool, expected: tuple[bool, bool, list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: s\nobjective: o.py:f\nspace: {x: {float: [0.0, 1.0]}}\nbudget: {trials: 1}\n"
        f"{network}\n"
    )
    spec = network_of(load_study(file), reachable)
    assert (spec["switches"], spec["deny"], spec["open"]) == expected
