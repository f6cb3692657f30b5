"""Slices of commands: real programs in folders of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.worker.bench import Bench, is_running

#: Counts to 5 in a file; slow until it is put back once, and pauses at the signal.
COUNTER = """
import json, os, pathlib, signal, sys, time
stop = []
signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))
count = pathlib.Path("count.txt")
n = int(count.read_text()) if count.exists() else 0
resumed = n > 0
while n < 5:
    n += 1
    temporary = count.with_suffix(".tmp")
    temporary.write_text(str(n))
    temporary.replace(count)
    with open("metrics.jsonl", "a") as f:
        print(json.dumps({"step": n, "loss": 1 / n}), file=f)
    while n == 3 and not resumed and not stop:
        time.sleep(0.01)
    if stop:
        sys.exit(75)
json.dump({"loss": n + (0.5 if resumed else 0)}, open("output.json", "w"))
"""


@pytest.fixture(autouse=True)
def python3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of the tests is the ``python3`` of the commands."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + ":" + os.environ["PATH"])


def workdir(bench: Bench, slice_: int = 1) -> Path:
    return bench.trial / f"s{slice_:06d}"


def test_that_a_command_gets_its_parameters_and_gives_its_loss(bench: Bench) -> None:
    bench.task["inputs"] = {"train-data": "/data/d.npz"}
    bench.command(
        """
        import json, os, sys
        point = json.load(open("input.json"))
        assert json.loads(os.environ["HPC_HPO_POINT"]) == point
        names = ("TRIAL", "SLICE", "SEED", "CHECKPOINT_SIGNAL", "INPUT_TRAIN_DATA")
        facts = [os.environ["HPC_HPO_" + n] for n in names]
        print(json.dumps({"argv": sys.argv[1:], "facts": facts,
                          "deadline": "HPC_HPO_DEADLINE" in os.environ}))
        json.dump({"loss": point["x"] * 2}, open("output.json", "w"))
        """,
        "--lr={x}",
        "{inputs.train-data}",
        "{trial}-{seed}",
        "{{}}",
    )
    outcome = bench.run(point={"x": 1e-05})
    assert outcome["end"] == "completed", outcome
    assert outcome["loss"] == 2e-05
    name, start, end = outcome["log"]
    printed = json.loads((bench.dir / name).read_bytes()[start:end])
    assert printed["argv"] == ["--lr=1e-05", "/data/d.npz", "7-11", "{}"]
    assert printed["facts"] == ["7", "1", "11", "SIGUSR1", "/data/d.npz"]
    assert printed["deadline"] is False


def test_that_a_printed_loss_is_the_last_that_matches(bench: Bench) -> None:
    bench.command(
        "for v in (3, 2, 1.5): print(f'epoch val_loss={v} done')",
        loss={"stdout": r"val_loss=(\S+)"},
    )
    worker = bench.worker()
    assert bench.run(worker)["loss"] == 1.5
    bench.command("print('nothing')", loss={"stdout": r"val_loss=(\S+)"})
    bench.task["argv"] = ["python3", "program.py"]
    outcome = bench.run(worker, trial=8)
    assert outcome["error"]["kind"] == "output", "the last slice's loss is not this one's"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("", "output", "wrote no output.json"),
        ("open('output.json', 'w').write('{')", "output", "not valid JSON"),
        ("open('output.json', 'w').write('{\"x\": 1}')", "output", "no key 'loss'"),
        ("open('output.json', 'w').write('{\"loss\": \"1\"}')", "output", "not a number"),
        ("open('output.json', 'w').write('{\"loss\": NaN}')", "loss", "nan"),
        ("import sys; print('why'); sys.exit(3)", "exit", "status 3"),
        ("import os; os.kill(os.getpid(), 11)", "signal", "SIGSEGV"),
    ],
)
def test_that_a_command_without_a_loss_fails(
    bench: Bench, code: str, kind: str, message: str
) -> None:
    bench.command(code)
    outcome = bench.run()
    assert outcome["end"] == "failed"
    assert outcome["error"]["kind"] == kind
    assert message in outcome["error"]["message"]


def test_that_a_failure_shows_what_the_command_printed(bench: Bench) -> None:
    bench.command("import sys; print('x' * 5000); sys.exit('no GPU: größe')")
    error = bench.run()["error"]
    assert error["exit_code"] == 1
    assert len(error["log_tail"]) <= 2048
    assert error["log_tail"].endswith("no GPU: größe\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no-such-program-here"], "no-such-program-here: cannot be started"),
        (["true", "{inputs.nothing}"], "no such input"),
        (["{width}"], "empty"),
        (["true", "a\0b"], "null"),
    ],
)
def test_that_a_command_that_cannot_be_started_fails(
    bench: Bench, argv: list[str], message: str
) -> None:
    bench.task.update(kind="command", argv=argv)
    error = bench.run()["error"]
    assert error["kind"] == "command"
    assert message in error["message"]


def test_that_a_command_is_signalled_ahead_of_its_deadline_and_goes_on_later(
    bench: Bench,
) -> None:
    bench.command(COUNTER, checkpoint_files=["*.txt"])
    end = time.time() + 1.5
    paused = bench.run(worker=bench.worker(block_end=end), margin_s=0.7)
    assert (paused["end"], paused["reason"]) == ("paused", "walltime")
    assert paused["ended"] < end
    assert paused["checkpoint"]["step"] == 3
    assert [step for step, _ in paused["reports"]] == [1, 2, 3]
    assert paused["pace"]["step_s"] < 0.5, "its answer to the signal"

    done = bench.run(slice=2, known_step=3)
    assert (done["end"], done["loss"]) == ("completed", 5.5)
    assert done["restored"] == paused["checkpoint"]["name"]
    assert [step for step, _ in done["reports"]] == [4, 5]
    assert not workdir(bench, 1).exists() and workdir(bench, 2).exists()


def test_that_a_command_that_dies_by_the_signal_is_paused(bench: Bench) -> None:
    bench.command("import time; open('a.ckpt', 'w').write('1'); time.sleep(60)")
    bench.task["checkpoint_files"] = ["*.ckpt"]
    outcome = bench.run(worker=bench.worker(block_end=time.time() + 1.2), margin_s=0.7)
    assert outcome["end"] == "paused"
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001"


def test_that_a_loss_written_after_the_signal_counts(bench: Bench) -> None:
    bench.command(
        """
        import json, signal, sys, time
        def finish(*_):
            json.dump({"loss": 0.25}, open("output.json", "w"))
            sys.exit(9)
        signal.signal(signal.SIGTERM, finish)
        time.sleep(60)
        """,
        signal="SIGTERM",
    )
    outcome = bench.run(worker=bench.worker(block_end=time.time() + 1.2), margin_s=0.7)
    assert (outcome["end"], outcome["loss"]) == ("completed", 0.25)


def test_that_a_command_that_ignores_the_signal_is_lost_with_its_files_saved(
    bench: Bench,
) -> None:
    bench.command(
        """
        import os, signal, subprocess, time
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("pid", "w").write(str(subprocess.Popen(["sleep", "60"]).pid))
        open("model.ckpt", "w").write("weights")
        time.sleep(60)
        """,
        checkpoint_files=["*.ckpt"],
    )
    end = time.time() + 1.5
    outcome = bench.run(worker=bench.worker(block_end=end), margin_s=0.7)
    assert (outcome["end"], outcome["reason"]) == ("lost", "walltime")
    assert outcome["ended"] < end + 0.2
    assert "SIGUSR1 had been sent" in outcome["error"]["message"]
    saved = bench.trial / outcome["checkpoint"]["name"] / "files" / "model.ckpt"
    assert saved.read_text() == "weights"
    assert not is_running(int((workdir(bench) / "pid").read_text()))


def test_that_checkpoint_files_are_saved_while_the_command_runs(bench: Bench) -> None:
    bench.command(
        """
        import os, pathlib, time
        pathlib.Path("deep").mkdir()
        pathlib.Path("deep/a.ckpt").write_text("first")
        limit = time.monotonic() + 20
        while not list(pathlib.Path("..").glob("ckpt-*")) and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
        """,
        checkpoint_files=["**/*.ckpt", "output.json"],
        checkpoint_every_s=0.2,
    )
    outcome = bench.run()
    assert outcome["end"] == "failed"
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001"
    bench.command(
        """
        import json, pathlib
        assert pathlib.Path("deep/a.ckpt").read_text() == "first"
        json.dump({"loss": 1}, open("output.json", "w"))
        """
    )
    outcome = bench.run(slice=2)
    assert outcome["loss"] == 1.0
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001", "nothing new to save"


def test_that_a_timeout_kills_a_command_s_children(bench: Bench) -> None:
    bench.command(
        """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("pid", "w").write(str(subprocess.Popen(["sleep", "60"], process_group=0).pid
                               if __import__("sys").version_info >= (3, 11)
                               else subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)
        """,
        max_time_s=0.6,
    )
    outcome = bench.run()
    assert outcome["error"]["kind"] == "timeout"
    assert not is_running(int((workdir(bench) / "pid").read_text()))


def test_that_what_a_command_leaves_running_is_killed(bench: Bench) -> None:
    bench.command(
        """
        import json, subprocess
        json.dump({"loss": subprocess.Popen(["sleep", "60"]).pid}, open("output.json", "w"))
        """
    )
    assert not is_running(int(bench.run()["loss"]))


@pytest.mark.parametrize(
    ("document", "end", "message"),
    [
        ({"loss": 0.25}, "completed", None),
        ({"status": 0, "loss": 0.0}, "completed", None),
        ({"status": 2, "loss": 0.1, "message": "bad data"}, "failed", "status 2: bad data"),
        ({"status": 0}, "failed", "no key 'loss'"),
        ([], "failed", "not a JSON object"),
        (None, "failed", "wrote no output.json"),
    ],
)
def test_that_an_evaluation_speaks_by_its_files(
    bench: Bench, document: Any, end: str, message: str | None
) -> None:
    bench.task["inputs"] = {"a": "/d/a", "b": "/d/b"}
    bench.command(
        f"""
        import json
        assert json.load(open("input.json")) == {{"x": 2.0}}
        assert json.load(open("input_ds.json")) == ["/d/a", "/d/b"]
        document = {document!r}
        if document is not None:
            json.dump(document, open("output.json", "w"))
        """,
        kind="evaluation",
    )
    outcome = bench.run()
    assert outcome["end"] == end, outcome
    if message is not None:
        assert message in outcome["error"]["message"]


def test_that_a_nested_key_gives_the_loss(bench: Bench) -> None:
    bench.command(
        "open('r.json', 'w').write('{\"val\": {\"rmse\": 3}}')",
        loss={"file": "r.json", "key": "val.rmse"},
    )
    assert bench.run()["loss"] == 3.0


def test_that_a_terminated_block_is_not_the_command_s_failure(bench: Bench) -> None:
    bench.command(
        f"""
        import os, pathlib
        notice = pathlib.Path({str(bench.notice)!r})
        notice.write_text('{{"deadline": null, "reason": "walltime"}}')
        os.kill(os.getpid(), {int(signal.SIGTERM)})
        """
    )
    assert bench.run()["end"] in ("lost", "paused")


#: Counts to 9, each step in a file; ends at the signal.
STEPS = """
import json, os, pathlib, signal, sys, time
stop = []
signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))
count = pathlib.Path("count.txt")
first = int(count.read_text()) if count.exists() else 0
rung = int(os.environ.get("HPC_HPO_STOP_STEP", 9))
for n in range(first + 1, 10):
    count.write_text(str(n))
    print(json.dumps({"step": n, "loss": 1 / n, "first": first}), file=open("metrics.jsonl", "a"))
    while n >= rung and n < 9 and not stop:
        time.sleep(0.01)
    if stop:
        sys.exit(75)
json.dump({"loss": 0.5}, open("output.json", "w"))
"""


def test_that_a_command_pauses_at_a_rung_and_goes_on_from_its_files(bench: Bench) -> None:
    bench.command(STEPS, checkpoint_files=["*.txt"])
    paused = bench.run(stop_step=3)
    assert (paused["end"], paused["reason"], paused["loss"]) == ("paused", "rung", None)
    assert [step for step, _ in paused["reports"]] == [1, 2, 3]
    assert paused["checkpoint"]["step"] == 3
    again = bench.run(slice=2, known_step=3, stop_step=6)
    assert (again["end"], again["reason"]) == ("paused", "rung")
    assert [(step, m["first"]) for step, m in again["reports"]] == [(4, 3), (5, 3), (6, 3)]
    done = bench.run(slice=3, known_step=6)
    assert (done["end"], done["loss"]) == ("completed", 0.5)
    assert [(step, m["first"]) for step, m in done["reports"]] == [(7, 6), (8, 6), (9, 6)]
