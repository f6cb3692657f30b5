"""Modules that an objective imports and the workers lack are told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.site import Site, load_site
from hpc_hpo.study import check_payload, parse_study
from hpc_hpo.yamlio import load_yaml

REST = "name: s\nspace: {lr: {float: [0.1, 1.0]}}\nbudget: {trials: 4}\n"
TRAIN = "\ndef train(config, trial):\n    return 1.0\n"


def problems(
    folder: Path, *, line: str = "objective: o.py:train", site: Site | None = None, **files: str
) -> list[InputError]:
    """What is said of a study with these modules, by their names."""
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source + TRAIN)
    doc = load_yaml(REST + line, "study.yaml")
    study = parse_study(doc, path=folder / "study.yaml")
    return check_payload(study, site or load_site("local"))


@pytest.mark.parametrize(
    "source",
    [
        "import json, os.path",
        "from __future__ import annotations\nimport numpy as np\nfrom h5py import File",
        "import hpc_hpo.model",
        "try:\n    import absent_here\nexcept ImportError:\n    absent_here = None",
        "if False:\n    import absent_here",
        "def later():\n    import absent_here",
        "import sys\nsys.path.insert(0, 'lib')\nimport absent_here",
        "import site\nsite.addsitedir('lib')\nimport absent_here",
    ],
)
def test_that_an_objective_whose_imports_may_all_be_met_passes(tmp_path: Path, source: str) -> None:
    assert problems(tmp_path, o=source) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import absent_here", 1),
        ("import json\nimport absent_here.part as part", 2),
        ("from absent_here.part import thing", 1),
        ("import json, absent_here", 1),
    ],
)
def test_that_a_missing_module_is_named_with_file_and_line(
    tmp_path: Path, source: str, line: int
) -> None:
    [problem] = problems(tmp_path, o=source)
    assert problem.file == str(tmp_path / "o.py") and problem.line == line
    assert "absent_here" in str(problem)


def test_that_the_studys_own_modules_are_followed_and_each_lack_is_told_once(
    tmp_path: Path,
) -> None:
    found = problems(
        tmp_path,
        o="import own\nimport absent_one",
        own="import json\nimport deeper\nimport absent_one",
        deeper="import own\nimport absent_two",
    )
    assert [(Path(p.file or "").name, p.line) for p in found] == [("o.py", 2), ("deeper.py", 2)]
    assert "found 'absent_one'" in str(found[0]) and "found 'absent_two'" in str(found[1])


def test_that_an_objective_in_a_module_of_the_study_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "o.py").write_text("import absent_here" + TRAIN)
    [problem] = problems(tmp_path, line="objective: package.o:train")
    assert problem.file == str(tmp_path / "package" / "o.py")


def test_that_a_command_and_a_python_path_of_the_study_are_left_alone(tmp_path: Path) -> None:
    source = "import absent_here"
    assert problems(tmp_path, line="command: [sh, o.py]", o=source) == []
    own_path = "objective: o.py:train\nenv: {PYTHONPATH: lib}"
    assert problems(tmp_path, line=own_path, o=source) == []


@pytest.mark.parametrize("line", ["modules: [pytorch]", "worker_init: . env", "python: /x/python"])
def test_that_nothing_is_claimed_of_workers_with_an_environment_of_their_own(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nextends: local\n{line}\n")
    assert problems(tmp_path, site=load_site(str(file)), o="import absent_here") == []
