"""The sections `evaluation` and `container` of study.yaml: a payload's files, and its image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Model, refuse
from hpc_hpo.study.sections import InnerPath, placeholders

RUNTIMES = ("apptainer", "singularity", "podman-hpc", "podman", "shifter")
#: Those whose image is a file or a folder of the file system.
OF_FILES = ("apptainer", "singularity")
_REGISTRY = re.compile(r"[a-z]+://")
#: A sandbox larger than this is data, which belongs into `inputs`.
MOST_SANDBOX = 100 * 1024**2


class Evaluation(Model):
    """The names of the files by which an evaluation payload speaks."""

    input: InnerPath = Field("input.json", description="gets the point")
    data: InnerPath = Field("input_ds.json", description="gets the list of the inputs' paths")
    output: InnerPath = Field("output.json", description="holds status, loss and message")
    meta: InnerPath | None = Field(None, description="a JSON object that the payload may leave")
    metrics: InnerPath | None = Field(None, description="an archive that the payload may leave")
    load: InnerPath | None = Field(
        None, description="the checkpoint's name when it is given back packed, as in cp.tgz"
    )
    sandbox: tuple[InnerPath, ...] = Field(
        (), description="globs of files beside the study that are copied to the working folder"
    )

    @field_validator("sandbox", mode="before")
    @classmethod
    def _list_of_globs(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def names(self) -> list[str]:
        """Of the files that belong to one run of the payload alone."""
        found = (self.input, self.data, self.output, self.meta, self.metrics, self.load)
        return [name for name in found if name is not None]


def _bind(value: str) -> str:
    parts = value.split(":")
    good = 1 <= len(parts) <= 3 and all(p.startswith("/") for p in parts[:2])
    if not good or (len(parts) == 3 and parts[2] not in ("ro", "rw")) or "," in value:
        raise refuse("not a bind", "/outside, /outside:/inside, or /outside:/inside:ro")
    return value


class Container(Model):
    """The image that a command runs in, and how."""

    image: str = Field(min_length=1, description="a file such as train.sif, or a pulled image")
    runtime: Literal["apptainer", "singularity", "podman-hpc", "podman", "shifter"] = Field(
        "apptainer", description="the program that runs it"
    )
    binds: tuple[Annotated[str, AfterValidator(_bind)], ...] = Field(
        (), description="further folders, as in /cvmfs:/cvmfs:ro"
    )
    network: bool = Field(False, description="whether the payload has a network")
    options: tuple[str, ...] = Field((), description="further options of the runtime")

    @field_validator("binds", "options", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("image")
    @classmethod
    def _plain_or_input(cls, value: str) -> str:
        try:
            names = placeholders(value)
        except ValueError as error:
            raise refuse(f"bad placeholder: {error}", '"{inputs.NAME}"') from None
        if names and (len(names) > 1 or not names[0].startswith("inputs.")):
            raise refuse("only an input can stand here", '"{inputs.NAME}"')
        return value

    @property
    def input(self) -> str | None:
        """The name of the input that is the image."""
        names = placeholders(self.image)
        return names[0].removeprefix("inputs.") if names else None


def check_container(
    container: Container, folder: Path, problem: Any, inputs: list[str]
) -> Iterator[InputError]:
    """What is wrong with an image before any job runs.

    Args:
        folder: where its relative path begins.
        problem: makes the error of a key.
        inputs: the names of the study's inputs.
    """
    if container.input is not None:
        if container.input not in inputs:
            yield problem(
                "container.image", "no such input", found=container.input, valid=inputs or "none"
            )
        return
    if container.runtime not in OF_FILES:
        return  # images of these live in a store of their own
    if _REGISTRY.match(container.image):
        name = container.image.rstrip("/").rpartition("/")[2].partition(":")[0]
        yield problem(
            "container.image",
            "compute nodes cannot pull an image",
            found=container.image,
            valid=f"a file; first: {container.runtime} pull {name}.sif {container.image}; "
            "or an input of kind container",
        )
    elif not (folder / container.image).exists():
        yield problem(
            "container.image", "there is no such file", found=str(folder / container.image)
        )


def sandbox_files(folder: Path, evaluation: Evaluation) -> list[tuple[str, str]]:
    """(absolute path, path in the working folder) of each file of the sandbox.

    Study folders and what belongs to one run of the payload are left out.

    Raises:
        InputError: together they are larger than MOST_SANDBOX.
    """
    own, found, size = set(evaluation.names()), dict[str, str](), 0
    for pattern in evaluation.sandbox:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if name in own or name in found or not path.is_file() or _in_study(path, folder):
                continue
            found[name] = str(path)
            size += path.stat().st_size
            if size > MOST_SANDBOX:
                raise InputError(
                    f"the files are larger than {MOST_SANDBOX // 1024**2} MiB together",
                    key="evaluation.sandbox",
                    found=list(evaluation.sandbox),
                    valid="programs and small files; data goes into inputs",
                )
    return [(path, name) for name, path in found.items()]


def _in_study(path: Path, folder: Path) -> bool:
    """Whether the file is part of a study folder or of a hidden one."""
    for place in path.parents:
        if place == folder:
            return False
        if place.name.startswith(".") or (place / "journal.jsonl").exists():
            return True
        if (place / "manifest.json").exists() and (place / "origin.json").exists():
            return True
    return False
