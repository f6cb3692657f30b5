"""What a place means for processes: which rank, which share, which variables."""

from __future__ import annotations

import pytest

from hpc_hpo.model import Place, Shape
from hpc_hpo.worker.keeper import find_rank, find_share
from hpc_hpo.worker.place import (
    PORTS,
    distributed,
    hardware_threads,
    master_port,
    outside_worlds,
    share_variables,
)

PLACE = Place(
    index=0, nodes=[["n1", [0, 1], [0, 1]], ["n2", [0, 1], [2, 3]]], bind=True,
    mask="ROCR_VISIBLE_DEVICES", launch=["srun"], erf="",
)  # fmt: skip
SHAPE = Shape(4, 2, 1, 1.0)


@pytest.mark.parametrize(
    ("launcher", "environ", "found"),
    [
        ("srun", {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "PMI_RANK": "0"}, (3, 1)),
        # A batch script of Slurm is process 0 of its own.
        ("mpiexec", {"SLURM_PROCID": "0", "PMI_RANK": "3", "MPI_LOCALRANKID": "1"}, (3, 1)),
        ("mpiexec", {"PALS_RANKID": "2", "PALS_LOCAL_RANKID": "0"}, (2, 0)),
        ("mpirun", {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, (1, 1)),
        ("jsrun", {"JSM_NAMESPACE_RANK": "2", "PMIX_RANK": "2"}, (2, None)),
        ("jsrun", {"PMIX_RANK": "1"}, (1, None)),
    ],
)
def test_that_each_launcher_s_rank_is_found(launcher, environ, found) -> None:
    assert find_rank(launcher, environ) == found


def test_that_a_launcher_that_tells_no_rank_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="srun has not told"):
        find_rank("srun", {"PMI_RANK": "0"})


def test_that_a_share_goes_by_the_node_s_name_else_by_the_order_of_ranks() -> None:
    # srun sorts its nodes as it likes.
    assert find_share(PLACE, SHAPE, 0, 0, "n2") == (1, 0)
    assert find_share(PLACE, SHAPE, 3, 1, "elsewhere") == (1, 1)
    assert find_share(PLACE, SHAPE, 2, None, "n1") == (1, 0)


def test_that_ranks_count_along_the_nodes_and_rank_0_is_the_master() -> None:
    told = distributed(PLACE, SHAPE, 1, 0, 20001)
    assert (told["RANK"], told["LOCAL_RANK"], told["NODE_RANK"]) == ("2", "0", "1")
    assert (told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"], told["MASTER_PORT"]) == (
        "4",
        "2",
        "20001",
    )
    alone = Place(**{**PLACE, "nodes": PLACE["nodes"][:1]})
    assert distributed(alone, Shape(2, 2), 0, 0, 1)["MASTER_ADDR"] == "127.0.0.1"


def test_that_no_two_slices_of_a_block_have_the_same_master_port() -> None:
    ports = [
        master_port({"dir": "/study", "place": Place(index=index)}, "3") for index in range(PORTS)
    ]
    assert len(set(ports)) == PORTS
    # Linux hands out ports from 32768 by itself; those below 1024 are the system's.
    assert min(ports) >= 1024 and max(ports) < 32768
    other = master_port({"dir": "/study", "place": Place(index=0)}, "4")
    assert other != ports[0], "two blocks that share a node begin elsewhere"


def test_that_the_study_s_own_variables_have_the_last_word() -> None:
    assert share_variables(PLACE, [2, 3], SHAPE, {}) == {
        "OMP_NUM_THREADS": "1", "ROCR_VISIBLE_DEVICES": "2,3"
    }  # fmt: skip
    nvidia = Place(**{**PLACE, "mask": "CUDA_VISIBLE_DEVICES"})
    assert share_variables(nvidia, [3], SHAPE, {})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert share_variables(PLACE, [], SHAPE, {"OMP_NUM_THREADS": "8"}) == {
        "ROCR_VISIBLE_DEVICES": ""
    }


def test_that_the_pilot_s_world_is_left_and_the_rest_stays() -> None:
    kept = {"PMIX_MCA": "", "SLURM_JOB_ID": "7", "OMPI_MCA_btl": "tcp", "MPICH_GPU": "1",
            "PMICE": "1"}  # fmt: skip
    gone = dict.fromkeys(
        ["PMI_RANK", "PMI_FD", "PMIX_RANK", "PMI2_X", "OMPI_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE",
         "PALS_RANKID", "MPI_LOCALRANKID", "OMPI_MCA_ess_base_jobid", "HYDI_CONTROL_FD"], "1",
    )  # fmt: skip
    del kept["PMIX_MCA"]
    assert outside_worlds({**kept, **gone}) == kept


def test_that_cores_are_counted_among_those_allowed() -> None:
    assert hardware_threads([0, 1], {1000, 1001, 1002}) == {1000, 1001}
    assert hardware_threads([0, 5], {1000, 1001, 1002}) == set(), "nothing is bound"
    assert hardware_threads([], {1000}) == set()
