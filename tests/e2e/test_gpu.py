"""On a machine with NVIDIA GPUs: each slice sees its own, and no other slice has them meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STUDY = """\
name: gpus
objective: objective.py:look
space: {x: {float: [0.0, 1.0]}}
budget: {trials: TRIALS}
trial: {gpus_per_rank: EACH}
site: ./site.yaml
blocks: {walltime: 4m}
"""
#: CUDA's driver tells what a payload could use; nvidia-smi, unlike CUDA, heeds no mask by itself.
OBJECTIVE = """
import ctypes, json, os, subprocess, time
from pathlib import Path

def visible():
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuInit(0) == 0
    count = ctypes.c_int()
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    found = []
    for number in range(count.value):
        device, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        assert cuda.cuDeviceGet(ctypes.byref(device), number) == 0
        assert cuda.cuDeviceGetUuid(ctypes.byref(name), device) == 0
        found.append(bytes(name).hex())
    return found

def look(config, trial):
    begun = time.time()
    line = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader",
            "--id=" + os.environ["CUDA_VISIBLE_DEVICES"]]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    seen = visible()
    time.sleep(0.5)
    record = {"told": told, "seen": seen, "begun": begun, "ended": time.time()}
    trial.folder.mkdir(parents=True, exist_ok=True)
    (trial.folder / "seen.json").write_text(json.dumps(record))
    return config["x"]
"""


def devices() -> list[str]:
    """This machine's GPUs, as the hexadecimal digits of their UUIDs."""
    found = []
    if shutil.which("nvidia-smi"):
        line = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        found = [digits(uuid) for uuid in done.stdout.split()] if done.returncode == 0 else []
    if not found:
        words = "needs an NVIDIA GPU and its driver: nvidia-smi lists none"
        if os.environ.get("HPC_HPO_NEEDS_GPU"):
            pytest.fail(words)
        pytest.skip(words)
    return found


def digits(uuid: str) -> str:
    """The digits of GPU-7d9a4c3e-..."""
    return uuid.removeprefix("GPU-").replace("-", "")


@pytest.mark.parametrize("each", [1, 2])
def test_that_a_slice_sees_its_own_gpus_and_shares_them_with_no_other(tmp_path: Path, each) -> None:
    there = devices()
    if len(there) < each:
        pytest.skip(f"needs {each} GPUs; this machine has {len(there)}")
    (tmp_path / "site.yaml").write_text(
        f"name: gpus\nextends: local\nnode: {{cores: {len(there)}, gpus: {len(there)}}}\n"
    )
    trials = 3 * (len(there) // each)
    study = STUDY.replace("TRIALS", str(trials)).replace("EACH", str(each))
    (tmp_path / "study.yaml").write_text(study)
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    done = subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--plain"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        text=True, timeout=280, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    seen = [json.loads(path.read_text()) for path in tmp_path.glob("gpus/trials/*/seen.json")]
    assert len(seen) == trials
    for record in seen:
        assert len(record["seen"]) == each and set(record["seen"]) <= set(there)
        assert sorted(map(digits, record["told"])) == sorted(record["seen"])
    for one, other in combinations(seen, 2):
        if one["begun"] < other["ended"] and other["begun"] < one["ended"]:
            assert not set(one["seen"]) & set(other["seen"])
    assert len({gpu for record in seen for gpu in record["seen"]}) == len(there) // each * each
