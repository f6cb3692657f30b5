"""Look at what a study runs, without running any of it.

Importing the objective would start its frameworks on a login node, so its source is parsed.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from hpc_hpo.errors import InputError
from hpc_hpo.model import ContainerSpec, EvaluationFiles, NetworkSpec, TaskSpec
from hpc_hpo.schema import one_of
from hpc_hpo.site import Site
from hpc_hpo.study.evaluation import check_container, sandbox_files
from hpc_hpo.study.imports import missing_imports
from hpc_hpo.study.load import Study

_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def check_payload(study: Study, site: Site | None = None) -> list[InputError]:
    """What keeps the study's objective or command from being started; empty when nothing does.

    A Python objective's file exists, parses, and defines the function such that it can be
    called with (config) or (config, trial); with a site, what it imports is there, too. A
    command's program is an executable file of the study's folder or a program on PATH.
    """
    return list(_check_program(study) if study.command else _check_objective(study, site))


def network_of(study: Study, reachable: bool) -> NetworkSpec:
    """What trials may do on the network: as the study says, else as the site's nodes can.

    Args:
        reachable: whether they reach the outside.
    """
    named = study.network
    word = named if isinstance(named, str) else "deny" if named or not reachable else ""
    hosts = [] if named is None or isinstance(named, str) else list(named)
    return NetworkSpec(switches=word != "allow", deny=word == "deny", open=hosts)


def payload_fields(study: Study, vendor: str) -> TaskSpec:
    """What workers need to know of an evaluation's files and of a command's container.

    Args:
        vendor: whose GPUs the site has.

    Raises:
        InputError: the sandbox is too large.
    """
    fields = TaskSpec()
    if study.kind == "evaluation":
        try:
            sandbox = sandbox_files(study.folder, study.evaluation)
        except InputError as error:
            raise study.problem(
                error.key or "evaluation.sandbox", error.problem, found=study.evaluation.sandbox
            ) from None
        names = study.evaluation
        fields["loss"] = {"file": names.output, "key": "loss"}
        fields["evaluation"] = EvaluationFiles(
            input=names.input, data=names.data, output=names.output, meta=names.meta,
            metrics=names.metrics, load=names.load, sandbox=[list(pair) for pair in sandbox],
        )  # fmt: skip
    if study.container is not None:
        box = study.container
        fields["container"] = ContainerSpec(
            image=box.image, runtime=box.runtime, binds=list(box.binds), network=box.network,
            options=list(box.options), gpus=vendor if study.trial.gpus_per_rank else "",
        )  # fmt: skip
    return fields


def _check_program(study: Study) -> Iterator[InputError]:
    if study.container is not None:
        # The program is the image's own business.
        inputs = [spec.name for spec in study.inputs]
        yield from check_container(study.container, study.folder, study.problem, inputs)
        return
    program = (study.command or ("",))[0]
    if "{" in program:
        return  # a parameter chooses it
    path = study.folder / program
    if path.is_file():
        if shutil.which(str(path)) is None:
            yield study.problem(
                "command[0]",
                "the file is not executable",
                found=str(path),
                valid=f"chmod +x {path}, or its interpreter in front of it",
            )
    elif "/" in program:
        yield study.problem("command[0]", "there is no such file", found=str(path))
    elif shutil.which(program) is None:
        yield study.problem(
            "command[0]",
            "no such program",
            found=program,
            valid=f"a program on PATH, or an executable file in {study.folder}",
        )


def _check_objective(study: Study, site: Site | None) -> Iterator[InputError]:
    module, _, function = (study.objective or "").partition(":")
    if module.endswith(".py"):
        file: Path | None = study.folder / module
        if not (study.folder / module).is_file():
            yield study.problem("objective", "there is no such file", found=str(file))
            return
    else:
        missing, file = _find_module(module, study.folder)
        if missing is not None:
            yield study.problem(
                "objective",
                f"there is no module {missing}",
                found=study.objective,
                valid=f"a module in {study.folder} or one that is installed",
            )
            return
    if file is None or file.suffix != ".py":
        return  # compiled or frozen: only an import could tell
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        yield InputError(f"not valid Python: {error.msg}", file=str(file), line=error.lineno)
    except (OSError, ValueError) as error:
        yield InputError(f"cannot be read: {error}", file=str(file))
    else:
        yield from _check_function(study, tree, file, function)
        if site is not None:
            yield from missing_imports(study, site, file)


def _find_module(module: str, folder: Path) -> tuple[str | None, Path | None]:
    """(first part of a dotted name that is missing, source file), importing no package."""
    parts = module.split(".")
    spec = PathFinder.find_spec(parts[0], [str(folder)]) or _find_top(parts[0])
    for n in range(1, len(parts)):
        if spec is None:
            return ".".join(parts[:n]), None
        inside = list(spec.submodule_search_locations or ())
        spec = PathFinder.find_spec(".".join(parts[: n + 1]), inside)
    if spec is None:
        return module, None
    return None, Path(spec.origin) if spec.origin and spec.has_location else None


def _find_top(name: str) -> ModuleSpec | None:
    # All finders, because editable installs are found by finders of their own.
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec
    return None


def _top_level(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's own statements, also those under if, try and with."""
    for statement in statements:
        yield statement
        if isinstance(statement, _OWN_SCOPE):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _top_level(handler.body)


def _bound_otherwise(statement: ast.stmt, name: str) -> bool:
    """True when the statement may give `name` a value that only running it would tell."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        names = [a.asname or a.name.partition(".")[0] for a in statement.names]
        return name in names or "*" in names
    if isinstance(statement, ast.ClassDef):
        return statement.name == name
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = ast.walk(statement)
        return any(
            isinstance(t, ast.Name) and t.id == name and isinstance(t.ctx, ast.Store)
            for t in targets
        )
    return False


def _check_function(study: Study, tree: ast.Module, file: Path, name: str) -> Iterator[InputError]:
    statements = list(_top_level(tree.body))
    functions = {s.name: s for s in statements if isinstance(s, _Function)}
    found = functions.get(name)
    if found is None:
        if not any(_bound_otherwise(s, name) for s in statements):
            yield study.problem(
                "objective",
                f"{file} defines no such function",
                found=name,
                valid=one_of(name, list(functions)),
            )
        return
    if found.decorator_list:
        return  # a decorator may give it any signature
    if problem := _uncallable(found):
        yield InputError(
            f"the objective {name} {problem}",
            file=str(file),
            line=found.lineno,
            valid=f"def {name}(config, trial): ... return loss",
        )


def _uncallable(function: _Function) -> str | None:
    """Why a call with (config, trial) or (config) must fail; None when it can work."""
    if isinstance(function, ast.AsyncFunctionDef):
        return "is a coroutine"
    takes = function.args
    positional = len(takes.posonlyargs) + len(takes.args)
    if positional == 0 and takes.vararg is None:
        return "takes no positional argument"
    if positional - len(takes.defaults) > 2:
        return "needs more than two arguments"
    if any(default is None for default in takes.kw_defaults):
        return "needs a keyword argument"
    return None
