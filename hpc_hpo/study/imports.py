"""Modules that an objective imports and the workers will not find: told before the first block.

A missing framework fails every trial within its first second, and a whole budget is gone. Nothing
is imported here. Only what is certain counts: imports that a module always makes when it is
imported itself, in modules that do nothing about where modules are looked for.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from hpc_hpo.errors import InputError
from hpc_hpo.site import Site
from hpc_hpo.study.load import Study

#: A module that holds one of these words may find modules where this does not look.
_MAY_FIND_MORE = ("sys.path", "addsitedir", "importlib", "meta_path", "pkgutil", "__import__")


def missing_imports(study: Study, site: Site, file: Path) -> Iterator[InputError]:
    """An error for each missing module; none where workers have an environment of another making.

    Args:
        file: the objective's. Followed are the study's own modules, too: those in its folder or
            beside the objective.
    """
    if "PYTHONPATH" in study.env or site.python is not None or site.modules or site.worker_init:
        return
    if any(item.kind == "environment" for item in study.all_inputs()):
        return
    _, folders = study.python_target()
    todo, seen = [file], {file}
    told: set[str] = set()
    while todo:
        file = todo.pop(0)
        for line, name in _imports(file):
            own = _own_file(name, folders)
            if own is not None and own not in seen:
                seen.add(own)
                todo.append(own)
            elif own is None and name not in told and not _is_there(name, folders):
                told.add(name)
                yield InputError(
                    "imports a module that the workers will not find",
                    file=str(file),
                    line=line,
                    found=name,
                    valid=f"a module in {study.folder}, or one installed for {sys.executable}",
                )


def _own_file(name: str, folders: list[str]) -> Path | None:
    spec = PathFinder.find_spec(name, folders)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _is_there(name: str, folders: list[str]) -> bool:
    if name in sys.stdlib_module_names or PathFinder.find_spec(name, folders) is not None:
        return True
    # All finders, because editable installs are found by finders of their own.
    return any(finder.find_spec(name, None) is not None for finder in sys.meta_path)


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, first part of the name) of what a module imports whatever happens.

    Not what stands under if, try or with, or in a function; nor is it a mistake of imports when
    the file is not Python at all.
    """
    try:
        source = file.read_text()
        tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError):
        return
    if any(word in source for word in _MAY_FIND_MORE):
        return
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from ((statement.lineno, a.name.partition(".")[0]) for a in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            yield statement.lineno, statement.module.partition(".")[0]
