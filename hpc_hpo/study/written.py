"""study.yaml as its author wrote it: what the parsed values no longer tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.schema import one_of, refuse
from hpc_hpo.yamlio import Document

OBJECTIVE_FORMS = "file.py:function or package.module:function"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_OBJECTIVE = re.compile(r"(?P<module>[^:]+):(?P<function>[^\W\d]\w*)\Z")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
#: What an objective that is a mapping may hold: it stands for these keys of the study.
_NESTED = ("command", "contract", "loss", "evaluation", "container")


def safe_name(value: str) -> str:
    """A study's name, as a validator."""
    if not _NAME.match(value):
        raise refuse(
            "the name becomes a folder's",
            "up to 64 letters, digits, . _ -, beginning with a letter or digit",
        )
    return value


def objective_form(value: str) -> str:
    """The key `objective`, as a validator."""
    match = _OBJECTIVE.match(value)
    if match is None:
        raise refuse("this names no function", OBJECTIVE_FORMS)
    module = PurePosixPath(match["module"])
    # A file is imported by its stem, in which a dot would mean a package.
    good = "." not in module.stem if module.suffix == ".py" else _MODULE.match(str(module))
    if not good:
        raise refuse("this names no Python file or module", OBJECTIVE_FORMS)
    return value


def unnest_objective(doc: Document) -> Document:
    """``objective: {command: ..., contract: ...}`` as the keys of the study that it stands for.

    Raises:
        InputError: it holds another key, or one that stands beside it, too.
    """
    nested = doc.data.get("objective") if isinstance(doc.data, dict) else None
    if not isinstance(nested, dict):
        return doc
    for key in nested:
        if key not in _NESTED:
            raise doc.problem(f"objective.{key}", "unknown key", valid=one_of(key, _NESTED))
        if key in doc.data:
            raise doc.problem(f"objective.{key}", f"{key} stands beside objective, too")
    rest = {key: value for key, value in doc.data.items() if key != "objective"}

    def moved(places: dict[str, Any]) -> dict[str, Any]:
        return {key.removeprefix("objective."): value for key, value in places.items()}

    return replace(doc, data={**rest, **nested}, lines=moved(doc.lines), scalars=moved(doc.scalars))


def as_written(data: dict[str, Any], doc: Document) -> dict[str, Any]:
    """Arguments and environment values as the source spells them.

    Both are text for a program: ``--lr 0.10`` must not become 0.1, nor ``DEBUG: true`` True.
    """
    result = dict(data)
    command, env = data.get("command"), data.get("env")
    if isinstance(command, list):
        result["command"] = [doc.scalars.get(f"command[{i}]", a) for i, a in enumerate(command)]
    if isinstance(env, dict):
        result["env"] = {k: doc.scalars.get(f"env.{k}", v) for k, v in env.items()}
    return result


def check_payload_keys(data: Mapping[str, Any], doc: Document) -> Iterator[InputError]:
    """Exactly one of objective and command, and only the keys that go with it."""
    python, command = data.get("objective") is not None, data.get("command") is not None
    if python == command:
        problem = "give one of objective and command, not both" if python else "nothing to run"
        yield doc.problem(
            "command" if python else "objective",
            problem,
            valid=f"objective: {OBJECTIVE_FORMS}; or command: a list of arguments",
        )
    if python and not command:
        checkpoint = data.get("checkpoint")
        files = isinstance(checkpoint, dict) and checkpoint.get("files")
        extra = {key: data.get(key) for key in ("loss", "contract", "container")}
        for key, value in {**extra, "checkpoint.files": files}.items():
            if value:
                yield doc.problem(key, "this goes with command, not with objective")
    if data.get("evaluation") and not data.get("contract"):
        yield doc.problem("evaluation", "this goes with contract: evaluation")
    loss = data.get("loss")
    if command and loss and data.get("contract"):
        yield doc.problem("loss", "the evaluation contract says where the loss is: output.json")
    if isinstance(loss, dict) and "stdout" in loss and len(loss) > 1:
        yield doc.problem("loss", "give file and key, or stdout, not both")
