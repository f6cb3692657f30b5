"""Trials of several ranks, with a real MPI: mpi4py ranks under mpiexec on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpc_hpo.worker.checkpoint import verify
from tests.mpi import require_mpiexec
from tests.worker.bench import Bench, is_running, wait_for

RANKS = 4


@pytest.fixture
def ranks(bench: Bench) -> Iterator[Bench]:
    """A bench whose slices are of four ranks on one node."""
    launcher = require_mpiexec()
    made = bench.request
    nodes = [["here", list(range(RANKS)), [0, 1, 2, 3]]]

    def request(**facts: Any) -> dict[str, Any]:
        place = {
            "index": 0, "nodes": nodes, "bind": False, "mask": "CUDA_VISIBLE_DEVICES",
            "launch": [launcher, "-n", str(RANKS)], "erf": "",
        }  # fmt: skip
        shape = [RANKS, RANKS, 1, 1.0, False, 2]
        return made(**{"shape": shape, "place": place, **facts})

    bench.request = request  # type: ignore[method-assign]
    bench.task["rank_timeout_s"] = 60.0
    yield bench
    left = [p for p in psutil.Process().children(recursive=True) if is_running(p.pid)]
    for worker in bench.workers:
        worker.close()
    # Hydra's helpers end a moment after the ranks.
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not [p.cmdline() for p in alive], "no rank outlives its slice"


def test_that_all_ranks_see_one_point_one_world_and_a_share_each(ranks: Bench) -> None:
    ranks.objective(
        """
        import json, os
        def train(config, trial):
            mine = (trial.rank, trial.size, config["x"], trial.seed,
                    os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"])
            everyone = trial.comm.gather(mine)
            if trial.rank == 0:
                (trial.folder / "seen.json").write_text(json.dumps(everyone))
            return trial.reduce(float(trial.rank), "sum")
        """
    )
    outcome = ranks.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 6.0), outcome
    seen = json.loads((ranks.trial / "seen.json").read_text())
    assert seen == [[rank, RANKS, 2.0, 11, str(rank), "2"] for rank in range(RANKS)]


def test_that_all_ranks_stop_in_the_same_step_and_resume_from_their_own_parts(
    ranks: Bench,
) -> None:
    ranks.objective(
        """
        import time
        def train(config, trial):
            state = trial.restore() or {"step": 0, "mine": []}
            assert set(state["mine"]) == (set() if trial.slice == 1 else {trial.rank})
            begun = step = state["step"]
            while trial.slice == 1 or step < begun + 20:
                time.sleep(0.02 * (trial.rank + 1) / trial.size)
                step += 1
                state = {"step": step, "mine": state["mine"][-3:] + [trial.rank]}
                trial.report(step, value=float(step))
                if trial.should_stop():
                    trial.checkpoint(state, parts=True)
                    steps = trial.comm.allgather(state["step"])
                    assert len(set(steps)) == 1, steps
                    return None
            return float(step - begun)
        """
    )
    end = time.time() + 15.0
    first = ranks.run(worker=ranks.worker(block_end=end), margin_s=6.0)
    assert (first["end"], first["reason"]) == ("paused", "walltime"), first
    saved = verify(ranks.trial / first["checkpoint"]["name"])
    assert list(saved.meta["files"]) == [f"parts/rank-{r:06d}.h5" for r in range(RANKS)]
    again = ranks.run(slice=2, known_step=first["checkpoint"]["step"])
    assert again["restored"] == first["checkpoint"]["name"]
    assert again["end"] == "completed" and again["loss"] == 20.0, again


def test_that_a_stop_request_reaches_all_ranks(ranks: Bench) -> None:
    ranks.objective(
        """
        import time
        def train(config, trial):
            (trial.folder / f"up-{trial.rank}").touch()
            while not trial.should_stop():
                time.sleep(0.01)
            trial.checkpoint({"rank": trial.rank})
            return None
        """
    )
    ups = [ranks.trial / f"up-{r}" for r in range(RANKS)]

    def ask() -> None:
        wait_for(lambda: all(up.exists() for up in ups))
        content = {"deadline": time.time() + 30, "reason": "preempted"}
        ranks.notice.write_text(json.dumps(content))

    thread = threading.Thread(target=ask)
    thread.start()
    outcome = ranks.run()
    thread.join()
    assert (outcome["end"], outcome["reason"]) == ("paused", "preempted"), outcome
    assert "state.h5" in verify(ranks.trial / outcome["checkpoint"]["name"]).meta["files"]


def test_that_a_rank_that_raises_ends_the_slice_with_its_number_and_traceback(
    ranks: Bench,
) -> None:
    ranks.objective(
        """
        def train(config, trial):
            if trial.rank == 2:
                raise ValueError("no such mesh")
            trial.comm.Barrier()
            return 0.0
        """
    )
    begun = time.monotonic()
    outcome = ranks.run()
    took = time.monotonic() - begun
    assert outcome["end"] == "failed"
    assert outcome["error"]["message"] == "rank 2 of 4: ValueError: no such mesh"
    assert "raise ValueError" in outcome["error"]["traceback"]
    # The others would have waited for ever.
    assert took < 60


def test_that_a_rank_that_is_killed_is_named(ranks: Bench) -> None:
    ranks.objective(
        """
        import os, signal
        def train(config, trial):
            if trial.rank == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            trial.comm.Barrier()
            return 0.0
        """
    )
    outcome = ranks.run()
    assert outcome["end"] == "failed"
    assert outcome["error"]["message"].startswith("rank 1 of 4: was killed by SIGSEGV"), outcome


def test_that_a_rank_that_hangs_is_named(ranks: Bench) -> None:
    ranks.objective(
        """
        import time
        def train(config, trial):
            for step in range(5):
                trial.should_stop()
            if trial.rank == 3:
                time.sleep(600)
            trial.should_stop()
            return 0.0
        """
    )
    ranks.task["rank_timeout_s"] = 2.0
    error = ranks.run()["error"]
    assert error["kind"] == "hang"
    assert "rank 3 of 4 did not come to trial.should_stop() within 2 s" in error["message"]
    first, second, *_ = error["traceback"].splitlines()
    assert first == "rank 3 (most recent call first):"
    assert second.endswith("line 7 in train"), error["traceback"]


def test_that_a_slice_that_runs_out_of_time_tells_where_each_rank_stands(ranks: Bench) -> None:
    ranks.objective(
        """
        import time
        def train(config, trial):
            if trial.rank == 3:
                time.sleep(600)
            trial.comm.Barrier()  # the package cannot see who is waited for here
        """
    )
    ranks.task["max_time_s"] = 6.0
    error = ranks.run()["error"]
    assert error["kind"] == "timeout"
    lines = error["traceback"].splitlines()
    assert "rank 0, 1, 2 (most recent call first):" in lines
    sleeper = lines.index("rank 3 (most recent call first):")
    assert lines[sleeper + 1].endswith("line 5 in train"), error["traceback"]


def test_that_a_part_that_cannot_be_written_commits_no_checkpoint(ranks: Bench) -> None:
    ranks.objective(
        """
        def train(config, trial):
            good = {"a": 1}
            trial.checkpoint(good, parts=True)
            bad = {"a": object()} if trial.rank == 3 else good
            try:
                trial.checkpoint(bad, parts=True)
            except Exception as error:
                caught = type(error).__name__
            everyone = trial.comm.allgather(caught)
            assert everyone == ["CheckpointError"] * trial.size, everyone
            trial.checkpoint({"a": 2}, parts=True)
            return 1.0
        """
    )
    outcome = ranks.run()
    assert outcome["end"] == "completed", outcome
    assert len(ranks.checkpoints()) == 2
    assert not list(ranks.trial.glob(".ckpt*"))


def test_that_a_launcher_that_forms_worlds_of_one_is_said(ranks: Bench) -> None:
    # As srun does with the wrong PMI: four processes, each alone.
    script = ranks.source / "fake_launcher"
    script.write_text('#!/bin/bash\nfor r in 0 1 2 3; do JSM_NAMESPACE_RANK=$r "$@" & done; wait\n')
    script.chmod(0o755)
    ranks.objective("def train(config, trial): return 0.0")
    request = ranks.request()
    place = {**request["place"], "launch": [str(script)]}
    outcome = ranks.run(place=place)
    assert outcome["error"]["kind"] == "launch", outcome["error"]
    assert "worlds of 1, not one of 4" in outcome["error"]["message"]


COMMAND = """
import json, os, pathlib, signal, sys, time
rank = int(os.environ["RANK"])
facts = {n: os.environ[n] for n in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK",
         "LOCAL_RANK", "NODE_RANK", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
pathlib.Path(f"facts-{rank}.json").write_text(json.dumps(facts))
"""


def test_that_a_command_s_ranks_get_the_variables_of_torch_distributed(ranks: Bench) -> None:
    ranks.command(
        COMMAND
        + """
if rank == 0:
    pathlib.Path("output.json").write_text(json.dumps({"loss": 0.5}))
""",
        loss={"file": "output.json", "key": "loss"},
    )
    outcome = ranks.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 0.5), outcome
    work = ranks.trial / "s000001"
    facts = [json.loads((work / f"facts-{r}.json").read_text()) for r in range(RANKS)]
    assert [f["RANK"] for f in facts] == [f["LOCAL_RANK"] for f in facts] == list("0123")
    assert [f["CUDA_VISIBLE_DEVICES"] for f in facts] == list("0123")
    assert {f["WORLD_SIZE"] for f in facts} == {"4"} and {f["NODE_RANK"] for f in facts} == {"0"}
    assert len({(f["MASTER_ADDR"], f["MASTER_PORT"]) for f in facts}) == 1
    assert not (work / "ranks.json").exists(), "the token goes with the slice"


def test_that_a_command_of_one_rank_has_these_variables_where_others_have_more_ranks(
    bench: Bench,
) -> None:
    bench.command(
        "import json, os, pathlib\n"
        "pathlib.Path('output.json').write_text(json.dumps({'loss': 1.0, 'rank': "
        "[os.environ.get(n) for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')]}))\n",
        loss={"file": "output.json", "key": "loss"},
    )
    place = {"index": 3, "nodes": [["here", [0], []]], "bind": False, "mask": "", "launch": []}
    for several, told in ((True, ["0", "0", "1", "127.0.0.1"]), (False, [None] * 4)):
        bench.task["distributed"] = several
        outcome = bench.run(place=place, trial=int(several))
        assert outcome["end"] == "completed", outcome
        work = bench.dir / "trials" / f"{int(several):06d}" / "s000001"
        assert json.loads((work / "output.json").read_text())["rank"] == told


def test_that_every_rank_of_a_command_gets_the_checkpoint_signal(ranks: Bench) -> None:
    ranks.command(
        COMMAND
        + """
def save(number, frame):
    pathlib.Path(f"model-{rank}.pt").write_text(str(rank))
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
time.sleep(600)
""",
        loss={"file": "output.json", "key": "loss"},
        checkpoint_files=["model-*.pt"],
    )
    outcome = ranks.run(worker=ranks.worker(block_end=time.time() + 12.0), margin_s=5.0)
    assert (outcome["end"], outcome["reason"]) == ("paused", "walltime"), outcome
    saved = verify(ranks.trial / outcome["checkpoint"]["name"])
    assert sorted(saved.meta["files"]) == [f"files/model-{r}.pt" for r in range(RANKS)]


def test_that_a_command_s_rank_that_fails_is_named(ranks: Bench) -> None:
    ranks.command(COMMAND + "sys.exit(3) if rank == 1 else time.sleep(600)\n")
    outcome = ranks.run()
    assert outcome["end"] == "failed"
    assert outcome["error"]["message"].startswith("rank 1 of 4: exited with status 3"), outcome


def test_that_ranks_end_with_their_worker_whatever_becomes_of_the_launcher(bench: Bench) -> None:
    # The processes of srun and jsrun are no children of theirs.
    script = bench.source / "fake_launcher"
    script.write_text(
        '#!/bin/bash\nfor r in 0 1 2 3; do JSM_NAMESPACE_RANK=$r setsid "$@" & done; wait\n'
    )
    script.chmod(0o755)
    bench.command(
        "import os, pathlib, time\n"
        "pathlib.Path(f\"pid-{os.environ['RANK']}\").write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    place = {
        "index": 0, "nodes": [["here", list(range(RANKS)), []]], "bind": False, "mask": "",
        "launch": [str(script)], "erf": "",
    }  # fmt: skip
    request = bench.request(shape=[RANKS, RANKS, 1, 0, False, 1], place=place)
    run = "import sys; from hpc_hpo.worker.entry import run_request; run_request(sys.argv[1])"
    worker = subprocess.Popen([sys.executable, "-c", run, json.dumps(request)])
    pids: list[Path] = []
    try:
        pids = wait_for(lambda: len(p := list(bench.trial.glob("s*/pid-*"))) == RANKS and p, 30)
        wait_for(lambda: all(pid.read_text() for pid in pids))
    finally:
        worker.kill()
        worker.wait()
    ranks = [int(pid.read_text()) for pid in pids]
    wait_for(lambda: not any(map(is_running, ranks)))


def test_that_a_one_rank_trial_is_no_rank_of_the_pilot_s_world(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_mpiexec()
    # What the process managers of MPICH, Open MPI and jsrun set for the processes they start.
    for name, value in {
        "PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "77", "PMIX_RANK": "1", "PMIX_NAMESPACE": "x",
        "OMPI_COMM_WORLD_SIZE": "2", "JSM_NAMESPACE_SIZE": "2", "MPI_LOCALRANKID": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    bench.objective(
        """
        import os
        def train(config, trial):
            from mpi4py import MPI
            assert not [n for n in os.environ if n.startswith(("PMI", "OMPI_COMM", "JSM"))]
            return float(MPI.COMM_WORLD.Get_size() + trial.comm.Get_size())
        """
    )
    assert bench.run()["loss"] == 2.0
