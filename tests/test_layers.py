"""The rooms of docs/structure.md, enforced: imports point downwards, and files stay small."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hpc_hpo"
LONGEST = 400  # lines of a file

#: Each room with its layer. A module may import from its own room and from lower layers.
ROOMS: dict[int, list[set[str]]] = {
    0: [{"errors", "clock", "fsio", "version", "site_configs", "archives"}],
    1: [
        {
            "model",
            "search_log",
            "block_record",
            "segment_record",
            "ranks",
            "space",
            "yamlio",
            "units",
            "schema",
            "pareto",
        },
    ],
    2: [{"study", "site", "journal", "journal_file", "following", "folder"}],
    3: [{"optimizers"}, {"prestage"}, {"preflight"}, {"pilot"}, {"worker"}],
    4: [{"steering", "segments", "fidelity"}, {"tracking"}],
    5: [
        {"launch", "plan", "workload", "rehearsal", "steerer"},
        {"results"},
        {"contracts"},
        {"doctor"},
    ],
    6: [{"simulate"}],
    7: [{"cli"}],
}
PLACE = {
    name: (layer, number)
    for layer, rooms in ROOMS.items()
    for number, names in enumerate(rooms)
    for name in names
}
#: What a worker may import: compute nodes have little else, and a trial must start at once.
WORKER_OWN = {"errors", "clock", "fsio", "archives", "model", "ranks", "worker"}
# mpi4py is imported for trials of several ranks alone.
# psutil is there wherever a Parsl worker is: Parsl itself needs it.
WORKER_OTHERS = {"numpy", "h5py", "psutil", "mpi4py", "hpc_hpo"} | set(sys.stdlib_module_names)
#: Libraries that single rooms use; all others reach them through these.
WRAPPED = {
    "parsl": "pilot",
    "skopt": "optimizers",
    "sklearn": "optimizers results",
    "elftools": "preflight",
    "zstandard": "preflight",
    "click": "cli",
    "rich": "cli",
    "fsspec": "prestage",
    "aiohttp": "prestage",
    "plotly": "results",
    "mlflow": "results",
}


def name_of(path: Path) -> str:
    """hpc_hpo/pilot/parsl.py -> hpc_hpo.pilot.parsl"""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, those inside functions too.

    For ``from a import b`` the name is ``a.b``: b may be a module of its own.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def imports_in(module: str) -> list[tuple[int, str]]:
    """imports_of one of the package's files."""
    path = MODULES[module]
    return list(imports_of(path.read_text(), module, path.name == "__init__.py"))


def room_of(name: str) -> str | None:
    """The first name below hpc_hpo, or None for hpc_hpo itself and for what it offers."""
    parts = name.split(".")
    known = parts[0] == "hpc_hpo" and len(parts) > 1 and not parts[1].startswith("_")
    return parts[1] if known else None


def may_import(importer: str, imported: str) -> bool:
    """Whether the room `importer` may use the room `imported`."""
    (high, room), (low, other) = PLACE[importer], PLACE[imported]
    return low < high or (low, other) == (high, room)


def test_that_every_module_has_its_room() -> None:
    homeless = {room for name in MODULES if (room := room_of(name)) and room not in PLACE}
    assert not homeless, f"give {homeless} a layer in ROOMS and in docs/structure.md"


@pytest.mark.parametrize("module", MODULES)
def test_that_imports_point_downwards(module: str) -> None:
    importer = room_of(module)
    wrong = [
        f"{MODULES[module]}:{line}: imports {name}"
        for line, name in imports_in(module)
        if (imported := room_of(name))
        and not (may_import(importer, imported) if importer else PLACE[imported][0] == 0)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) == "worker"])
def test_that_a_worker_imports_nothing_but_what_a_compute_node_has(module: str) -> None:
    wrong = [
        f"{MODULES[module]}:{line}: imports {name}"
        for line, name in imports_in(module)
        if name.split(".")[0] not in WORKER_OTHERS or (room_of(name) or "errors") not in WORKER_OWN
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", MODULES)
def test_that_a_wrapped_library_is_imported_by_its_room_alone(module: str) -> None:
    wrong = [
        f"{MODULES[module]}:{line}: imports {name}; only {room} may"
        for line, name in imports_in(module)
        if (room := WRAPPED.get(name.split(".")[0])) and room_of(module) not in room.split()
    ]
    assert not wrong, "\n".join(wrong)


def module_graph() -> dict[str, set[str]]:
    """Each module with the package's modules that it imports."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        names = (name for _, name in imports_in(module))
        targets = (name if name in MODULES else name.rpartition(".")[0] for name in names)
        graph[module] = {name for name in targets if name in MODULES} - {module}
    return graph


def test_that_no_modules_import_one_another_in_a_circle() -> None:
    try:
        TopologicalSorter(module_graph()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_that_no_file_is_too_long_to_read() -> None:
    folders = ("hpc_hpo", "jobs", "benchmarks", "tests", "site_configs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert lengths
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import hpc_hpo.study as s", "hpc_hpo.x", "hpc_hpo.study"),
        ("def f():\n    from hpc_hpo import study", "hpc_hpo.x", "hpc_hpo.study"),
        ("from .study import Study", "hpc_hpo.x", "hpc_hpo.study.Study"),
        ("from ..study import Study", "hpc_hpo.pilot.x", "hpc_hpo.study.Study"),
        ("from . import study", "hpc_hpo.x", "hpc_hpo.study"),
    ],
)
def test_that_every_way_to_write_an_import_is_seen(source: str, module: str, expected: str) -> None:
    assert [name for _, name in imports_of(source, module, is_package=False)] == [expected]


def test_that_a_package_s_own_dot_means_itself() -> None:
    found = list(imports_of("from .state import save", "hpc_hpo.worker", is_package=True))
    assert found == [(1, "hpc_hpo.worker.state.save")]


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("steering", "pilot", True),
        ("pilot", "steering", False),
        ("pilot", "worker", False),
        ("worker", "model", True),
        ("study", "site", True),
        ("results", "contracts", False),
    ],
)
def test_that_the_rule_itself_tells_down_from_up(
    importer: str, imported: str, allowed: bool
) -> None:
    assert may_import(importer, imported) is allowed
