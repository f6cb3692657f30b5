"""A study whose inputs came over HTTP runs from the copies on its node's own disk, through real
Parsl workers; its network is gone by then."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from tests.e2e.conftest import Workshop
from tests.extras import needs
from tests.prestage.server import serving

STUDY = """\
name: digits
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: random
budget: {trials: 6}
site: ./site.yaml
blocks: {workers_per_node: 2, walltime: 60s}
TRIAL
inputs:
- {name: data, source: URL/data.csv, node_local: true}
- {name: env, source: URL/env.tar.gz, kind: environment, node_local: true}
- {name: set, source: URL/set.tar.gz, unpack: true}
"""
OBJECTIVE = """\
import os, subprocess

def train(config, trial):
    assert open(trial.inputs["data"]).read() == "1,2", trial.inputs
    assert open(trial.inputs["env"] + "/lib/a.txt").read() == "a"
    assert open(trial.inputs["set"] + "/lib/a.txt").read() == "a"
    assert subprocess.check_output(["tool"], text=True) == "tool of the environment\\n"
    assert os.path.commonpath([trial.inputs["data"], trial.inputs["env"]]).endswith("hpc_hpo")
    return config["x"]
"""


def packed() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in (
            ("bin/tool", "#!/bin/sh\necho tool of the environment\n"), ("lib/a.txt", "a"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_that_a_study_runs_from_copies_on_its_node(workshop: Workshop, ranks: int) -> None:
    if ranks > 1:
        needs("mpi4py", of="MPI")
    node = workshop.folder / "node"
    (workshop.folder / "site.yaml").write_text(
        f"extends: local\nname: here\nnode_local: {node}\nlauncher: mpiexec\n"
        "node: {cores: 4, smt: 1}\n"
    )
    (workshop.folder / "objective.py").write_text(OBJECTIVE)
    with serving() as server:
        server.add("/data.csv", b"1,2")
        for name in ("/env.tar.gz", "/set.tar.gz"):
            server.add(name, packed())
        trial = f"trial: {{ranks: {ranks}}}" if ranks > 1 else ""
        workshop.study.write_text(STUDY.replace("URL", server.url).replace("TRIAL", trial))
        code, output = workshop.call("prestage", "study.yaml")
        assert code == 0, output
    code, output = workshop.call("run", "study.yaml", "--plain")
    assert code == 0 and "6 completed, 0 failed" in output, output
    copies = [p for p in (node / "hpc_hpo").iterdir() if p.is_dir()]
    assert len(copies) == 2, "one of each input, for all slices and workers"
    task = json.loads((workshop.folder / "digits" / "task.json").read_text())
    assert task["local"]["data"]["files"][0][2:] == [3, hashlib.sha256(b"1,2").hexdigest()]
