"""The documentation's promises that a machine can check: links, studies, code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hpc_hpo.errors import ExitCode, HpoError
from hpc_hpo.model import Shape
from hpc_hpo.pilot.placement import NodeShape, Placer
from hpc_hpo.site import list_sites, load_site
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


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of a page's table whose header's first cell is `first`."""
    found: list[list[str]] = []
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and (found or cells[0] == first):
            found.append(cells)
        elif found:
            break
    return found[2:]


def test_that_the_table_of_sites_is_what_their_files_say() -> None:
    told = {row[0].strip("`"): row[1:] for row in rows("docs/mpi-gpu.md", "site")}
    for name in list_sites():
        if name not in told:
            continue
        node = load_site(name).node
        if name == "local":
            continue
        domains = node.gpu_domains or [gpu * node.domains // node.gpus for gpu in range(node.gpus)]
        vendor = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}[node.gpu_vendor]
        assert told[name][:5] == [
            str(node.cores), str(node.smt), f"{node.gpus} {vendor}", str(node.domains),
            " ".join(map(str, domains)),
        ]  # fmt: skip
    assert set(list_sites()) <= told.keys() | {"slurm", "lsf"}


def test_that_summit_s_table_is_what_the_placer_does_with_six_trials_of_one_rank() -> None:
    node = load_site("summit").node
    placer = Placer(NodeShape(node.cores, node.gpus, node.domains), lambda: 0.0)
    placer.add_node("0", "n")
    placed = placer.schedule([(n, Shape(1, 1, 7, 1.0), 1.0) for n in range(6)])
    table = rows("docs/mpi-gpu.md", "resource set")
    assert len(table) == len(placed)
    for row, (number, placement) in zip(table, placed, strict=True):
        ((_, cores, gpus),) = placement.nodes
        first, last = cores[0], cores[-1]
        assert cores == tuple(range(first, last + 1))
        assert row == [
            str(number), str(first * node.domains // node.cores), f"{first}-{last}",
            f"{first * node.smt}-{(last + 1) * node.smt - 1}", str(gpus[0]),
        ]  # fmt: skip


def all_errors(root: type[HpoError]) -> list[type[HpoError]]:
    """The error tree as a list."""
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]


def test_that_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    codes = {value for name, value in vars(ExitCode).items() if name.isupper()}
    codes |= {error.exit_code for error in all_errors(HpoError)}
    assert codes <= {int(row) for row in rows}
