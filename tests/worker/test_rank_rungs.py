"""Trials of several ranks pause at rungs: mpi4py ranks, and those of a command."""

from __future__ import annotations

from hpc_hpo.worker.checkpoint import verify
from tests.worker.bench import Bench
from tests.worker.test_ranks import COMMAND, RANKS
from tests.worker.test_ranks import ranks as _ranks

ranks = _ranks  # a fixture


def test_that_all_ranks_pause_at_a_rung_and_go_on_from_there(ranks: Bench) -> None:
    ranks.objective(
        """
        def train(config, trial):
            first = (trial.restore() or {"step": 0})["step"]
            for step in range(first + 1, 10):
                trial.report(step, loss=1.0 / step, first=first)
                if step < 9 and trial.should_stop():
                    stood = trial.comm.gather(step)
                    if trial.rank == 0:
                        (trial.folder / f"stood{trial.slice}").write_text(str(stood))
                    trial.checkpoint({"step": step})
                    return None
            return 1.0 / 9
        """
    )
    paused = ranks.run(stop_step=3)
    assert (paused["end"], paused["reason"]) == ("paused", "rung"), paused
    assert [step for step, _ in paused["reports"]] == [1, 2, 3]
    assert (ranks.trial / "stood1").read_text() == str([3] * RANKS)
    done = ranks.run(slice=2, known_step=3)
    assert done["end"] == "completed"
    assert [(step, m["first"]) for step, m in done["reports"]] == [(n, 3.0) for n in range(4, 10)]


def test_that_the_ranks_of_a_command_pause_at_a_rung(ranks: Bench) -> None:
    ranks.command(
        COMMAND
        + """
def save(number, frame):
    pathlib.Path(f"model-{rank}.pt").write_text(str(rank))
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
pathlib.Path(f"ready-{rank}").touch()
while len(list(pathlib.Path().glob("ready-*"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)  # all heed the signal that the steps bring
if rank == 0:
    with open("metrics.jsonl", "a") as file:
        file.writelines(json.dumps({"step": n, "loss": 1 / n}) + "\\n" for n in (1, 2, 3))
time.sleep(600)
""",
        checkpoint_files=["model-*.pt"],
    )
    outcome = ranks.run(stop_step=3)
    assert (outcome["end"], outcome["reason"]) == ("paused", "rung"), outcome
    assert outcome["checkpoint"]["step"] == 3
    saved = verify(ranks.trial / outcome["checkpoint"]["name"])
    assert sorted(saved.meta["files"]) == [f"files/model-{r}.pt" for r in range(RANKS)]
