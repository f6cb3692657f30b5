"""A slice's command in a container: what the payload needs to see there, and how it is run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from hpc_hpo.worker.containers import Mount, Wish, compose
from hpc_hpo.worker.job import SliceJob


def in_container(
    job: SliceJob, argv: list[str], environment: Mapping[str, str], workdir: Path
) -> tuple[list[str], dict[str, str]]:
    """(what to run, its environment): the command itself where the task has no container.

    Raises:
        ValueError: the runtime cannot do what the task asks for.
    """
    spec = job.task.get("container")
    if spec is None:
        return argv, dict(environment)
    inputs = job.task.get("inputs", {})
    folders = [*job.task.get("path", []), *inputs.values()]
    binds = [Mount.parse(text) for text in spec.get("binds", [])]
    wish = Wish(
        image=_image(spec["image"], inputs, job.task.get("path", [])),
        argv=argv,
        workdir=str(workdir),
        mounts=[*needed_mounts(folders), *binds],
        variables=own_variables(environment, job.task.get("env", {})),
        gpus=spec.get("gpus", ""),
        network=spec.get("network", False),
        ranks=job.shape.ranks > 1,
        options=spec.get("options", []),
    )
    line, variables = compose(spec["runtime"], wish)
    return line, {**environment, **variables}


def _image(image: str, inputs: Mapping[str, str], folders: Iterable[str]) -> str:
    """The path of an image that is an input or lies beside the study; others as they are."""
    if image.startswith("{inputs.") and image.endswith("}"):
        path = Path(inputs[image[len("{inputs.") : -1]])
        found = list(path.glob("*.sif")) if path.is_dir() else []
        return str(found[0] if len(found) == 1 else path)
    return next((str(Path(f, image)) for f in folders if Path(f, image).exists()), image)


def own_variables(environment: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The variables that belong to the slice, and not to the node that it runs on."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("HPC_HPO_") or name in given or os.environ.get(name) != value
    }


def needed_mounts(paths: Iterable[str]) -> list[Mount]:
    """Read-only mounts under which the payload finds these files and folders by their paths.

    Staged inputs are often links; what they lead to is mounted, too, or they would be broken
    inside.
    """
    mounts: dict[str, Mount] = {}
    for path in paths:
        mounts[path] = Mount(os.path.realpath(path), path)
        if os.path.isdir(path):
            for place in _behind_links(path):
                mounts.setdefault(place, Mount(place, place))
    return list(mounts.values())


def _behind_links(folder: str) -> set[str]:
    """The folders that links below `folder` lead to."""
    found = set()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            if os.path.islink(path):
                real = os.path.realpath(path)
                found.add(real if os.path.isdir(real) else os.path.dirname(real))
    return found
