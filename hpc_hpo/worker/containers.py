"""Container runtimes as argument lists: pure functions from what is wanted to what is run.

The image is read-only, the payload has no network unless it is asked for, and only the slice's
own variables come in. Flags by the runtimes' own manuals: apptainer 1.4 `exec` (also SingularityCE
4), podman-hpc 1.1 and podman 4 `run`, shifter 18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Prefix of the variables that Apptainer and SingularityCE pass on into a clean environment.
#: Their option --env would split values at commas, which lists of GPUs hold.
_PREFIX = {"apptainer": "APPTAINERENV_", "singularity": "SINGULARITYENV_"}
_GPU_FLAG = {"nvidia": "--nv", "amd": "--rocm"}


class Mount(NamedTuple):
    """A file or folder of the host, and where the payload finds it."""

    source: str
    target: str
    writable: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """From ``/outside[:/inside[:ro|rw]]``; writable unless it says ro."""
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        return cls(source, target or source, mode != "ro")


@dataclass(frozen=True)
class Wish:
    """What one payload needs of its container.

    Attributes:
        image: a path, or an image's name.
        argv: what runs inside.
        workdir: absolute; writable, and the current folder inside.
        mounts: further files and folders.
        variables: the environment inside, on top of the image's own.
        gpus: whose GPUs it uses: nvidia, amd, intel, or "" for none.
        network: whether it has the host's network.
        ranks: whether it is one of several ranks, which reach each other by the host's network,
            memory and variables.
        options: further options of the runtime.
    """

    image: str
    argv: Sequence[str]
    workdir: str
    mounts: Sequence[Mount] = ()
    variables: Mapping[str, str] | None = None
    gpus: str = ""
    network: bool = False
    ranks: bool = False
    options: Sequence[str] = ()


def compose(runtime: str, wish: Wish) -> tuple[list[str], dict[str, str]]:
    """(what to run, variables to set for it) for a payload in a container.

    Raises:
        ValueError: no such runtime, or it cannot do what is wished.
    """
    if runtime in _PREFIX:
        return _apptainer(runtime, wish)
    if runtime in ("podman-hpc", "podman"):
        return _podman(runtime, wish)
    if runtime == "shifter":
        return _shifter(wish)
    raise ValueError(f"no container runtime {runtime!r}")


def _all_mounts(wish: Wish) -> list[Mount]:
    """The working folder and the others, each target once; the last one counts."""
    by_target = {m.target: m for m in wish.mounts}
    by_target[wish.workdir] = Mount(wish.workdir, wish.workdir, True)
    # Outer folders first, so that a writable one inside a read-only one stays visible.
    return sorted(by_target.values(), key=lambda m: (m.target.count("/"), m.target))


def _volume(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + ("" if mount.writable else ":ro")


def _apptainer(runtime: str, wish: Wish) -> tuple[list[str], dict[str, str]]:
    argv = [runtime, "exec", "--no-home"]
    if not wish.ranks:
        argv.append("--cleanenv")
    if wish.gpus in _GPU_FLAG:
        argv.append(_GPU_FLAG[wish.gpus])
    if not (wish.network or wish.ranks):
        argv += ["--net", "--network", "none"]
    for mount in _all_mounts(wish):
        argv += ["--bind", _volume(mount)]
    argv += ["--pwd", wish.workdir, *wish.options, wish.image, *wish.argv]
    prefix = _PREFIX[runtime]
    return argv, {f"{prefix}{name}": value for name, value in (wish.variables or {}).items()}


def _podman(runtime: str, wish: Wish) -> tuple[list[str], dict[str, str]]:
    argv = [runtime, "run", "--rm", "--init", "--read-only", "--entrypoint="]
    if wish.ranks:
        argv += ["--network=host", "--ipc=host", "--pid=host", "--env-host"]
    else:
        argv.append(f"--network={'host' if wish.network else 'none'}")
    if wish.gpus == "nvidia":
        argv.append("--gpu" if runtime == "podman-hpc" else "--device=nvidia.com/gpu=all")
    elif wish.gpus == "amd":
        argv += ["--device=/dev/kfd", "--device=/dev/dri", "--group-add=keep-groups"]
    for mount in _all_mounts(wish):
        argv += ["--volume", _volume(mount)]
    variables = dict(wish.variables or {})
    # By name alone: the value comes from the environment, where no other user of the node
    # can read it.
    argv += [f"--env={name}" for name in variables]
    return [*argv, "--workdir", wish.workdir, *wish.options, wish.image, *wish.argv], variables


def _shifter(wish: Wish) -> tuple[list[str], dict[str, str]]:
    if wish.gpus == "amd":
        raise ValueError("shifter brings no AMD GPUs into a container")
    argv = ["shifter", f"--image={wish.image}", f"--workdir={wish.workdir}"]
    if wish.gpus == "nvidia":
        argv.append("--module=gpu")
    # The site's file systems are inside already, under their own paths, and cannot be mounted over.
    argv += [f"--volume={_volume(m)}" for m in _all_mounts(wish) if m.source != m.target]
    return [*argv, *wish.options, *wish.argv], dict(wish.variables or {})
