"""The documentation's promises that a machine can check: links, studies, code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hpc_hpo.errors import ExitCode, HpoError
from hpc_hpo.study.load import load_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]+\]\((?!\w+:)([^)#]+)[^)]*\)")


def fenced(page: Path, language: str) -> list[str]:
    """The page's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_that_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_that_the_studies_shown_first_are_valid(name: str, tmp_path: Path) -> None:
    studies = fenced(ROOT / name, "yaml")
    assert studies
    for text in studies:
        file = tmp_path / "study.yaml"
        file.write_text(text)
        assert load_study(file).name == "mystudy"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_that_python_code_on_a_page_compiles(page: Path) -> None:
    for text in fenced(page, "python"):
        ast.parse(text)


class QuickTrial:
    """A trial without storage that is asked to stop at one step."""

    def __init__(self, state: dict[str, float] | None, stop_at: int | None) -> None:
        self.state, self.stop_at, self.step = state, stop_at, 0

    def restore(self) -> dict[str, float] | None:
        return self.state

    def report(self, step: int, **metrics: float) -> None:
        self.step = step

    def should_stop(self) -> bool:
        return self.step == self.stop_at

    should_checkpoint = should_stop

    def checkpoint(self, state: dict[str, float]) -> None:
        self.state = state


@pytest.mark.parametrize("stop_at", [1, 120, 199, 200])
def test_that_the_quickstart_s_objective_resumes_exactly(stop_at: int) -> None:
    space: dict[str, object] = {}
    exec(fenced(ROOT / "docs/quickstart.md", "python")[0], space)
    train = space["train"]
    assert callable(train)
    whole = train({"lr": 0.01}, QuickTrial(None, None))
    first = QuickTrial(None, stop_at)
    result = train({"lr": 0.01}, first)
    if stop_at < 200:
        assert result is None
        result = train({"lr": 0.01}, QuickTrial(first.state, None))
    assert result == whole


def all_errors(root: type[HpoError]) -> list[type[HpoError]]:
    """The error tree as a list."""
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]


def test_that_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    codes = {value for name, value in vars(ExitCode).items() if name.isupper()}
    codes |= {error.exit_code for error in all_errors(HpoError)}
    assert codes <= {int(row) for row in rows}
