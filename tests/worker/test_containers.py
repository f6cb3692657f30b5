"""Argument lists of container runtimes: what they are, and what holds of all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.study.evaluation import RUNTIMES
from hpc_hpo.worker.containers import Mount, Wish, compose

WISH: dict[str, Any] = {
    "image": "train.sif",
    "argv": ["bash", "-c", "run me"],
    "workdir": "/s/trials/000001/s000001",
    "mounts": [Mount("/real/d", "/s/inputs/d"), Mount("/cvmfs", "/cvmfs")],
    "variables": {"HPC_HPO_TRIAL": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
}


def test_that_apptainer_gets_a_closed_read_only_image() -> None:
    argv, variables = compose("apptainer", Wish(**WISH, gpus="nvidia"))
    assert argv == [
        *("apptainer", "exec", "--no-home", "--cleanenv", "--nv", "--net", "--network", "none"),
        *("--bind", "/cvmfs:/cvmfs:ro"),
        *("--bind", "/real/d:/s/inputs/d:ro"),
        *("--bind", "/s/trials/000001/s000001:/s/trials/000001/s000001"),
        *("--pwd", "/s/trials/000001/s000001", "train.sif", "bash", "-c", "run me"),
    ]
    # As a value of --env it would be split at the comma.
    assert variables == {
        "APPTAINERENV_HPC_HPO_TRIAL": "1",
        "APPTAINERENV_CUDA_VISIBLE_DEVICES": "0,1",
    }


def test_that_singularity_differs_by_its_name_alone() -> None:
    argv, variables = compose("singularity", Wish(**WISH, gpus="amd"))
    assert argv[:5] == ["singularity", "exec", "--no-home", "--cleanenv", "--rocm"]
    assert variables["SINGULARITYENV_HPC_HPO_TRIAL"] == "1"


def test_that_podman_hpc_gets_a_closed_read_only_image() -> None:
    argv, variables = compose(
        "podman-hpc", Wish(**WISH, gpus="nvidia", options=["--userns=keep-id"])
    )
    assert argv == [
        *("podman-hpc", "run", "--rm", "--init", "--read-only", "--entrypoint="),
        *("--network=none", "--gpu"),
        *("--volume", "/cvmfs:/cvmfs:ro"),
        *("--volume", "/real/d:/s/inputs/d:ro"),
        *("--volume", "/s/trials/000001/s000001:/s/trials/000001/s000001"),
        *("--env=HPC_HPO_TRIAL", "--env=CUDA_VISIBLE_DEVICES"),
        *("--workdir", "/s/trials/000001/s000001", "--userns=keep-id"),
        *("train.sif", "bash", "-c", "run me"),
    ]
    assert variables == WISH["variables"]


def test_that_shifter_mounts_only_what_has_another_path_inside() -> None:
    argv, _ = compose("shifter", Wish(**WISH, gpus="nvidia"))
    assert argv == [
        *("shifter", "--image=train.sif", "--workdir=/s/trials/000001/s000001", "--module=gpu"),
        *("--volume=/real/d:/s/inputs/d:ro", "bash", "-c", "run me"),
    ]


def test_that_ranks_reach_one_another() -> None:
    argv, _ = compose("apptainer", Wish(**WISH, ranks=True))
    assert not {"--net", "--cleanenv"} & set(argv)
    argv, _ = compose("podman", Wish(**WISH, ranks=True))
    assert {"--network=host", "--ipc=host", "--pid=host", "--env-host"} <= set(argv)


def test_that_a_bind_of_the_user_goes_before_what_is_mounted_by_itself() -> None:
    mounts = [Mount("/a", "/x"), Mount.parse("/b:/x:ro")]
    argv, _ = compose("apptainer", Wish(**{**WISH, "mounts": mounts}))
    assert "/b:/x:ro" in argv
    assert "/a:/x:ro" not in argv


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", Mount("/a", "/a", True)),
        ("/a:/b", Mount("/a", "/b", True)),
        ("/a:/b:ro", Mount("/a", "/b", False)),
        ("/a:/b:rw", Mount("/a", "/b", True)),
    ],
)
def test_that_binds_are_read(text: str, mount: Mount) -> None:
    assert Mount.parse(text) == mount


def test_that_what_a_runtime_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="no container runtime 'dokcer'"):
        compose("dokcer", Wish(**WISH))
    with pytest.raises(ValueError, match="no AMD GPUs"):
        compose("shifter", Wish(**WISH, gpus="amd"))


PATHS = st.text("abc/", min_size=1, max_size=8).map(lambda s: "/" + s)


@given(
    runtime=st.sampled_from(RUNTIMES),
    argv=st.lists(st.text(max_size=8), min_size=1),
    workdir=PATHS,
    mounts=st.lists(st.builds(Mount, PATHS, PATHS, st.booleans()), max_size=6),
    secret=st.text("xyz", min_size=12),
    gpus=st.sampled_from(["", "nvidia"]),
    network=st.booleans(),
)
def test_that_no_argument_is_lost_and_nothing_comes_in_unasked(
    runtime: str,
    argv: list[str],
    workdir: str,
    mounts: list[Mount],
    secret: str,
    gpus: str,
    network: bool,
) -> None:
    wish = Wish("i.sif", argv, workdir, mounts, {"TOKEN": secret}, gpus=gpus, network=network)
    line, variables = compose(runtime, wish)
    assert line[-len(argv) :] == argv
    head = line[: -len(argv)]
    assert secret not in " ".join(head), "other users of the node see arguments"
    assert secret in variables.values()
    if runtime == "shifter":
        assert "--image=i.sif" in head
        return
    assert head[-1] == "i.sif"
    binds = [head[i + 1] for i, a in enumerate(head) if a in ("--bind", "--volume")]
    targets = [bind.split(":")[1] for bind in binds]
    assert len(targets) == len(set(targets))
    assert f"{workdir}:{workdir}" in binds
    assert {m.target for m in mounts} <= set(targets)
    closed = "none" in head or "--network=none" in head
    assert closed is not network
    assert ("--nv" in head or "--gpu" in head or "--device=nvidia.com/gpu=all" in head) is bool(
        gpus
    )
