"""The worker pool's program: what it adds to Parsl's, on Parsl's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hpc_hpo.pilot import pool

ROOT = Path(__file__).resolve().parents[2]

#: Starts workers as the pool does; each says what it has imported and what a TERM would do to it.
WORKERS = """
import json, multiprocessing, os, signal, sys, time
from multiprocessing import forkserver
from hpc_hpo.pilot import pool


def work(answers):
    answers.put({
        "modules": sorted(sys.modules),
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "parent": multiprocessing.parent_process().pid,
    })


if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(pool.PRELOADED)
    answers = context.Queue()
    said = []
    for _ in range(2):
        worker = context.Process(target=work, args=(answers,))
        worker.start()
        said.append(answers.get(timeout=50))
        worker.join()
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGTERM)
        time.sleep(0.3)
    print(json.dumps({"said": said, "server": server, "pid": os.getpid(),
                      "alive": os.path.exists(f"/proc/{server}/exe")}))
"""


def test_that_workers_are_forked_with_their_imports_and_without_all_of_parsl(tmp_path):
    (tmp_path / "workers.py").write_text(WORKERS)
    answer = subprocess.run(
        [sys.executable, "workers.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    assert seen["alive"], "a TERM to all of a job's processes does not take the fork server along"
    for worker in seen["said"]:
        assert worker["term"], "workers end by TERM"
        assert worker["parent"] == seen["pid"], "the pool, whose end they notice"
        assert {pool.POOL, "hpc_hpo.worker.entry"} <= set(worker["modules"])
        assert not {"parsl.dataflow.dflow", "parsl.providers"} & set(worker["modules"])
        # A node opens the files of what its study runs alone.
        others = {"payload_command", "payload_ranks", "containers", "gate"}
        assert not {f"hpc_hpo.worker.{name}" for name in others} & set(worker["modules"])


def test_that_the_block_s_name_and_end_come_from_the_supervisor(monkeypatch):
    monkeypatch.setenv("HPC_HPO_BLOCK", "7.1")
    monkeypatch.setenv("HPC_HPO_BLOCK_END", "1100.9")
    assert pool.options(now=1000.0) == ["--block_id=7.1", "--drain_period=100"]
    # Never past the end, however late Parsl reads its clock; never 0, which is none.
    assert pool.options(now=1000.88)[1] == "--drain_period=99"
    assert pool.options(now=1100.7)[1] == "--drain_period=1"
    monkeypatch.delenv("HPC_HPO_BLOCK_END")
    assert pool.options(now=1000.0) == ["--block_id=7.1"]
